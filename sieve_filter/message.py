"""Splits a message into header fields and body without changing a byte. Pure: bytes in, offsets and bytes out."""

import re
from collections.abc import Iterator
from typing import NamedTuple

# RFC 5322 section 2.2: a field name is printable US-ASCII without the colon; section 4.5 (obsolete syntax) allows
# white space before the colon. Anything else is not a field, and the header section ends there.
_FIELD_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")

# A line ends with LF or CRLF. Real mail also has CR CR LF, and bare CR from old Macintosh programs; a reader that
# knows LF only would take everything behind a bare CR for the rest of the field, body included.
LINE_END = re.compile(rb"\r{0,2}\n|\r")

# What mbox files put above the header section; some agents pass it on. It is no field, and it is not the body yet.
_MBOX_LINE = (b"From ", b">From ")


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


class Message(NamedTuple):
    """A message as it arrived.

    `raw` is every byte of it; `fields` the header fields in their order; `header_end` the offset at which the last
    field ends; `body_start` the offset of the body's first byte. Between the two is the empty line, if there is one.
    """

    raw: bytes
    fields: tuple[Field, ...]
    header_end: int
    body_start: int

    @property
    def body(self) -> bytes:
        return self.raw[self.body_start :]

    @property
    def separated(self) -> bool:
        """Whether an empty line stands between header section and body (RFC 5322 section 2.1)."""
        return self.body_start > self.header_end

    @property
    def settled(self) -> bool:
        """Whether all that follows `raw`, where this is the beginning of a message, belongs to the body.

        What looks like the body is perhaps half a field's name, or half a line end.
        """
        body = self.body
        return bool(body.lstrip(b"\r")) and (self.separated or LINE_END.search(body) is not None)

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

    The header section is the longest run of lines that are fields. An empty line ends it and belongs to neither part;
    a line that cannot be a field ends it too, and is the body's first line. No input is refused.
    """
    starts: list[tuple[bytes, int]] = []
    header_end = body_start = 0
    for start, content_end, end in _lines(raw):
        if start == content_end:
            body_start = end
            break
        if name := _FIELD_NAME.match(raw, start, content_end):
            starts.append((name[1].lower(), start))
        elif not (raw[start] in b" \t" and starts) and not (start == 0 and raw.startswith(_MBOX_LINE)):
            break
        header_end = body_start = end
    ends = [start for _, start in starts[1:]] + [header_end]
    fields = tuple(Field(name, start, end, raw[start:end]) for (name, start), end in zip(starts, ends, strict=False))
    return Message(raw, fields, header_end, body_start)


def _lines(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Each line of `raw` as (start, end of its content, end with its line end)."""
    start = 0
    while start < len(raw):
        ending = LINE_END.search(raw, start)
        content_end, end = ending.span() if ending else (len(raw), len(raw))
        yield start, content_end, end
        start = end
