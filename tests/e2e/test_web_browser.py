"""The owner's page in a real browser: with the keyboard alone, on a phone, without JavaScript, to screen readers."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from lab import client
from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person

PHONE = ViewportSize(width=320, height=640)  # WCAG 2.2, 1.4.10: as 1280 pixels at 400 %


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield started
        started.close()


def code(person: Person) -> str:
    stored = client.imap(person.lab, person.user)[-1]
    [found] = re.findall(rb"^  confirm ([0-9]{6})", person.read(stored), re.MULTILINE)
    return str(found.decode())


def assert_usable(page: Page) -> None:
    """Axe finds nothing, and nothing is cut off or has to be scrolled sideways."""
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_an_owner_brings_a_key_and_turns_encryption_off(
    lab_sealed: Lab, new_person: NewPerson, browser: Browser, tmp_path: Path
) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    file = tmp_path / "key.asc"
    file.write_bytes(person.gpg.gpg("--armor", "--export"))
    context = browser.new_context(viewport=PHONE, locale="en-US", bypass_csp=True)  # for axe alone
    page = context.new_page()
    page.goto(lab_sealed.web)
    assert_usable(page)
    page.get_by_label("Mail address").fill(person.address)
    page.get_by_label("Password").fill(lab_sealed.password)
    page.get_by_role("button", name="Sign in").click()
    assert_usable(page)
    page.get_by_label("Public key file").set_input_files(file)
    page.get_by_role("button", name="Set up key").click()
    assert page.get_by_role("status").inner_text() == "Now see whether you can read the test message"
    page.get_by_label("Code from the test message").fill(code(person))
    page.get_by_role("button", name="Confirm").click()
    assert page.get_by_role("status").inner_text() == "Your OpenPGP key is set up"
    page.emulate_media(color_scheme="dark")
    assert_usable(page)
    page.locator("form[action='/off']").get_by_label("Password").fill(lab_sealed.password)
    page.get_by_role("button", name="Turn off").click()
    assert page.get_by_text("This key will be removed").count() == 1
    assert_usable(page)
    page.get_by_role("button", name="Keep my keys").click()
    page.get_by_role("button", name="Sign out").click()
    assert page.get_by_role("heading", name="Sign in").count() == 1
    context.close()


def test_with_the_keyboard_alone_without_javascript_and_in_german(
    lab_sealed: Lab, new_person: NewPerson, browser: Browser
) -> None:
    person = new_person(lab_sealed)
    context = browser.new_context(java_script_enabled=False, locale="de-DE")
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda one: problems.append(one.text))
    page.on("requestfailed", lambda one: problems.append(one.url))
    page.goto(lab_sealed.web)
    for key in ("Tab", "Tab"):  # past the link to the content
        page.keyboard.press(key)
    page.keyboard.type(person.address)
    page.keyboard.press("Tab")
    page.keyboard.type(lab_sealed.password)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Was mit meiner Mail geschieht").wait_for()
    assert page.get_by_text("Aus.").count() == 1
    page.get_by_label("oder hier einfügen").focus()
    page.keyboard.type("no key")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("status").wait_for()
    assert page.get_by_role("status").inner_text() != ""
    context.close()
    assert problems == []
