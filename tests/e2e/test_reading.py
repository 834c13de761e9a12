"""Encryption changes nothing of what an IMAP client lists: Dovecot reads what it stores as it reads the original."""

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from lab import client, keys
from lab.client import Lab
from sieve_filter.mail.message import ENVELOPE, split
from tests.e2e.conftest import Person
from tests.support.corpus import CORPUS
from tests.support.messages import any_message

MBOX = b"From alice@example.com Thu Jan  1 00:00:00 1970\r\n"
HEAD = b"From: Alice <alice@example.com>\r\nSubject: hello\r\nDate: Mon, 1 Jan 2024 12:00:00 +0200\r\n"
MORE = b"To: Bob <bob@example.org>\r\nMessage-ID: <1@example.com>\r\nIn-Reply-To: <0@example.com>\r\n\r\nbody\r\n"
DAMAGED = {
    "an mbox line on top": MBOX + HEAD + MORE,
    "a quoted mbox line on top": b">" + MBOX + HEAD + MORE,
    "an mbox line in the middle": HEAD + MBOX + MORE,
    "a line without a colon": HEAD + b"lost words\r\n" + MORE,
    "a folded line without a colon": HEAD + b"lost words\r\n and more\r\n" + MORE,
    "a name with spaces": HEAD + b"Lost Words: of somebody\r\n" + MORE,
    "an 8-bit name": HEAD + b"Gr\xc3\xbc\xc3\x9fe: dich\r\n" + MORE,
    "a space before the colon": HEAD.replace(b"Subject:", b"Subject :") + MORE,
    "a broken line on top": b"lost words\r\n" + HEAD + MORE,
    "no empty line": HEAD + b"lost words\r\n",
    "a name too long": HEAD + b"X" * 2000 + b": y\r\n" + MORE,
    "other MIME versions": b"MIME-Version: RFC-XXXX\r\nMIME-Version: 2.0\r\n" + HEAD + MORE,
}
# For Dovecot a bare CR is a part of the line, and a field's name ends with a NUL.
_ODD = re.compile(rb"\r(?!\n)|\0")


@pytest.fixture(scope="module")
def people(lab_sealed: Lab) -> Iterator[tuple[Person, Person]]:
    """Somebody with a key, and somebody without."""
    with keys.owner() as one, keys.owner() as two:
        reader, other = Person(lab_sealed, one), Person(lab_sealed, two)
        reader.set_up_key()
        yield reader, other


def envelope(person: Person, number: int) -> object:
    """What Dovecot says of the message."""
    with imaplib.IMAP4(*person.lab.imap, timeout=client.SECONDS) as connection:
        connection.login(person.address, person.lab.password)
        connection.select("INBOX", readonly=True)
        return connection.fetch(str(number), "(ENVELOPE)")[1]


def check(people: tuple[Person, Person], sent: bytes) -> None:
    """Deliver to both; both see the same in the list, and one of them gets back what the other has."""
    reader, other = people
    before = set(reader.received()), set(other.received())
    sent = re.sub(rb"(?<!\r)\n", b"\r\n", sent)
    answers = client.lmtp(reader.lab, sent, [reader.address, other.address])
    assert [answer.code for answer in answers] == [250, 250]
    [stored] = set(reader.received()) - before[0]
    [plain] = set(other.received()) - before[1]
    number = len(before[0]) + 1
    if listed_alike(sent):
        assert envelope(reader, number) == envelope(other, number)
    if b"\nX-Cryptomail: encrypted-at-delivery\n" in stored:
        stored = reader.read(stored).replace(b"\r\n", b"\n")  # as a maildir has it
    assert below_trace(stored) == below_trace(plain)


def listed_alike(sent: bytes) -> bool:
    """Whether what Dovecot takes for header fields is not perhaps a text that nobody else may see."""
    message = split(sent)
    agreed = {field.name for field in message.fields if field.start < message.agreed_end}
    disputed = {field.name for field in message.fields if field.start >= message.agreed_end}
    return not _ODD.search(sent) and not (agreed & disputed & ENVELOPE)


def below_trace(stored: bytes) -> bytes:
    """What is below Dovecot's own fields, the last of which ends with the time."""
    return stored.partition(b"; ")[2].split(b"\n", 1)[1]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_header_section_is_listed_as_without_encryption(people: tuple[Person, Person], name: str) -> None:
    check(people, DAMAGED[name])


@pytest.mark.parametrize("file", [file for file in CORPUS if file.suffix == ".eml"], ids=lambda file: file.name)
def test_a_seed_of_the_fuzzers_is_listed_as_without_encryption(people: tuple[Person, Person], file: Path) -> None:
    check(people, file.read_bytes())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_message)
def test_any_message_is_listed_as_without_encryption(people: tuple[Person, Person], sent: bytes) -> None:
    check(people, sent)
