"""The owner's page, with real Dovecots: from signing in to mail that is encrypted, and what thieves get there."""

import gzip
import http.client
import io
import re
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from lab import client
from lab.client import Lab
from sieve_filter.web import app
from sieve_filter.web.mailbox import Place
from tests.e2e.conftest import NewPerson, Person, assert_encrypted_to, deliver, files_with, message
from tests.support.imap_keys import FOLDER

BROWSER = "Mozilla/5.0 (test)"


class Visitor:
    """A browser without JavaScript."""

    def __init__(self, made: FlaskClient, base: str = "http://127.0.0.1:8025", language: str = "en") -> None:
        self.client = made
        self.base = base
        self.headers = {"User-Agent": BROWSER, "Accept-Language": language}
        self.page = self.get("/")

    def get(self, path: str) -> TestResponse:
        self.page = self.client.get(path, base_url=self.base, headers=self.headers)
        return self.page

    def post(self, path: str, fields: dict[str, object], token: str | None = None, **headers: str) -> TestResponse:
        """Send a form as it is in the page, and follow where that leads."""
        tokens = re.findall(r'name="token" value="([^"]+)"', self.page.text)
        data = {"token": token if token is not None else tokens[0] if tokens else ""} | fields
        self.page = self.client.post(
            path, data=data, base_url=self.base, headers=self.headers | headers, follow_redirects=True
        )
        return self.page

    def sign_in(self, person: Person, password: str = "") -> TestResponse:
        return self.post("/sign-in", {"user": person.address, "password": password or person.lab.password})

    def bring(self, key: bytes) -> TestResponse:
        return self.post("/key", {"file": (io.BytesIO(key), "key.asc")})


NewVisitor = Callable[..., Visitor]


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def visit(lab_sealed: Lab, warnings: list[str]) -> Iterator[NewVisitor]:
    """Browsers that look at the same page."""
    made = app.make(app.Desk(Place(*lab_sealed.imap, False, None, FOLDER), warnings.append))
    yield lambda *options: Visitor(made.test_client(), *options)
    assert not [one for one in warnings if lab_sealed.password in one]


def code(person: Person) -> str:
    """The code in the newest message, which only its owner can read."""
    stored = client.imap(person.lab, person.user)[-1]
    assert b"confirm" not in stored
    [found] = re.findall(rb"^  confirm ([0-9]{6})", person.read(stored), re.MULTILINE)
    return str(found.decode())


def words(page: TestResponse) -> str:
    return " ".join(re.sub("<[^>]*>", " ", page.text).split())


def test_from_signing_in_to_mail_that_is_encrypted(
    lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor, canary: str, warnings: list[str]
) -> None:
    person, visitor = new_person(lab_sealed), visit()
    person.gpg.make_key(person.address)
    assert "Off. New mail is stored as it comes" in words(visitor.sign_in(person))
    said = words(visitor.bring(person.gpg.gpg("--armor", "--export")))
    assert "Now see whether you can read the test message" in said
    assert "Off." in said
    assert "not the code" in words(visitor.post("/code", {"code": "000 000"}))
    assert "Your OpenPGP key is set up" in words(visitor.post("/code", {"code": code(person)}))
    assert "On. New mail is encrypted" in words(visitor.page)
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = [one for one in person.received() if b"\nSubject: hello\n" in one]
    assert_encrypted_to(person, stored, sent, canary)
    # Removing what was proven to work waits, but for who reads the code.
    assert "The password is wrong. Nothing was changed." in words(visitor.post("/off", {"password": "guess"}))
    assert "This key will be removed" in words(visitor.post("/off", {"password": lab_sealed.password}))
    assert "Your OpenPGP keys stay" in words(visitor.post("/keep", {}))
    visitor.post("/off", {"password": lab_sealed.password})
    assert "Your OpenPGP key was removed" in words(visitor.post("/code", {"code": code(person)}))
    assert "Off." in words(visitor.page)
    assert "Sign in" in words(visitor.post("/sign-out", {}))
    assert visitor.post("/off", {"password": lab_sealed.password}).status_code == 403
    assert warnings == []


def test_an_owner_chooses_on_the_page_what_the_administrator_lets_owners_choose(
    lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor
) -> None:
    person, visitor = new_person(lab_sealed), visit()
    person.set_up_key()
    settings = lab_sealed.directory / "etc/cryptomail/config.toml"
    before = settings.read_text()
    assert "What I want" not in words(visitor.sign_in(person))
    try:
        settings.write_text('owners_may = ["header_policy"]\n')
        assert "The subject of new mail stays readable" in words(visitor.get("/"))
        assert "Your choice counts from now on" in words(visitor.post("/choose", {"value": "baseline"}))
        assert "The subject of new mail is hidden" in words(visitor.page)
        assert "Confirm your choice with the code" in words(visitor.post("/choose", {"value": "default"}))
        assert "Your choice counts from now on" in words(visitor.post("/code", {"code": code(person)}))
        assert "The subject of new mail stays readable" in words(visitor.page)
    finally:
        settings.write_text(before)
    assert visitor.post("/choose", {"value": "shy\r\nSubject: off"}).status_code == 400


