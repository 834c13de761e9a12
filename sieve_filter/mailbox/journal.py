"""Notes what is about to be replaced in a mailbox, so that a run that was killed can be put right.

A note is written before anything is saved, and taken away when all of it is done: there is one at most. It holds no
clear text, nor anything that could be compared with one. What a note means is decided by what the server has: see
`recovery.recover`. One that was cut off was never acted on.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import BusyError, PlaceError
from sieve_filter.system import places


class Entry(NamedTuple):
    """A message that is to be replaced, by its UID; the size in octets and the SHA-256 of what replaces it.

    Where that is clear text, there is neither: a guess could be compared with a digest.
    """

    uid: int
    size: int = 0
    digest: str = ""


class Note(NamedTuple):
    """What is to be replaced at once: the folder, as a command has it; its UIDVALIDITY; the least UID that what is
    saved now can get; and the messages.
    """

    folder: str
    uid_validity: int
    uid_next: int
    entries: tuple[Entry, ...]


class Journal:
    """The journal of one mailbox, as an open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self) -> Note | None:
        """What an earlier run has not brought to an end."""
        text = os.pread(self._descriptor, limits.JOURNAL_OCTETS, 0)
        if not text.endswith(b"\n"):
            return None
        try:
            folder, uid_validity, uid_next, entries = json.loads(text)
            return Note(str(folder), int(uid_validity), int(uid_next), tuple(Entry(*one) for one in entries))
        except (TypeError, ValueError):
            return None

    def write(self, note: Note) -> None:
        """Note what is about to be done; it is on the disk then."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(note).encode() + b"\n", 0)
        os.fsync(self._descriptor)

    def clear(self) -> None:
        """All that was noted is done."""
        os.ftruncate(self._descriptor, 0)


@contextmanager
def opened(path: str) -> Iterator[Journal]:
    """The journal in that file, made if need be; nobody else has it meanwhile.

    Raises BusyError where somebody has it, PlaceError where it cannot be used.
    """
    file = Path(path)
    try:
        with places.opened(str(file.parent), make=True, follow=True) as directory:
            descriptor = places.open_file(file.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, directory)
    except places.NotAFileError as error:
        raise PlaceError(f"{path} is not a file: take it away") from error
    except OSError as error:
        raise PlaceError(f"cannot use {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Journal(descriptor)
    except BlockingIOError:
        raise BusyError("another cryptomail mailbox is at work on this mailbox: wait for its end") from None
    finally:
        os.close(descriptor)
