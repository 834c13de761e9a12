"""Writes ASCII armor (RFC 9580 section 6) around octets that come in pieces. Pure: bytes in, bytes out.

Libraries in C do it many times as fast as the standard library. Loading them takes 10 ms, so processes that last do it
once, and others for large data only. Where they are not installed, the same text comes out.
"""

import binascii
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, Protocol

from sieve_filter.openpgp import armor

_LINE_OCTETS = 57  # what a line of 76 characters stands for
# What is encoded at once: with its text, it fits into a processor's cache.
_PIECE_OCTETS = 1_000 * _LINE_OCTETS
# Data for which loading the libraries pays.
_LARGE_OCTETS = 1_000_000


class _Checksum(Protocol):
    def feed(self, octets: bytes, /) -> None: ...

    def finish(self) -> int: ...


class _Tools(NamedTuple):
    lines: Callable[[bytes], bytes]  # octets as base64, with a line feed behind each 76 characters and the last
    checksum: Callable[[], _Checksum]


def _lines(octets: bytes) -> bytes:
    starts = range(0, len(octets), _LINE_OCTETS)
    return b"".join([binascii.b2a_base64(octets[start : start + _LINE_OCTETS]) for start in starts])


_OWN = _Tools(_lines, armor.Checksum)
_tools = _OWN


def load() -> None:
    """Take the libraries in C from here on, where they are installed."""
    global _tools
    _tools = _in_c()


@lru_cache(maxsize=1)
def _in_c() -> _Tools:
    try:
        from anycrc import Model  # type: ignore[import-untyped]
        from pybase64 import encodebytes
    except ImportError:
        return _OWN
    model = Model("CRC24-OPENPGP")

    class InC:
        def __init__(self) -> None:
            self._value = armor.CRC24_INIT

        def feed(self, octets: bytes) -> None:
            self._value = model.calc(octets, self._value)

        def finish(self) -> int:
            return self._value

    return _Tools(encodebytes, InC)


class Writer:
    """Writes one armor of that `kind` with these line ends; `write` takes the text, in pieces.

    The checksum that RFC 9580 does without is what GnuPG 2.2 needs: where there is no padding either, it does not find
    the end.
    """

    def __init__(self, kind: bytes, eol: bytes, write: Callable[[bytes], object]) -> None:
        self._kind = kind
        self._eol = eol
        self._write = write
        self._held = b""  # less than a line
        self._fed = 0
        self._checksum = _tools.checksum()
        self._text(b"-----BEGIN PGP " + kind + b"-----\n\n")

    def feed(self, octets: bytes) -> None:
        """Write the lines that these octets fill."""
        self._fed += len(octets)
        if self._fed > _LARGE_OCTETS:
            load()
        self._checksum.feed(octets)
        octets = self._held + octets
        whole = len(octets) - len(octets) % _LINE_OCTETS
        for start in range(0, whole, _PIECE_OCTETS):
            self._text(_tools.lines(octets[start : min(start + _PIECE_OCTETS, whole)]))
        self._held = octets[whole:]

    def finish(self) -> None:
        """Write what is left, and the end."""
        last = self._held and _tools.lines(self._held)
        checksum = binascii.b2a_base64(self._checksum.finish().to_bytes(3))
        self._text(last + b"=" + checksum + b"-----END PGP " + self._kind + b"-----\n")

    def _text(self, text: bytes) -> None:
        self._write(text if self._eol == b"\n" else text.replace(b"\n", self._eol))


def armored(kind: bytes, octets: bytes) -> bytes:
    """One armored block with `octets`, and LF as line ends."""
    text: list[bytes] = []
    writer = Writer(kind, b"\n", text.append)
    writer.feed(octets)
    writer.finish()
    return b"".join(text)
