"""Writes base64 in lines, of octets that come in pieces. Pure.

pybase64, in C, does it many times as fast as the standard library. Loading it, and what `checksum` takes, is 10 ms: so
processes that last do it once, and others for large data only. Where they are not installed, the same text comes out.
"""

import binascii
from collections.abc import Callable

_LINE_OCTETS = 57  # what a line of 76 characters stands for
# What is encoded at once: with its text, it fits into a processor's cache.
_PIECE_OCTETS = 1_000 * _LINE_OCTETS
# Data for which loading the library pays.
LARGE_OCTETS = 1_000_000


def load() -> None:
    """Take the library in C from here on, where it is installed."""
    global _lines
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
    """Writes base64 with LF as line ends; `write` takes the text, in pieces."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._held = b""  # less than a line
        self._fed = 0

    def feed(self, octets: bytes) -> None:
        """Write the lines that these octets fill."""
        self._fed += len(octets)
        if self._fed > LARGE_OCTETS:
            load()
        octets = self._held + octets
        whole = len(octets) - len(octets) % _LINE_OCTETS
        for start in range(0, whole, _PIECE_OCTETS):
            self._write(_lines(octets[start : min(start + _PIECE_OCTETS, whole)]))
        self._held = octets[whole:]

    def finish(self) -> None:
        """Write what is left, and the end of its line."""
        if self._held:
            self._write(_lines(self._held))
