"""Tells owners that a key of theirs is about to expire: 30 days, 7 days and one day before, each time once.

A small file beside the keyring notes who was told of what, a line for each: user, fingerprint, time at which the key
expires (seconds since 1970), days before. A renewed key expires at another time, so its owner is told again. Where the
file is says `beside.path`.
"""

import os
from collections.abc import Container, Iterator
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import DeliveryError, PlaceError
from sieve_filter.keys import beside
from sieve_filter.keys.status import KeyState, OwnerState
from sieve_filter.notify import notices, post
from sieve_filter.notify.notices import KeyFacts
from sieve_filter.notify.post import Post

DAYS = (30, 7, 1)
FILE = "cryptomail-reminders"
_DAY = 86_400


class Reminded(NamedTuple):
    """What became of one reminder: `problem` says why it could not be sent, and is empty where it was."""

    user: str
    fingerprint: str
    days: int
    problem: str


def due(expires: int | None, now: int, told: Container[int]) -> int | None:
    """Of which of DAYS an owner is to be told now; None for none. `told` are those of which the owner was told.

    Who could not be told of 30 days in time is told of 7 alone.
    """
    if expires is None or expires <= now:
        return None
    passed = [days for days in DAYS if expires - now <= days * _DAY]
    return passed[-1] if passed and not any(days in told for days in DAYS if days <= passed[-1]) else None


def remind(one: tuple[OwnerState, str], where: Post, now: int) -> list[Reminded]:
    """Tell an owner whose keys are about to expire; the state comes with the owner's home directory.

    Runs as the user whose keyring it is.
    """
    return [*_remind(*one, where, now)]


def _remind(state: OwnerState, home: str, where: Post, now: int) -> Iterator[Reminded]:
    keys = [key for key in state.keys if key.used and due(key.expires, now, ()) is not None]
    if not keys:
        return
    file = beside.path(state.home, home, FILE)
    try:
        with beside.opened(file, os.O_APPEND) as record:
            told = _read(record)
            for key in keys:
                matter = f"{state.user} {key.fingerprint} {key.expires}"
                days = due(key.expires, now, told.get(matter, ()))
                if days is not None:
                    problem = _send(state.user, key, where, now)
                    if not problem:
                        _append(record, f"{matter} {days}\n")
                    yield Reminded(state.user, key.fingerprint, days, problem)
    except (OSError, PlaceError) as error:
        why = f"cannot use {file}: {error.strerror}" if isinstance(error, OSError) else str(error)
        yield from (Reminded(state.user, key.fingerprint, 0, why) for key in keys)


def _send(user: str, key: KeyState, where: Post, now: int) -> str:
    """Send one reminder. Returns why that could not be, else nothing."""
    facts = KeyFacts(key.fingerprint, tuple(f"<{one}>" for one in key.addresses), key.expires, smime=key.smime)
    words = notices.expiring(facts, ((key.expires or now) - now) // _DAY, where.folder)
    try:
        post.by_sendmail(where, user, notices.message(user, words, post.stamp()))
    except DeliveryError as error:
        return str(error)
    return ""


def _read(record: int) -> dict[str, set[int]]:
    """Of how many days before owners were told, for each user, fingerprint and time. What is damaged is passed over."""
    told: dict[str, set[int]] = {}
    for line in os.pread(record, limits.REMINDERS_OCTETS, 0).decode("utf-8", "replace").splitlines():
        matter, _, days = line.rpartition(" ")
        if days.isascii() and days.isdecimal():
            told.setdefault(matter, set()).add(int(days[:9]))
    return told


def _append(record: int, line: str) -> None:
    os.write(record, line.encode("utf-8", "surrogateescape"))
    os.fsync(record)