def test_a_secret_key_does_not_leave_the_page(lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor) -> None:
    person, visitor = new_person(lab_sealed), visit()
    person.gpg.make_key(person.address)
    armor = person.gpg.gpg("--armor", "--export-secret-keys")
    visitor.sign_in(person)
    assert "This is your SECRET key." in words(visitor.bring(armor))
    assert "This is your SECRET key." in words(visitor.bring(gzip.compress(armor)))
    assert "This is your SECRET key." in words(visitor.post("/key", {"text": armor.decode()}))
    assert files_with(lab_sealed, [armor.split(b"\n")[4]]) == []


def test_what_is_wrong_with_a_key_is_said_as_text(lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor) -> None:
    person, visitor = new_person(lab_sealed), visit()
    person.gpg.make_key("a&b@example.net")
    visitor.sign_in(person)
    page = visitor.bring(person.gpg.gpg("--export"))
    assert "Your OpenPGP keys were NOT changed" in words(page)
    assert "a&amp;b@example.net" in page.text
    assert "Choose a file with your public key" in words(visitor.bring(b""))
    assert "The code has six digits" in words(visitor.post("/code", {"code": "12\r\nSubject: off"}))
    assert visitor.post("/remove", {"fingerprint": "A" * 40 + "\r\nBcc: x", "password": "x"}).status_code == 400


def test_wrong_passwords_are_counted(lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor) -> None:
    person, other, visitor = new_person(lab_sealed), new_person(lab_sealed), visit()
    for _ in range(5):
        assert visitor.sign_in(person, "guess").status_code == 403
        assert "Mail address or password is wrong." in words(visitor.page)
    for password in ("guess", lab_sealed.password):
        assert visitor.sign_in(person, password).status_code == 429
    assert visitor.sign_in(other).status_code == 200
    assert other.address in words(visitor.page)


@pytest.mark.parametrize("user", ["a\0b", "a\r\nb LOGOUT", "", "a" * 1000])
def test_a_name_that_cannot_be_is_refused(user: str, visit: NewVisitor, lab_sealed: Lab) -> None:
    page = visit().post("/sign-in", {"user": user, "password": lab_sealed.password})
    assert page.status_code in (200, 403)
    assert ("Mail address or password is wrong." in words(page)) == (page.status_code == 403)


def test_no_other_site_and_no_other_browser_acts_for_an_owner(
    lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor
) -> None:
    person, visitor = new_person(lab_sealed), visit()
    before = visitor.client.get_cookie("cryptomail-form", "127.0.0.1")
    assert visitor.post("/sign-in", {"user": person.address, "password": lab_sealed.password}, "x").status_code == 400
    assert visitor.client.get_cookie("cryptomail", "127.0.0.1") is None
    visitor.sign_in(person)
    cookie = visitor.client.get_cookie("cryptomail", "127.0.0.1")
    assert cookie is not None
    assert before is None or cookie.value != before.value
    page = visitor.page
    for token, headers in (("", {}), ("x" * 43, {}), (None, {"Origin": "https://evil.example"})):
        visitor.page = page
        assert visitor.post("/test", {}, token, **headers).status_code == 403
    assert client.imap(lab_sealed, person.user) == []
    thief = visit()
    thief.client.set_cookie("cryptomail", cookie.value, domain="127.0.0.1")
    thief.headers["User-Agent"] = "another browser"
    assert person.address not in words(thief.get("/"))


def test_each_answer_forbids_what_a_page_does_not_need(visit: NewVisitor) -> None:
    visitor = visit("https://mail.example.org")
    for path, code in (("/", 200), ("/style.css", 200), ("/../etc/passwd", 404), ("/templates/home.html", 404)):
        answer = visitor.get(path)
        assert answer.status_code == code
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Cache-Control"] == "no-store"
    [cookie] = visitor.get("/").headers.getlist("Set-Cookie")
    assert cookie.startswith("__Host-cryptomail-form=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= {one.strip() for one in cookie.split(";")}
    assert not re.search(r"<script|style=|https?:|//", visitor.page.text)


def test_what_is_too_large_is_not_taken(lab_sealed: Lab, new_person: NewPerson, visit: NewVisitor) -> None:
    visitor = visit()
    visitor.sign_in(new_person(lab_sealed))
    assert visitor.post("/key", {"text": "x" * (app.MOST_OCTETS + 1)}).status_code == 413


def test_the_page_speaks_the_owner_s_language(visit: NewVisitor) -> None:
    for language, sign_in in (
        ("de-AT,de;q=0.9", "Anmelden"),
        ("pt-BR", "Entrar"),
        ("fr", "Se connecter"),
        ("es", "Iniciar sesión"),
    ):
        visitor = visit("http://127.0.0.1:8025", language)
        assert f"<h1>{sign_in}</h1>" in visitor.page.text
        assert f'<html lang="{language[:2]}">' in visitor.page.text


def test_a_server_that_does_not_answer_is_said_in_words_and_the_log_has_no_password(
    new_person: NewPerson, lab_sealed: Lab
) -> None:
    warnings: list[str] = []
    made = app.make(app.Desk(Place("127.0.0.1", 1, False, None, FOLDER), warnings.append))
    visitor = Visitor(made.test_client())
    page = visitor.sign_in(new_person(lab_sealed), "s3cret-word")
    assert page.status_code == 502
    assert "The mail server does not answer as it should." in words(page)
    assert len(warnings) == 1
    assert "s3cret-word" not in warnings[0]


def test_make_lab_starts_one(lab_sealed: Lab) -> None:
    assert lab_sealed.web
    address = lab_sealed.web.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/")
    assert b"<h1>Sign in</h1>" in connection.getresponse().read()
    connection.close()
