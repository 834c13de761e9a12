"""Real mail clients show what was delivered: text, attachment, and a Subject that only the owner may know."""

import contextlib
import json
import os
import pty
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import managesieve
from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person, assert_nowhere_in_clear, deliver
from tests.support.programs import require

HIDING_SUBJECTS = b"""
require ["vnd.dovecot.filter", "fileinto", "mailbox"];
if not filter "cryptomail" ["--require", "--header-policy", "baseline"] {
    fileinto :create "cryptomail-tempfail/x";
}
"""
TEXT = "The text: gr\u00fc\u00df dich"


def letter(subject: str, attachment: str) -> bytes:
    """A message with a text and an attachment."""
    lines = f"""\
From: sender@example.com
Subject: {subject}
Message-ID: <letter@example.com>
Date: Mon, 1 Jan 2024 00:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=inner

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

{TEXT}
--inner
Content-Type: text/plain; charset=utf-8
Content-Disposition: attachment; filename=note.txt

{attachment}
--inner--
"""
    return lines.replace("\n", "\r\n").encode()


def damaged(sent: bytes) -> bytes:
    """The same with lines in its header section that are no fields, and with a field that not all clients see."""
    before = b"From a@example.com Thu Jan  1 00:00:00 1970\r\n"
    strays = b"lost words\r\nLost Words: of somebody\r\n"
    return before + sent.replace(b"Subject: ", strays + b"Subject : ").replace(b"MIME-Version: 1.0\r\n", b"")


def notmuch(person: Person, directory: Path, *arguments: str) -> bytes:
    config = directory / "notmuch-config"
    if not config.exists():
        config.write_text(
            f"[database]\npath={copy_of_mail(person, directory)}\n[user]\nprimary_email={person.address}\n"
        )
        notmuch(person, directory, "new", "--quiet")
    environment = {
        **os.environ,
        "NOTMUCH_CONFIG": str(config),
        "GNUPGHOME": str(person.gpg.home),
        "HOME": str(directory),
    }
    return subprocess.run(["notmuch", *arguments], env=environment, check=True, capture_output=True).stdout


def notmuch_shows(person: Person, directory: Path) -> Any:
    """The one message, as notmuch's JSON describes it."""
    output = notmuch(person, directory, "show", "--format=json", "--decrypt=true", "--include-html", "*")
    [[[[shown, _replies]]]] = [json.loads(output)]
    return shown


def copy_of_mail(person: Person, directory: Path) -> Path:
    """The maildir in the hands of its owner, for a client that reads files."""
    maildir = directory / "mail"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    for number, stored in enumerate(person.received()):
        (maildir / "cur" / f"{number}:2,S").write_bytes(stored)
    return maildir


def run_in_terminal(command: list[str], environment: dict[str, str]) -> None:
    """Run a program that wants a terminal, and throw away what it draws."""
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 80))
    limited = ["timeout", "--foreground", "60", *command]
    with subprocess.Popen(limited, env=environment, stdin=its_end, stdout=its_end, start_new_session=True) as process:
        os.close(its_end)
        with contextlib.suppress(OSError):  # what Linux says at the end of a terminal
            while os.read(terminal, 4096):
                pass
        os.close(terminal)
    assert process.returncode == 0


@pytest.mark.parametrize("sent_as", [bytes, damaged])
def test_notmuch_shows_text_and_attachment(
    lab: Lab, new_person: NewPerson, canary: str, tmp_path: Path, sent_as: Callable[[bytes], bytes]
) -> None:
    require("notmuch")
    person = new_person(lab)
    person.set_up_key()
    assert deliver(person, sent_as(letter("hello", canary))) == 250
    shown = json.dumps(notmuch_shows(person, tmp_path), ensure_ascii=False)
    assert '"decrypted": {"status": "full"' in shown
    assert '"Subject": "hello"' in shown
    assert TEXT in shown
    assert '"filename": "note.txt"' in shown
    assert canary in shown
    assert_nowhere_in_clear(lab, canary)


@pytest.mark.parametrize("sent_as", [bytes, damaged])
def test_neomutt_shows_text_and_attachment(
    lab: Lab, new_person: NewPerson, canary: str, tmp_path: Path, sent_as: Callable[[bytes], bytes]
) -> None:
    require("neomutt")
    person = new_person(lab)
    person.set_up_key()
    assert deliver(person, sent_as(letter("hello", canary))) == 250
    text, attachment = tmp_path / "text", tmp_path / "attachment"
    maildir = copy_of_mail(person, tmp_path)
    settings = tmp_path / "neomuttrc"
    settings.write_text(
        f"set folder = {maildir}\nset pipe_decode\nunset wait_key\nset crypt_use_gpgme\nunset header_cache\n"
        f'push "<pipe-message>cat > {text}<enter><view-attachments><last-entry>'
        f'<pipe-entry>cat > {attachment}<enter><exit><exit>"\n'
    )
    environment = {"GNUPGHOME": str(person.gpg.home), "HOME": str(tmp_path), "TERM": "xterm", "LANG": "C.UTF-8"}
    run_in_terminal(["neomutt", "-n", "-F", str(settings), "-f", str(maildir)], {**os.environ, **environment})
    assert TEXT in text.read_text()
    assert attachment.read_text().strip() == canary


def test_notmuch_shows_a_subject_that_nobody_else_can_see(
    lab_off: Lab, new_person: NewPerson, canary: str, tmp_path: Path
) -> None:
    require("notmuch")
    person = new_person(lab_off)
    person.set_up_key()
    managesieve.upload(lab_off, person.user, HIDING_SUBJECTS)
    assert deliver(person, letter(f"Secret {canary}", "nothing")) == 250
    assert b"\nSubject: [...]\n" in person.received()[0]
    assert_nowhere_in_clear(lab_off, canary)
    assert notmuch_shows(person, tmp_path)["headers"]["Subject"] == f"Secret {canary}"
