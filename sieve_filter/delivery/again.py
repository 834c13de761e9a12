"""Recognises a message that comes again because it could not be told whether its first delivery had stored it.

Dovecot may not have said so in time. The sender is then told to try again, and the owner would have the message twice.
So what was handed over is noted in memory: digests, and the boundary that was made for that ciphertext. When a message
with the same digest comes for the same recipient, the owner's mailboxes are searched for that very ciphertext.
Whatever is in doubt is delivered: a second copy is a nuisance, a lost message is not.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256

from sieve_filter import limits
from sieve_filter.deadline import Deadline
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.dovecot import imap
from sieve_filter.errors import ServiceError, UnknownUserError

_PLACE = "/dev/shm/cryptomail-again-%d"  # noqa: S108 - it must be the caller's own; and no digest gets on a disk
_SECONDS = 20  # to search the mailboxes
_DAY = 86_400
_DAYS = 6  # senders give up after five (RFC 5321 section 4.5.4.1)
# What each attempt puts on top, or may.
_TRACE = re.compile(
    rb"(?:(?:Return-Path|Delivered-To|X-Original-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*+)*+", re.IGNORECASE
)
_BOUNDARY = re.compile(rb'(?:boundary|cryptomail)="(_cryptomail_[0-9a-f]{32})"')
_NOTE = re.compile(r"(_cryptomail_[0-9a-f]{32}) ([0-9a-f]{64})")


class Attempt:
    """The delivery of one message to one recipient, whose mailboxes are those of `user`.

    `configuration` is the file of Dovecot's; where there is none, nothing is noted and nothing recognised.
    """

    def __init__(self, user: str, recipient: str, configuration: str, warn: Callable[[str], object]) -> None:
        self._user = user
        self._configuration = configuration
        self._warn = warn
        self._clear = sha256(f"{user}\0{recipient}\0".encode("utf-8", "surrogateescape"))
        self._body = sha256()
        self._boundary = b""

    def watching(self, incoming: Incoming) -> Incoming:
        """The same message, of which a digest is made while it is read: without what changes on the way."""
        raw = incoming.message.raw
        trace = _TRACE.match(raw)
        self._clear.update(memoryview(raw)[trace.end() if trace else 0 :])
        return incoming if incoming.whole else incoming._replace(rest=_passing(incoming.rest, self._clear.update))

    def handing_over(self, delivery: Delivery) -> Delivery:
        """The same ciphertext, of which a digest is made while it is read."""
        found = _BOUNDARY.search(delivery.header)
        self._boundary = found[1] if found else b""
        return delivery._replace(body=_passing(delivery.body, lambda piece: self._body.update(_without_ends(piece))))

    def note(self) -> None:
        """Note that what was handed over may have been stored, or not. Where that cannot be, there may be two."""
        directory = _PLACE % os.geteuid()
        if not self._configuration or not self._boundary:
            return
        with suppress(OSError):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)  # noqa: PTH102 - pathlib is slow to load
            if not _is_own(directory):
                return
            _tidy(directory)
            line = f"{self._boundary.decode()} {self._body.hexdigest()}\n"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            file = os.open(f"{directory}/{self._clear.hexdigest()}", flags, 0o600)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)

    def is_stored(self, answer_by: Deadline) -> bool:
        """Whether what was handed over in an earlier attempt is in one of the owner's mailboxes."""
        notes = self._notes()
        seconds = min(_SECONDS, int(answer_by.remaining()) // 2)
        if not notes or seconds < 1:
            return False
        from sieve_filter.dovecot import doveadm  # hardly any delivery needs it

        try:
            with doveadm.imap_session(self._user, seconds, self._configuration) as (responses, commands):
                session = imap.Session(responses, commands, limits.AGAIN_OCTETS)
                found = any(_holds(session, name, *note) for name in session.mailboxes() for note in notes)
        except (ServiceError, UnknownUserError) as error:
            self._warn(f"a message for {self._user!r} may be stored already, which cannot be looked up: {error}")
            return False
        if found:
            self._warn(f"a message for {self._user!r} that comes again is stored already: it is not delivered twice")
        return found

    def _notes(self) -> list[tuple[str, str]]:
        directory = _PLACE % os.geteuid()
        try:
            file = os.open(f"{directory}/{self._clear.hexdigest()}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:  # hardly ever is there one
            return []
        with os.fdopen(file, errors="replace") as note:
            if not self._configuration or not _is_own(directory):
                return []
            return _NOTE.findall(note.read(limits.AGAIN_NOTE_OCTETS))


def _holds(session: imap.Session, mailbox: bytes, boundary: str, digest: str) -> bool:
    session.run(b"EXAMINE " + mailbox)
    for uid in session.search(f'YOUNGER {_DAYS * _DAY} HEADER Content-Type "{boundary}"'.encode()):  # RFC 5032
        _, _, body = _without_ends(session.message(uid)).partition(b"\n\n")
        if sha256(body).hexdigest() == digest:
            return True
    return False


def _passing(pieces: Iterable[bytes], see: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        see(piece)
        yield piece


def _without_ends(octets: bytes) -> bytes:
    """The same however lines end."""
    return octets.translate(None, b"\r")


def _is_own(directory: str) -> bool:
    status = os.lstat(directory)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


def _tidy(directory: str) -> None:
    """Take away what is old, and what is too much."""
    with os.scandir(directory) as entries:
        newest = sorted(((entry.stat(follow_symlinks=False).st_mtime, entry.path) for entry in entries), reverse=True)
    for number, (moment, path) in enumerate(newest):
        if number >= limits.AGAIN_NOTES - 1 or moment < time.time() - _DAYS * _DAY:
            with suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - pathlib is slow to load
