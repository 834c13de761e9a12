"""Armored blocks (RFC 9580 section 6) among other text, as people send keys. Pure.

That of an encrypted message is read to the letter instead, by `armor`: nothing else may be in it.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter.mail.mime import decode_base64

MESSAGE, PUBLIC_KEY = b"MESSAGE", b"PUBLIC KEY BLOCK"  # section 6.2

_LINE = re.compile(rb"^-----(BEGIN|END) PGP ([A-Z ]+)-----[ \t]*\r?$", re.MULTILINE)
_HEAD = re.compile(rb"\n(?:[A-Za-z][^\r\n:]*:[^\r\n]*\r?\n)*[ \t]*\r?\n")
_CHECKSUM = re.compile(rb"\n=[A-Za-z0-9+/]{4}\s*\Z")


class Line(NamedTuple):
    """A line on which an armor of that `kind` begins or ends: whether it `begins`, and its offsets."""

    begins: bool
    kind: bytes
    start: int
    end: int


def lines(text: bytes) -> Iterator[Line]:
    """The lines in `text` on which armor begins or ends. A quoted or described one is none."""
    for line in _LINE.finditer(text):
        yield Line(line[1] == b"BEGIN", line[2], line.start(), line.end())


class Block(NamedTuple):
    """An armored block: its `kind`, and the `text` between its first line and its last; None where that is missing."""

    kind: bytes
    text: bytes | None


def read(text: bytes) -> Iterator[Block]:
    """The armored blocks in `text`, in their order."""
    begun: Line | None = None
    for line in lines(text):
        if begun is not None:
            whole = not line.begins and line.kind == begun.kind
            yield Block(begun.kind, text[begun.end : line.start] if whole else None)
        begun = line if line.begins else None
    if begun is not None:
        yield Block(begun.kind, None)


def unpack(text: bytes) -> bytes | None:
    """The octets in the `text` of a block; None where it is damaged, or where there are none."""
    head = _HEAD.match(text)
    if head is None:
        return None
    # Section 6.1: a checksum that disagrees must not matter.
    checksum = _CHECKSUM.search(text, max(0, len(text) - 12))
    return decode_base64(text[head.end() - 1 : checksum.start() if checksum else None]) or None
