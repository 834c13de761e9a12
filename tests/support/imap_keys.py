"""Owners' IMAP sessions, in which they save keys."""

import imaplib
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

from lab import client
from tests.e2e.conftest import (
    Person,
)

FOLDER = "OpenPGP"


@contextmanager
def session(person: Person) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4(*person.lab.imap, timeout=client.SECONDS) as connection:
        connection.login(person.address, person.lab.password)
        yield connection


def save(person: Person, saved: bytes, folder: str = FOLDER) -> None:
    """Save a message as a mail client does."""
    with session(person) as connection:
        connection.create(folder)
        code, answer = connection.append(folder, r"(\Seen)", "", saved)
        assert code == "OK", answer


def answers(person: Person, folder: str = FOLDER) -> list[EmailMessage]:
    parsed = [message_from_bytes(one, policy=policy.default) for one in client.imap(person.lab, person.user, folder)]
    return [one for one in parsed if isinstance(one, EmailMessage)]


def text(answer: EmailMessage) -> str:
    body = answer.get_body(("plain",))
    assert body is not None
    content: str = body.get_content()
    return " ".join(content.split())


def armored(person: Person) -> bytes:
    return person.gpg.gpg("--armor", "--export").replace(b"\n", b"\r\n")


def with_text(content: bytes, subject: str = "my key", *fields: str) -> bytes:
    head = ["From: me@example.org", f"Subject: {subject}", *fields, "", ""]
    return "\r\n".join(head).encode() + content + b"\r\n"


def with_attachment(content: bytes, media_type: str = "application/pgp-keys", name: str = "key.asc") -> bytes:
    one = EmailMessage(policy=policy.SMTP)
    one["From"] = "me@example.org"
    one["Subject"] = "my key"
    one.set_content("Here it is.\n")
    main, sub = media_type.split("/")
    one.add_attachment(content, main, sub, filename=name)
    return one.as_bytes()
