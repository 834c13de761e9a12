"""Accounts for every message that was sent: where it is now, and how many times."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sieve_filter.errors import CryptomailError
from tests.e2e.conftest import Person
from tests.faults.sender import Canaries, Sent


@dataclass(frozen=True, slots=True)
class Account:
    """How many messages were taken by the server and are in the mailbox, were refused, and so on."""

    delivered: int
    refused: int
    lost: int
    duplicated: int
    damaged: int


def account(person: Person, canaries: Canaries, messages: Sequence[Sent]) -> Account:
    """A message that was refused and is in the mailbox all the same is a duplicate: its sender will send it again.

    Damaged is what is stored but is none of the messages, byte for byte.
    """
    copies = Counter(_which(person, canaries, messages, stored) for stored in person.received())
    accepted = [sent.number for sent in messages if sent.accepted]
    refused = [sent.number for sent in messages if not sent.accepted]
    return Account(
        delivered=sum(copies[number] > 0 for number in accepted),
        refused=len(refused),
        lost=sum(copies[number] == 0 for number in accepted),
        duplicated=sum(max(0, copies[number] - 1) for number in accepted) + sum(copies[number] for number in refused),
        damaged=copies[None],
    )


def _which(person: Person, canaries: Canaries, messages: Sequence[Sent], stored: bytes) -> int | None:
    """The number of the message that `stored` is, decrypted if it is encrypted."""
    try:
        opened = person.opened(stored)
    except CryptomailError:
        return None
    found = re.search(canaries.body.encode() + rb"(\d{4})", stored if opened is None else opened)
    number = int(found[1]) if found else -1
    sent = next((sent.raw for sent in messages if sent.number == number), None)
    if sent is None:
        return None
    # Dovecot's own fields are on top; in a maildir, a message that is not encrypted has LF for CRLF.
    same = stored.endswith(sent.replace(b"\r\n", b"\n")) if opened is None else opened.endswith(sent)
    return number if same else None
