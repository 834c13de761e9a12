"""`cryptomail sieve-script --upload`: an owner sets up encryption over ManageSieve with TLS, and takes it away."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lab import managesieve
from lab.client import Lab
from sieve_filter import limits
from sieve_filter.sieve import owner_script
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    assert_unchanged,
    deliver,
    message,
)
from tests.faults import dovecot
from tests.support.samples import packet
from tests.support.server import run
from tests.support.tls import Authority, authority

__all__ = ["authority"]

_SETTINGS = {
    "2.3": "ssl = yes\nssl_cert = <{certificate}\nssl_key = <{key}\n",
    "2.4": "ssl = yes\nssl_server_cert_file = {certificate}\nssl_server_key_file = {key}\n",
}

PADDING = 21  # RFC 9580 section 5.14: to be ignored

MINE = """\
require ["fileinto", "mailbox"];
# Mine, with an umlaut: \u00e4
if header :contains "Subject" "hello" { fileinto :create "Greetings"; }
"""


@pytest.fixture(scope="module")
def lab_tls(lab_off: Lab, authority: Authority) -> Iterator[Lab]:
    """A Dovecot that encrypts nothing by itself, with a certificate for localhost."""
    certificate, key = authority.issue("localhost")
    for file in (certificate, key):
        (lab_off.directory / file.name).write_bytes(file.read_bytes())
    settings = _SETTINGS[dovecot.version(lab_off)[:3]].format(
        certificate=lab_off.inside(lab_off.directory / certificate.name),
        key=lab_off.inside(lab_off.directory / key.name),
    )
    with dovecot.configured(lab_off, settings):
        yield lab_off


Script = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def script(authority: Authority, tmp_path: Path) -> Script:
    """Runs `cryptomail sieve-script` as a person, who has their key in a file and knows the password."""

    def run_as(
        person: Person, *options: str, host: str = "localhost", password: str | None = None, trust: bool = True
    ) -> "subprocess.CompletedProcess[bytes]":
        secret = tmp_path / "password"
        secret.write_text(f"{person.lab.password if password is None else password}\n")
        named = ["--user", person.address, "--password-file", str(secret)]
        if "--remove" not in options:
            key = tmp_path / f"{person.user}.asc"
            key.write_bytes(person.gpg.gpg("--armor", "--export"))
            named += ["--key", str(key)]
        if trust:
            named += ["--ca-file", str(authority.file)]
        port = person.lab.managesieve[1]
        environment = {"PATH": "/usr/bin:/bin"}
        return run("sieve-script", "--upload", f"{host}:{port}", *named, *options, environment=environment)

    return run_as


def someone(new_person: NewPerson, lab: Lab) -> Person:
    """A person whose key is nowhere on the server."""
    person = new_person(lab)
    person.gpg.make_key(person.address)
    return person


def said(done: "subprocess.CompletedProcess[bytes]") -> str:
    error = done.stderr.decode()
    assert "Traceback" not in error
    assert error.count("\n") <= 1, error
    return done.stdout.decode() + error


def active(person: Person) -> str:
    path = person.lab.home(person.user) / ".dovecot.sieve"
    return (path.parent / path.readlink()).read_text().replace("\r\n", "\n")


def test_owner_sets_up_encryption_with_one_command_and_ends_it_with_one(
    lab_tls: Lab, new_person: NewPerson, script: Script, canary: str
) -> None:
    person = someone(new_person, lab_tls)
    done = script(person)
    assert done.returncode == 0, done.stderr
    assert "is active, and encrypts mail" in said(done)
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)
    assert_nowhere_in_clear(lab_tls, canary)

    assert "nothing to do" in said(script(person))
    removed = script(person, "--remove", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert "is deleted" in said(removed)
    assert not (lab_tls.home(person.user) / ".dovecot.sieve").is_symlink()
    assert "nothing to do" in said(script(person, "--remove", "--yes"))


def test_rules_that_are_there_stay_and_the_owner_is_asked_first(
    lab_tls: Lab, new_person: NewPerson, script: Script, canary: str
) -> None:
    person = someone(new_person, lab_tls)
    managesieve.upload(lab_tls, person.user, MINE.encode())
    shown = script(person, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert '+        "--keydata",' in said(shown).replace("+    ", "+        ")
    assert active(person) == MINE
    unasked = script(person)
    assert unasked.returncode == 64
    assert "Change the script 'main'" in said(unasked)
    assert active(person) == MINE

    assert script(person, "--yes", "--exclude-lists").returncode == 0
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert list(lab_tls.home(person.user).glob("Maildir/.Greetings/new/*"))
    to_list = message(canary, "List-Id: <list.example.com>")
    assert deliver(person, to_list) == 250
    assert_unchanged(next(one for one in person.received() if one != stored), to_list)

    assert script(person, "--yes").returncode == 0  # replaced: lists are encrypted too
    assert "List-Id" not in active(person)
    assert script(person, "--yes", "--remove").returncode == 0
    assert active(person) == MINE


def test_owner_at_a_terminal_is_asked_for_the_password_and_before_a_script_is_changed(
    lab_tls: Lab, new_person: NewPerson, authority: Authority, tmp_path: Path
) -> None:
    person = someone(new_person, lab_tls)
    managesieve.upload(lab_tls, person.user, MINE.encode())
    key = tmp_path / "key.asc"
    key.write_bytes(person.gpg.gpg("--armor", "--export"))
    server = f"localhost:{lab_tls.managesieve[1]}"
    arguments = ["--key", str(key), "--upload", server, "--user", person.address, "--ca-file", str(authority.file)]
    for answer, code in (("n", 64), ("y", 0)):
        dialogue = [("Password of", lab_tls.password), ("[y/N]", answer)]
        assert at_terminal(["sieve-script", *arguments], dialogue) == code
        assert ("# BEGIN cryptomail" in active(person)) == (answer == "y")


def at_terminal(arguments: list[str], dialogue: list[tuple[str, str]]) -> int:
    """Run the command at a terminal of its own, and answer each question. Returns its exit code."""
    master, terminal = os.openpty()
    command = ["setsid", "--ctty", "--wait", sys.executable, "-m", "sieve_filter", *arguments]
    with os.fdopen(master, "r+b", buffering=0) as screen:
        process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
        os.close(terminal)
        shown = b""
        for question, answer in dialogue:
            while question.encode() not in shown:
                shown += screen.read(1000)
            time.sleep(0.2)  # getpass throws away what was typed before it asked
            screen.write(f"{answer}\n".encode())
            shown = b""
        with suppress(OSError):  # a terminal that nobody has any more
            while shown := screen.read(1000):
                assert b"Traceback" not in shown
        return process.wait(60)


def test_mail_waits_when_the_key_in_the_script_is_damaged(
    lab_tls: Lab, new_person: NewPerson, script: Script, canary: str
) -> None:
    person = someone(new_person, lab_tls)
    assert script(person).returncode == 0
    managesieve.upload(lab_tls, person.user, active(person).replace('"mDME', '"AAAA').encode())
    assert deliver(person, message(canary)) == 451
    assert person.received() == []
    assert_nowhere_in_clear(lab_tls, canary)


def test_server_that_is_not_who_it_says_gets_no_password(lab_tls: Lab, new_person: NewPerson, script: Script) -> None:
    person = someone(new_person, lab_tls)
    for done in (script(person, host="127.0.0.1"), script(person, trust=False)):
        assert done.returncode == 69
        assert "cannot prove who it is" in said(done)
    assert not (lab_tls.home(person.user) / "sieve").exists()


def test_wrong_password_is_one_line(lab_tls: Lab, new_person: NewPerson, script: Script) -> None:
    done = script(someone(new_person, lab_tls), password="wrong")
    assert done.returncode == 77
    assert "does not let " in said(done)


def test_server_without_tls_gets_no_password(lab_off: Lab, new_person: NewPerson, script: Script) -> None:
    with dovecot.configured(lab_off, "ssl = no\n"):
        done = script(someone(new_person, lab_off))
    assert done.returncode == 69
    assert "has no TLS" in said(done)


def test_server_that_is_not_there_is_one_line(script: Script, lab_tls: Lab, new_person: NewPerson) -> None:
    done = script(someone(new_person, lab_tls), host="localhost.invalid")
    assert done.returncode == 69
    assert "localhost.invalid" in said(done)


def test_key_with_as_many_arguments_as_are_allowed_is_delivered_to(
    lab_tls: Lab, new_person: NewPerson, script: Script, canary: str
) -> None:
    """Pigeonhole, and the worker behind it, take them all."""
    person = someone(new_person, lab_tls)
    assert script(person).returncode == 0
    small = active(person)
    [key] = [line.strip().strip('",') for line in small.splitlines() if line.strip().startswith('"mDME')]
    most = limits.KEYDATA_ARGUMENTS * limits.SIEVE_ARGUMENT_OCTETS // 4 * 3
    certificate = base64.b64decode(key)
    large = owner_script.pieces(certificate + packet(PADDING, bytes(most - len(certificate) - 6)))
    assert len(large) == limits.KEYDATA_ARGUMENTS
    arguments = ", ".join(f'"{piece}"' for piece in large)
    managesieve.upload(lab_tls, person.user, small.replace(f'"{key}"', arguments).encode())
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)
