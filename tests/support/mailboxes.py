"""Mailboxes in a lab, as their owners' mail programs see them, and `cryptomail mailbox` run on them."""

import imaplib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lab import client
from lab.client import Lab
from sieve_filter.dovecot import imap
from sieve_filter.mailbox import messages as stored
from sieve_filter.mailbox import remote
from sieve_filter.mailbox.remote import Server
from tests.e2e.conftest import Person, message
from tests.support.encrypted import ENCRYPTED

# Mail that others' programs got wrong, and what they made of encryption: octets as a client saves them.
CORPUS = {
    file.name: file.read_bytes() for file in sorted((Path(__file__).parents[1] / "fuzz" / "corpus").glob("*.eml"))
}
SAMPLES = {name: octets for name, octets in (CORPUS | ENCRYPTED).items() if octets}  # Dovecot saves no empty message


# How a session in somebody's mailbox is begun.
Way = Callable[[Person], AbstractContextManager[imap.Session]]


class Message(NamedTuple):
    """A message as IMAP gives it: flags without \\Recent, the date as it is written."""

    uid: int
    flags: frozenset[str]
    date: str
    octets: bytes


def mailbox(person: Person, path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `cryptomail mailbox` on the server, as root."""
    command = [*_command(person.lab, path), *arguments, "--user", person.address]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def mailboxes(lab: Lab, path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*_command(lab, path), *arguments], capture_output=True, text=True, timeout=300)


def _command(lab: Lab, path: str) -> list[str]:
    return lab.command("env", f"PATH={path}", lab.inside(lab.cryptomail), "mailbox")


def succeed(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def folders(person: Person, path: str) -> dict[str, dict[str, int]]:
    """What an audit says of each folder that is not empty, without a name and without zeros."""
    done = mailbox(person, path, "audit", "--json")
    [user] = json.loads(done.stdout)["users"]
    assert user["user"] == person.address
    return {one.pop("name"): {key: value for key, value in one.items() if value} for one in user["folders"]}


@contextmanager
def logged_in(person: Person) -> Iterator[imaplib.IMAP4]:
    with imaplib.IMAP4(*person.lab.imap, timeout=client.SECONDS) as connection:
        connection.login(person.address, person.lab.password)
        yield connection


@contextmanager
def session(person: Person) -> Iterator[imap.Session]:
    """The program's own session in that mailbox."""
    server = Server(person.address, *person.lab.imap, tls=False)
    with remote.login(server, person.lab.password, None) as made:
        yield made


def save(
    person: Person, *messages: bytes, folder: str = "INBOX", flags: str = "", date: str = "01-Feb-2020 10:00:00 +0100"
) -> None:
    """Save messages as a mail program does, in one session. One may have NUL: it goes as a literal8 (RFC 3516)."""
    with logged_in(person) as connection:
        if folder != "INBOX":
            connection.create(f'"{folder}"')
        for one in messages:
            append(connection, one, folder, flags, date)


def append(connection: Any, message: bytes, folder: str, flags: str, date: str) -> None:
    tag = connection._new_tag()
    head = f'"{folder}" ({flags}) "{date}" ~{{{len(message)}}}'.encode()
    connection.send(tag + b" APPEND " + head + b"\r\n")
    assert connection.readline().startswith(b"+")
    connection.send(message + b"\r\n")
    while not (answer := connection.readline()).startswith(tag):
        assert answer
    assert b" OK " in answer, answer


def messages(person: Person, folder: str = "INBOX", way: Way | None = None) -> list[Message]:
    """All messages of a folder, by UID."""
    with (way or session)(person) as one:
        one.run(b"EXAMINE " + imap.mailbox(folder))
        found = list(stored.stored(one))
        return [
            Message(
                message.uid,
                frozenset(flag.decode() for flag in message.flags),
                message.date.decode(),
                b"".join(stored.pieces(one, message.uid)),
            )
            for message in found
        ]


def exactly(person: Person, folder: str = "INBOX", way: Way | None = None) -> dict[int, bytes]:
    """The octets of all messages of a folder, by UID, NUL included."""
    with (way or session)(person) as one:
        one.run(b"EXAMINE " + imap.mailbox(folder))
        found: dict[int, bytes] = {}
        for uid in [message.uid for message in stored.stored(one)]:
            section = stored.section(one, uid, True)
            found[uid] = b"".join(stored.pieces(one, uid, section or stored.BODY))
        return found


def numbered(canary: str, number: int) -> bytes:
    return message(f"{canary}-{number}", f"Message-ID: <{number}@example.com>")


def fill(person: Person, canary: str, count: int) -> None:
    """Messages of different flags and dates, some of them new."""
    with logged_in(person) as connection:
        for number in range(count):
            flags = ("\\Seen", "\\Seen \\Answered $Label1", "\\Flagged", "\\Seen \\Deleted", "")[number % 5]
            date = f"{number % 28 + 1:02d}-Mar-2019 10:{number % 60:02d}:00 +0500"
            append(connection, numbered(canary, number), "INBOX", flags, date)


def contents(
    person: Person, folder: str = "INBOX", way: Way | None = None
) -> Counter[tuple[bytes, frozenset[str], str]]:
    """What an owner has in a folder: octets before encryption, flags, and the moment of arrival."""
    octets = exactly(person, folder, way)
    return Counter((person.read(octets[one.uid]), one.flags, one.date) for one in messages(person, folder, way))


def running(person: Person, path: str) -> "subprocess.Popen[bytes]":
    lab = person.lab
    command = lab.command("env", f"PATH={path}", lab.inside(lab.cryptomail), "mailbox", "encrypt")
    return subprocess.Popen(
        [*command, "--user", person.address],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def wait_until_nobody_works(person: Person, path: str) -> None:
    """What a killed command has started ends by itself, soon."""
    deadline = time.monotonic() + 60
    while mailbox(person, path, "encrypt").returncode == os.EX_TEMPFAIL:
        assert time.monotonic() < deadline
        time.sleep(0.2)
