"""Looks for canaries in everything that a delivery can leave behind."""

import base64
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lab import debian13
from lab.client import Lab
from tests.faults.sender import Canaries

# Where programs put what they do not keep, beside the lab's own directory.
TEMPORARY = ("tmp", "var/tmp", "dev/shm", "run", "var/log")
_MOST_OCTETS = 1_000_000_000  # no message leaves so much; other tests make keyrings that are large, and all holes
_FOLDS = re.compile(rb"=?\r?\n")


def leaks(lab: Lab, canaries: Canaries, since: float) -> dict[str, set[int]]:
    """The places in which a canary lies in clear, and the numbers of the messages that it belongs to.

    `since` is the time at which the canaries were made up: files that are older cannot hold them.
    """
    found: dict[str, set[int]] = {}
    for place, data in _contents(lab, since):
        numbers = _seen(data, canaries.body)
        if not _may_show_the_subject(place, data, canaries):
            numbers |= _seen(data, canaries.subject)
        if numbers:
            found[place] = numbers
    return found


def in_clear(data: bytes, canary: str) -> bool:
    """Whether the canary is in there, as it is or in base64 or quoted-printable, on one line or on several."""
    unfolded = _FOLDS.sub(b"", data)
    return any(needle in form for form in (data, unfolded) for needle in _needles(canary))


def _needles(canary: str) -> list[bytes]:
    """The canary, and the part of its base64 that does not depend on its neighbours, at each of three alignments."""
    encoded = [base64.b64encode(b"\0" * shift + canary.encode())[4 if shift else 0 : -4] for shift in range(3)]
    return [canary.encode(), *encoded]


def _seen(data: bytes, canary: str) -> set[int]:
    if not in_clear(data, canary):
        return set()
    numbers = re.findall(re.escape(canary).encode() + rb"(\d{4})", data)
    return {int(number) for number in numbers} or {-1}  # -1: encoded, so whose it is cannot be told


def _may_show_the_subject(place: str, data: bytes, canaries: Canaries) -> bool:
    """It stays readable in the header section of an encrypted message, and in Dovecot's cache of header sections."""
    if Path(place).name == "dovecot.index.cache":
        return True
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    encrypted = b"multipart/encrypted" in head and b"X-Cryptomail: encrypted-at-delivery" in head
    return encrypted and not in_clear(body, canaries.subject)


def _contents(lab: Lab, since: float) -> Iterator[tuple[str, bytes]]:
    places = {lab.directory, *(lab.root / place for place in TEMPORARY)}
    for file in sorted(_changed_below(places, since)) + list(_deleted_but_open()):
        try:
            status = file.stat()
            if stat.S_ISREG(status.st_mode) and status.st_ctime >= since and status.st_size < _MOST_OCTETS:
                yield str(file), file.read_bytes()
        except OSError:  # gone meanwhile
            continue


def _changed_below(places: Iterable[Path], since: float) -> set[Path]:
    """The files that have changed; find(1) is fast. The Debian 13 tree has places of its own."""
    pruned = ["(", "-fstype", "proc", "-o", "-path", str(debian13.TREE.parent), ")", "-prune"]
    command = ["/usr/bin/find", *map(str, places), *pruned, "-o", "-type", "f", "-newerct", f"@{since}", "-print0"]
    # It complains, and ends with 1, where something is gone before it gets there.
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return {Path(os.fsdecode(name)) for name in found.split(b"\0") if name}


def _deleted_but_open() -> Iterator[Path]:
    """Files without a name that a process still holds: not ours, into one of which pytest redirects our output."""
    for descriptor in _descriptors():
        try:
            if descriptor.readlink().name.endswith(" (deleted)") and descriptor.parts[2] != str(os.getpid()):
                yield descriptor
        except OSError:
            continue


def _descriptors() -> Iterator[Path]:
    """All files that processes have open, but of those that end meanwhile."""
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                yield from list((process / "fd").iterdir())
