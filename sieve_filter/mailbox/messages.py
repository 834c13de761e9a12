"""Reads the messages of a selected folder over IMAP, octet for octet, without making them seen (RFC 9051, RFC 3516)."""

import codecs
import re
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from sieve_filter.dovecot import imap
from sieve_filter.dovecot.imap import Response
from sieve_filter.errors import ImapRefusalError

# Octets of a message that are read at first, and of one piece later. Most messages are smaller than the first.
BEGINNING = 65_536
PIECE = 1_000_000

BODY, _BINARY = b"BODY.PEEK[]", b"BINARY.PEEK[]"
# A keyword of messages about to be removed, which their owner had marked as deleted before: see `replace`.
TAKEN = b"$CryptomailTaken"
_FETCHED = re.compile(rb"\* [0-9]+ FETCH \(")
_UID = re.compile(rb"[( ]UID ([0-9]+)")
_SIZE = re.compile(rb"[( ]RFC822\.SIZE ([0-9]+)")
_FLAGS = re.compile(rb"[( ]FLAGS \(([^)]*)\)")
_DATE = re.compile(rb'[( ]INTERNALDATE "([^"]*)"')
# What IMAP cannot give in a text, servers replace: Dovecot writes this for NUL.
_FOR_NUL = b"\x80"
_NUL_REPLACED = bytes.maketrans(b"\0", _FOR_NUL)


class Doubt:
    """Whether a text has what may stand for a NUL, and not for a part of a character in UTF-8."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_utf_8 = True
        self._found = False

    @property
    def there(self) -> bool:
        return self._found and not self._is_utf_8

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, of which each is looked at."""
        for piece in pieces:
            self.feed(piece)
            yield piece

    def feed(self, piece: bytes) -> None:
        """Look at the next octets."""
        self._found = self._found or _FOR_NUL in piece
        if self._is_utf_8 and not piece.isascii():
            try:
                self._decoder.decode(piece)
            except UnicodeDecodeError:
                self._is_utf_8 = False


class Stored(NamedTuple):
    """A message as a folder has it: its flags, without TAKEN and the session's own \\Recent; its date as IMAP writes
    it; how many octets it has; and the first of these.
    """

    uid: int
    flags: tuple[bytes, ...]
    date: bytes
    size: int
    beginning: bytes

    @property
    def whole(self) -> bool:
        """Whether that is all of it."""
        return len(self.beginning) < BEGINNING

    @property
    def draft(self) -> bool:
        return any(flag.lower() == b"\\draft" for flag in self.flags)

    @property
    def doubtful(self) -> bool:
        """Whether what is there of it may have had other octets: see `section`."""
        doubt = Doubt()
        doubt.feed(self.beginning)
        return doubt.there


def stored(session: imap.Session, uids: bytes = b"1:*") -> Iterator[Stored]:
    """Those messages of the selected folder, as they come: all are to be taken before the next command.

    `uids` is a sequence-set. Raises ServiceError.
    """
    if not uids:
        return
    command = b"UID FETCH %b (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[]<0.%d>)" % (uids, BEGINNING)
    for response in session.ask(command):
        if (message := _stored(response)) is not None:
            yield message


def sizes(session: imap.Session, uids: bytes) -> dict[int, int]:
    """How many octets each of those messages has; `uids` is a sequence-set. Raises ServiceError."""
    found: dict[int, int] = {}
    for response in session.ask(b"UID FETCH %b (UID RFC822.SIZE)" % uids):
        uid, size = _UID.search(response.text), _SIZE.search(response.text)
        if uid and size:
            found[int(uid[1])] = int(size[1])
    return found


def pieces(session: imap.Session, uid: int, section: bytes = BODY) -> Iterator[bytes]:
    """The message with that UID, in pieces; nothing where it has gone. Raises ServiceError."""
    position = 0
    while piece := _piece(session, uid, section, position):
        yield piece
        position += len(piece)
        if len(piece) < PIECE:
            break


def section(session: imap.Session, uid: int, binary: bool) -> bytes | None:
    """By which section `pieces` gives that message exactly; None where that cannot be known. Raises ServiceError.

    In IMAP's text there is no NUL, and Dovecot puts another octet in its place. BINARY of a whole message, which a
    server has where `binary` is true, gives NUL as it is, but decodes parts: it serves where nothing else differs.
    """
    text, doubt = sha256(), Doubt()
    for piece in doubt.passing(pieces(session, uid)):
        text.update(piece)
    if not doubt.there:
        return BODY
    octets, nul = sha256(), False
    if binary:
        try:
            for piece in pieces(session, uid, _BINARY):
                octets.update(piece.translate(_NUL_REPLACED))
                nul = nul or b"\0" in piece
        except ImapRefusalError:  # it cannot be decoded
            return None
    if octets.digest() != text.digest():
        return None
    return _BINARY if nul else BODY


def _piece(session: imap.Session, uid: int, section: bytes, position: int) -> bytes:
    found = b""
    for response in session.ask(b"UID FETCH %d (%b<%d.%d>)" % (uid, section, position, PIECE)):
        if response.literals and (match := _UID.search(response.text)) and int(match[1]) == uid:
            found = response.literals[0]
    return found


def uid_and_flags(response: Response) -> tuple[int, tuple[bytes, ...]] | None:
    """What a response says of a message's UID and flags, without \\Recent; None where it does not."""
    uid, flags = _UID.search(response.text), _FLAGS.search(response.text)
    if not (uid and flags and _FETCHED.match(response.text)):
        return None
    return int(uid[1]), tuple(flag for flag in flags[1].split() if flag.lower() != b"\\recent")


def _stored(response: Response) -> Stored | None:
    read, size, date = uid_and_flags(response), _SIZE.search(response.text), _DATE.search(response.text)
    if not (read and size and date):  # what is told of others' changes
        return None
    uid, flags = read
    return Stored(uid, without_taken(flags), date[1], int(size[1]), response.literals[0] if response.literals else b"")


def without_taken(flags: Iterable[bytes]) -> tuple[bytes, ...]:
    """These flags without TAKEN."""
    return tuple(flag for flag in flags if flag.lower() != TAKEN.lower())
