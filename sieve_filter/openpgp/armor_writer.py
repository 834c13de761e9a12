"""Writes ASCII armor (RFC 9580 section 6) around octets that come in pieces. Pure: bytes in, bytes out.

What `base64_writer` says of libraries in C is true of `checksum` as well.
"""

import binascii
from collections.abc import Callable

from sieve_filter.mail import base64_writer
from sieve_filter.openpgp import checksum
from sieve_filter.openpgp.checksum import Checksum


def load() -> None:
    """Take the libraries in C from here on, where they are installed."""
    checksum.load()
    base64_writer.load()


class Writer:
    """Writes one armor of that `kind` with these line ends; `write` takes the text, in pieces.

    The checksum that RFC 9580 does without is what GnuPG 2.2 needs: where there is no padding either, it does not find
    the end.
    """

    def __init__(self, kind: bytes, eol: bytes, write: Callable[[bytes], object]) -> None:
        self._kind = kind
        self._eol = eol
        self._write = write
        self._fed = 0
        self._checksum = Checksum()
        self._lines = base64_writer.Writer(self._text)
        self._text(b"-----BEGIN PGP " + kind + b"-----\n\n")

    def feed(self, octets: bytes) -> None:
        """Write the lines that these octets fill."""
        self._fed += len(octets)
        if self._fed > base64_writer.LARGE_OCTETS:
            checksum.load()
        self._checksum.feed(octets)
        self._lines.feed(octets)

    def finish(self) -> None:
        """Write what is left, and the end."""
        self._lines.finish()
        checksum = binascii.b2a_base64(self._checksum.finish().to_bytes(3))
        self._text(b"=" + checksum + b"-----END PGP " + self._kind + b"-----\n")

    def _text(self, text: bytes) -> None:
        self._write(text if self._eol == b"\n" else text.replace(b"\n", self._eol))


def armored(kind: bytes, octets: bytes) -> bytes:
    """One armored block with `octets`, and LF as line ends."""
    text: list[bytes] = []
    writer = Writer(kind, b"\n", text.append)
    writer.feed(octets)
    writer.finish()
    return b"".join(text)
