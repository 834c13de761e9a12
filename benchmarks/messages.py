"""Makes the messages that are sent: with a body that does not compress, and, for `compression`, ones that do."""

import base64
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path

_HEAD = (
    b"Received: from mx.example.com (mx.example.com [192.0.2.1])\r\n\tby mail.example.org with ESMTPS id 1A2B3C\r\n"
    b"From: Sender <sender@example.com>\r\nTo: Owner <owner@example.org>\r\nSubject: A message\r\n"
    b"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%s@example.com>\r\nMIME-Version: 1.0\r\n"
)
_PLAIN = b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
_LICENSES = Path("/usr/share/common-licenses")  # English text that every Debian has


def write(path: Path, size: int) -> None:
    """Write a message of about `size` octets that does not compress; it may be larger than memory."""
    with path.open("wb") as file:
        file.write(_HEAD % os.urandom(8).hex().encode() + _PLAIN)
        while (left := size - file.tell()) > 0:
            file.write(_random_lines(min(left, 1_000_000)))


def incompressible(size: int) -> bytes:
    """A message of about `size` octets, most of them random."""
    head = _HEAD % os.urandom(8).hex().encode() + _PLAIN
    return head + _random_lines(max(size - len(head), 1))


def samples() -> Mapping[str, bytes]:
    """One message for each kind of content, by a name for people."""
    makers: Mapping[str, Callable[[], bytes]] = {
        "text, 10 KB": lambda: _PLAIN + _text(10_000),
        "HTML, 100 KB": lambda: b"Content-Type: text/html; charset=utf-8\r\n\r\n" + _html(100_000),
        "base64 attachment, 1 MB": lambda: (
            b"Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\n" + _random_lines(1_000_000)
        ),
    }
    return {name: _HEAD % os.urandom(8).hex().encode() + make() for name, make in makers.items()}


def _random_lines(size: int) -> bytes:
    encoded = base64.encodebytes(os.urandom(size * 57 // 78 + 1))  # lines of 76 octets hold 57
    return encoded.replace(b"\n", b"\r\n")[: size - 2] + b"\r\n"


def _text(size: int) -> bytes:
    text = b"".join(file.read_bytes() for file in sorted(_LICENSES.iterdir()) if not file.is_symlink())
    return b"\r\n".join(text[:size].splitlines()) + b"\r\n"


def _html(size: int) -> bytes:
    """A newsletter: rows of a table, each with the usual attributes, a link with an identifier, and a few words."""
    chance = random.Random(1)  # noqa: S311  # the same page at each run
    words = _text(200_000).decode("ascii", "replace").split()
    rows = ["<!DOCTYPE html>\r\n<html><body><table>\r\n"]
    while sum(map(len, rows[-1:])) and len(rows) * 330 < size:
        said = " ".join(chance.choices(words, k=12))
        rows.append(
            '<tr><td align="left" style="font-family:Arial,sans-serif;font-size:14px;color:#333333;padding:0 0 8px">'
            f'<a href="https://news.example.com/click?id={chance.getrandbits(128):032x}" target="_blank">{said}</a>'
            "</td></tr>\r\n"
        )
    return "".join([*rows, "</table></body></html>\r\n"]).encode()
