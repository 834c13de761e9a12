"""Writes ASCII armor (RFC 9580 section 6) around octets that come in pieces. Pure: bytes in, bytes out.

pybase64, in C, does it many times as fast as the standard library. Loading it, and what `checksum` takes, is 10 ms: so
processes that last do it once, and others for large data only. Where they are not installed, the same text comes out.
"""

import binascii
from collections.abc import Callable

from sieve_filter.openpgp import checksum
from sieve_filter.openpgp.checksum import Checksum

_LINE_OCTETS = 57  # what a line of 76 characters stands for
# What is encoded at once: with its text, it fits into a processor's cache.
_PIECE_OCTETS = 1_000 * _LINE_OCTETS
# Data for which loading the library pays.
_LARGE_OCTETS = 1_000_000


def load() -> None:
    """Take the libraries in C from here on, where they are installed."""
    global _lines
    checksum.load()
    try:
        from pybase64 import encodebytes
    except ImportError:
        return
    _lines = encodebytes


def _by_line(octets: bytes) -> bytes:
    """`octets` as base64, with a line feed behind each 76 characters and the last."""
    starts = range(0, len(octets), _LINE_OCTETS)
    return b"".join([binascii.b2a_base64(octets[start : start + _LINE_OCTETS]) for start in starts])


_lines: Callable[[bytes], bytes] = _by_line


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
        self._checksum = Checksum()
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
            self._text(_lines(octets[start : min(start + _PIECE_OCTETS, whole)]))
        self._held = octets[whole:]

    def finish(self) -> None:
        """Write what is left, and the end."""
        last = self._held and _lines(self._held)
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
