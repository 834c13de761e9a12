"""Undoes what makes octets look like something else: transfer encodings, character sets, markup, compression. Pure.

No header is asked whether an encoding was used, for headers are wrong, are missing, or are a part of what was copied.
Whatever can be undone is undone, in every order, as deep and as far as the limits allow.
"""

import binascii
import bz2
import lzma
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import unescape
from urllib.parse import unquote_to_bytes

from sieve_filter import limits

# ASCII text, whatever surrounds it. There are hardly any such runs in octets that are not text.
_TEXT = re.compile(rb"[\t\n\r -~]{16,}+")
_LEAST_OCTETS = 64  # the smallest secret key has some 70

_QUOTED_VALUES = re.compile(rb"=\"[^\"\n]{0,100}+\"")
_MARKS = re.compile(rb"<[^<>]*+>")
_QUOTED_PRINTABLE = re.compile(rb"=(?:[0-9A-Fa-f]{2}|[ \t]*+\r?\n)")
_PERCENT = re.compile(rb"%[0-9A-Fa-f]{2}")
_BACKSLASHES = re.compile(rb"\\++([nr]?)")
_ESCAPES = re.compile(rb"\\(?:u00([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_MEANING = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}
# Characters below 256 by their numbers, or a plus sign (RFC 2152).
_UTF_7 = re.compile(rb"\+(?:-|A[A-D][A-Za-z0-9+/])")
_RTF = b"{\\rtf"  # Rich Text Format 1.9.1
_RTF_PART = re.compile(
    rb"\{\\\*[^{}]{0,100}+\}"  # a group to pass over, such as a bookmark
    rb"|\\'(?P<hex>[0-9A-Fa-f]{2})|\\(?P<line>par|line)(?![a-z])[ ]?"
    rb"|\\u(?P<number>[0-9]{1,5}) ?\??|\\[a-z]{1,32}+-?[0-9]{0,10}+ ?|\\(?P<self>[\\{}])|\\.|[{}\r\n]",
    re.DOTALL,
)
_YENC = b"=ybegin "  # yEnc's draft 1.3
_YENC_ESCAPE = re.compile(rb"=(.)", re.DOTALL)
_LESS_42, _LESS_64 = (bytes((octet - less) % 256 for octet in range(256)) for less in (42, 64))
_UU_LINE = re.compile(rb"^(?:[>|] ?)*+(?:begin [0-7]{3,4} |M[ -`]{59})", re.MULTILINE)
_QUOTED_UU = re.compile(rb"((?:[>|] ?)*+)M[ -`]{40}")  # longer than the last line may be, whose length may be ">"
_HEXADECIMAL = re.compile(rb"(?:[0-9A-Fa-f]{2}[ \t\r\n:,]{0,4}+)++")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOT_BASE64 = bytes(set(range(256)) - set(_BASE64))
_FROM_URL_SAFE = bytes.maketrans(b"-_", b"+/")

# What compressed data begins with. A ZIP archive: PKWARE's APPNOTE.TXT, section 4.3.7. A packet of compressed data (RFC
# 9580 sections 4.2 and 5.6) with algorithm 1; with 2 and 3 there is one of the others in it. The first octet is matched
# by itself, because a search for it is fast.
_COMPRESSED = re.compile(
    rb"[\x1fxB\xfdP\xa0-\xa3\xc8](?="
    rb"(?P<gzip>(?<=\x1f)\x8b\x08)"
    rb"|(?P<zlib>(?<=x)[\x01\x5e\x9c\xda])"
    rb"|(?P<bzip2>(?<=B)Zh[1-9]1AY&SY)"
    rb"|(?P<xz>(?<=\xfd)7zXZ\x00)"
    rb"|(?P<zip>(?<=P)K\x03\x04.{4}\x08\x00.{16}(?P<name>..)(?P<extra>..))"
    rb"|(?P<openpgp>(?:(?<=\xa0).|(?<=\xa1)..|(?<=\xa2).{4}|(?<=\xa3)"
    rb"|(?<=\xc8)(?:[\x00-\xbf\xe0-\xfe]|[\xc0-\xdf].|\xff.{4}))\x01))",
    re.DOTALL,
)
_PIECE = 64  # octets that are lost at a place that is damaged, at most


def layers(data: bytes) -> Iterator[bytes]:
    """`data`, and all that it stands for once encodings are undone. Any octets may be given.

    What was in base64 comes in four ways, because it may begin anywhere: three are noise. So are others, now and then.
    """
    yield data
    seen = {hash(data)}
    left = limits.UNWRAPPED_OCTETS
    waiting = deque([(data, 0)])
    while waiting:
        one, depth = waiting.popleft()
        for inner in _undone(one, left):
            if len(inner) < _LEAST_OCTETS or hash(inner) in seen:
                continue
            seen.add(hash(inner))
            left -= len(inner)
            if left < 0:
                return
            yield inner
            if depth + 1 < limits.UNWRAPPED_DEPTH and (_wide(inner) or _YENC in inner or _COMPRESSED.search(inner)):
                waiting.append((inner, depth + 1))


def _undone(data: bytes, most: int) -> Iterator[bytes]:
    """What is there when one encoding is undone, each in its turn; of what is compressed at most so many octets."""
    if text := _text(data):
        yield from (undo(text) for undo in _UNDO_TEXT)
        yield from _base64(text)
    if b"\x00" in data:
        yield _wide(data)
    if _YENC in data:
        yield _without_yenc(data)
    for match in _COMPRESSED.finditer(data):
        yield _decompressed(match, data, most)


def _text(data: bytes) -> bytes:
    """The runs of text in `data`; empty where they are too short for a key."""
    text = b"\n".join(_TEXT.findall(data))
    return text if len(text) >= _LEAST_OCTETS else b""


def _wide(data: bytes) -> bytes:
    """The text in `data` that has more than one octet for a character, such as UTF-16's with or without a mark."""
    return _text(data.replace(b"\x00", b""))


def _without_marks(text: bytes) -> bytes:
    """The text of HTML or XML."""
    if b"<" not in text and b"&" not in text:
        return b""
    begin, *others = text.split(b"<!--")
    text = begin + b"".join(behind or one for one in others for one, _, behind in [one.partition(b"-->")])
    text = _MARKS.sub(b"", _QUOTED_VALUES.sub(b"", text))
    return unescape(text.decode("latin-1")).encode("latin-1", "replace") if b"&" in text else text


def _without_quoted_printable(text: bytes) -> bytes:
    return binascii.a2b_qp(text) if _QUOTED_PRINTABLE.search(text) else b""


def _without_percents(text: bytes) -> bytes:
    """As in a URL."""
    return unquote_to_bytes(text) if _PERCENT.search(text) else b""


def _without_escapes(text: bytes) -> bytes:
    """As in a string of JSON (RFC 8259 section 7): for what has backslashes of its own."""

    def meaning(escape: re.Match[bytes]) -> bytes:
        return binascii.a2b_hex(escape[1]) if escape[1] else _MEANING.get(escape[2], escape[2])

    return _ESCAPES.sub(meaning, text) if b"\\" in text else b""


def _without_backslashes(text: bytes) -> bytes:
    """As in a program's source, or in JSON in JSON: however many there are."""
    return _BACKSLASHES.sub(lambda one: b"\n" if one[1] else b"", text) if b"\\" in text else b""


def _without_utf_7(text: bytes) -> bytes:
    return text.decode("utf-7", "ignore").encode("latin-1", "replace") if _UTF_7.search(text) else b""


def _without_rtf(text: bytes) -> bytes:
    def meaning(part: re.Match[bytes]) -> bytes:
        if part["hex"]:
            return binascii.a2b_hex(part["hex"])
        if part["number"]:
            return bytes([int(part["number"]) & 255])
        return b"\n" if part["line"] else part["self"] or b""

    return _RTF_PART.sub(meaning, text) if _RTF in text else b""


def _without_yenc(data: bytes) -> bytes:
    octets = bytearray()
    for part in data.split(_YENC)[1:]:
        lines = part.partition(b"\n")[2].partition(b"\n=yend")[0]
        if lines.startswith(b"=ypart "):
            lines = lines.partition(b"\n")[2]
        escaped = _YENC_ESCAPE.sub(lambda one: one[1].translate(_LESS_64), lines.translate(None, b"\r\n"))
        octets += escaped.translate(_LESS_42)
    return bytes(octets)


def _without_uuencode(text: bytes) -> bytes:
    """Each line by itself, as POSIX defines them: what is between makes noise, and nothing is shifted.

    A line that is not full is in a quotation as those before it are.
    """
    if not _UU_LINE.search(text):
        return b""
    octets = bytearray()
    quotation = b""
    for line in text.split(b"\n"):
        if match := _QUOTED_UU.match(line):
            quotation = match[1]
        line = line.removeprefix(quotation)
        with suppress(binascii.Error):
            octets += binascii.a2b_uu(line[: 1 + ((line[0] - 32 & 63) + 2) // 3 * 4].rstrip(b"\r")) if line else b""
    return bytes(octets)


def _without_hexadecimal(text: bytes) -> bytes:
    runs = (run.translate(None, b" \t\r\n:,") for run in _HEXADECIMAL.findall(text))
    return b"".join(binascii.a2b_hex(run) for run in runs if len(run) >= 2 * _LEAST_OCTETS)


_UNDO_TEXT: tuple[Callable[[bytes], bytes], ...] = (
    _without_marks,
    _without_quoted_printable,
    _without_percents,
    _without_escapes,
    _without_backslashes,
    _without_utf_7,
    _without_rtf,
    _without_uuencode,
    _without_hexadecimal,
)


def _base64(text: bytes) -> Iterator[bytes]:
    """The octets of all base64 in `text` (RFC 4648 sections 4 and 5), without what is between."""
    alphabets = [text]
    if b"-" in text or b"_" in text:
        alphabets.append(text.translate(_FROM_URL_SAFE))
    for one in alphabets:
        packed = one.translate(None, _NOT_BASE64)
        for start in range(4):
            # The last group may be short; a single character in it is no octet.
            end = len(packed) - ((len(packed) - start) % 4 == 1)
            yield binascii.a2b_base64(packed[start:end] + b"==")


def _decompressed(match: re.Match[bytes], data: bytes, most: int) -> bytes:
    """What begins there, at most that many octets; as far as it goes, where it is damaged or no such thing at all."""
    start = match.start()
    decompress: zlib._Decompress | bz2.BZ2Decompressor | lzma.LZMADecompressor
    match match.lastgroup:
        case "gzip":
            decompress = zlib.decompressobj(31)
        case "zlib":
            decompress = zlib.decompressobj()
        case "bzip2":
            decompress = bz2.BZ2Decompressor()
        case "xz":
            decompress = lzma.LZMADecompressor(memlimit=limits.UNWRAPPED_OCTETS)
        case _:
            decompress = zlib.decompressobj(-15)
            start = match.end(match.lastgroup or 0)
            if match["zip"]:
                start += int.from_bytes(match["name"], "little") + int.from_bytes(match["extra"], "little")
    octets = bytearray()
    try:
        while start < len(data):
            piece = data[start : start + _PIECE]
            start += _PIECE
            while True:
                some = decompress.decompress(piece, _PIECE)
                octets += some
                if decompress.eof or len(octets) > most:
                    return bytes(octets[:most])
                if len(some) < _PIECE:  # then it has used up the piece
                    break
                piece = getattr(decompress, "unconsumed_tail", b"")  # the others keep it themselves
    except (zlib.error, OSError, lzma.LZMAError):
        pass
    return bytes(octets)
