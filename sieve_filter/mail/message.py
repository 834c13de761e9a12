"""Splits a message into header fields and body without changing a byte. Pure: bytes in, offsets and bytes out."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter import limits

# RFC 5322 section 2.2: a field name is printable US-ASCII without the colon; section 4.5 (obsolete syntax) allows
# white space before the colon.
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")

# A line ends with LF or CRLF. Real mail also has CR CR LF, and bare CR from old Macintosh programs; a reader that
# knows LF only would take everything behind a bare CR for the rest of the field, body included.
LINE_END = re.compile(rb"\r{0,2}\n|\r")

# What mbox files put above the header section; some agents pass it on, and write their own fields above it. All mail
# clients skip it (Python's email package not with the ">"), but only in its usual form: mutt wants weekday and time.
# Compiled where it is first used: hardly any message has one.
_MBOX_LINE = (
    rb">?From [^ \r\n]{1,320} +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} +[0-9]{1,2} "
    rb"[0-9: ]{4,9}[^\r\n]{0,20}(?=[\r\n]|\Z)"
)

# What an IMAP server lists (ENVELOPE in RFC 9051 section 7.5.2).
ENVELOPE = frozenset(b"date subject from sender reply-to to cc bcc in-reply-to message-id".split())


class Field(NamedTuple):
    """One header field: its name in lower case, and the bytes `raw[start:end]`, folded lines and line end included."""

    name: bytes
    start: int
    end: int
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, unfolded (RFC 5322 section 2.2.3), without white space at either end."""
        return LINE_END.sub(b"", self.raw[self.raw.index(b":") + 1 :]).strip(b" \t")

    @property
    def sound(self) -> bool:
        """Whether all mail clients see a field; where white space is before the colon, not all do."""
        return self.raw.startswith(b":", len(self.name))


class Message(NamedTuple):
    """A message as it arrived.

    `raw` is every byte of it; `fields` the header fields in their order; `strays` the offsets of what is in the
    header section and is no field; `header_end` the offset at which the header section ends; `body_start` that of the
    body's first byte. Between the two is the empty line, if there is one.

    Up to `agreed_end` all readers see the same header section; some take what is there for the body's first line.

    `ended` is False where the header section might go on behind `raw`.
    """

    raw: bytes
    fields: tuple[Field, ...]
    strays: tuple[int, ...]
    agreed_end: int
    header_end: int
    body_start: int
    ended: bool

    @property
    def body(self) -> bytes:
        return self.raw[self.body_start :]

    @property
    def separated(self) -> bool:
        """Whether an empty line is between header section and body (RFC 5322 section 2.1)."""
        return self.body_start > self.header_end

    @property
    def agreed(self) -> bool:
        """Whether all readers see the same header section; to Python's email package CR CR LF are two line ends."""
        return self.agreed_end == self.header_end and self.raw.find(b"\r\r\n", 0, self.header_end) < 0

    @property
    def settled(self) -> bool:
        """Whether all that follows `raw`, where this is the beginning of a message, belongs to the body.

        What looks like an empty line is perhaps half a line end.
        """
        behind = self.raw[self.body_start : self.body_start + 3]
        return self.ended and (len(behind) == 3 or behind.strip(b"\r") != b"")

    @property
    def eol(self) -> bytes:
        """The line end that lines added to this message take: LF if its first line has that, else CRLF."""
        first = LINE_END.search(self.raw)
        return b"\n" if first is not None and first[0] == b"\n" else b"\r\n"

    def named(self, name: bytes) -> list[Field]:
        """The fields of that name (lower case), in order."""
        return [field for field in self.fields if field.name == name]


def split(raw: bytes) -> Message:
    """Split `raw` (any bytes at all) into header section and body.

    An empty line ends the header section and belongs to neither part. A line that cannot be a field, a stray, is passed
    over, as Dovecot does, where a field follows that tells what the message is; else it is the body's first line. What
    is more than a header section may have (limits.HEADER_OCTETS and HEADER_LINES) is body too. No input is refused.
    """
    units: list[tuple[bytes, int]] = []  # the name of each field and where it begins; the name of a stray is empty
    header_end = body_start = 0
    all_agreed = True
    ended = False
    for number, (start, content_end, end) in enumerate(_lines(raw)):
        if start == content_end:
            body_start, ended = end, True
            break
        if end > limits.HEADER_OCTETS or (number >= limits.HEADER_LINES and start + 3 <= len(raw)):
            ended = True
            if units and raw[start] in b" \t":  # it goes on with the last field: that is too long
                header_end = body_start = units.pop()[1]
            break
        if name := _FIELD_NAME.match(raw, start, content_end):
            units.append((name[1].lower(), start))
            all_agreed &= name.end(1) + 1 == name.end()
        elif raw[start] not in b" \t" or not units:
            units.append((b"", start))
            all_agreed = False
        header_end = body_start = end
    if not all_agreed and (count := _in_header(raw, units)) < len(units):
        header_end = body_start = units[count][1]
        del units[count:]
    ends = [start for _, start in units[1:]] + [header_end]
    fields = tuple(
        Field(name, start, end, raw[start:end]) for (name, start), end in zip(units, ends, strict=False) if name
    )
    if all_agreed:
        return Message(raw, fields, (), header_end, header_end, body_start, ended)
    strays = tuple(start for name, start in units if not name)
    agreed_end = next((start for name, start in units if not _agreed(raw, name, start)), header_end)
    return Message(raw, fields, strays, agreed_end, header_end, body_start, ended)


def _in_header(raw: bytes, units: list[tuple[bytes, int]]) -> int:
    """How many of `units` belong to the header section: no stray behind which no field tells what the message is."""
    sure = max((number for number, (name, _) in enumerate(units, 1) if _tells(name)), default=0)
    strays = (number for number in range(sure, len(units)) if not units[number][0])
    return next((number for number in strays if not re.compile(_MBOX_LINE).match(raw, units[number][1])), len(units))


def _tells(name: bytes) -> bool:
    """Whether a field of that name has a say in how the message is listed or read."""
    return name in ENVELOPE or name == b"mime-version" or name.startswith(b"content-")


def _agreed(raw: bytes, name: bytes, start: int) -> bool:
    """Whether all readers go on past the field of that name (or the stray) which begins at `start`."""
    if name:
        return raw.startswith(b":", start + len(name))
    return raw.startswith(b"F", start) and re.compile(_MBOX_LINE).match(raw, start) is not None


def _lines(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Each line of `raw` as (start, end of its content, end with its line end)."""
    start = 0
    while start < len(raw):
        ending = LINE_END.search(raw, start)
        content_end, end = ending.span() if ending else (len(raw), len(raw))
        yield start, content_end, end
        start = end
