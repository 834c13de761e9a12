"""What deciding needs of MIME: Content-Type, Content-Transfer-Encoding, multipart bodies. Pure: bytes in, values out.

Every function takes any bytes, never raises, and needs time proportional to its input.
"""

import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple

from sieve_filter import limits

WHITE_SPACE = b" \t\r\n"
_SPACES = re.compile(rb"[ \t\r\n]*+")
_TOKEN = re.compile(rb"[!#-'*+\-.0-9A-Z^-~]++")  # RFC 2045 section 5.1
# Unquoted values often hold what RFC 2045 wants quoted, such as the "=" and "/" of a boundary.
_LOOSE_VALUE = re.compile(rb"[!#-'*-:<-~]++")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)  # RFC 5322 section 3.2.4
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
# Compiled where they are used, because most messages have no need of them.
_COMMENT_TEXT = rb"(?s:(?:[^()\\]|\\.)*+)"
_PERCENT = rb"%([0-9A-Fa-f]{2})"
_BASE64 = rb"[A-Za-z0-9+/]*+={0,2}"
_STRAY_EQUALS = rb"=(?![0-9A-Fa-f]{2}|\r?\n|\Z)"
_CONTINUATION = rb"([^*]++)\*([0-9]{1,3})\*?|([^*]++)\*"  # RFC 2231 sections 3 and 4


class ContentType(NamedTuple):
    """A Content-Type field: `media_type` such as b"text/plain" and the parameters' names in lower case."""

    media_type: bytes
    parameters: Mapping[bytes, bytes] = {}  # nobody can write to it through a Mapping


class Multipart(NamedTuple):
    """A multipart body (RFC 2046 section 5.1.1) taken apart.

    `preamble` and `epilogue` are before the first delimiter line and after the closing one; `parts` are what the
    delimiter lines separate, header section and all; `closed` says whether there is a closing line. Without one the
    last part runs to the end of the body.
    """

    preamble: bytes
    parts: tuple[bytes, ...]
    epilogue: bytes
    closed: bool


class _UnreadableError(ValueError):
    """The field value does not follow the grammar."""


def content_type(value: bytes) -> ContentType | None:
    """The Content-Type field of that value (RFC 2045 section 5.1), or None when its bytes do not say clearly.

    White space, comments, quoted strings and RFC 2231 continuations are understood. Of a parameter that is given more
    than once, the first counts.
    """
    if len(value) > limits.CONTENT_TYPE_OCTETS:
        return None
    try:
        return _Tokens(value).content_type()
    except _UnreadableError:
        return None


def transfer_encoding(value: bytes) -> bytes | None:
    """The Content-Transfer-Encoding field of that value in lower case (RFC 2045 section 6.1); None when unclear."""
    if len(value) > limits.CONTENT_TYPE_OCTETS:
        return None
    try:
        tokens = _Tokens(value)
        encoding = tokens.token()
        return encoding.lower() if tokens.at_end() else None
    except _UnreadableError:
        return None


def is_version_1(value: bytes) -> bool:
    """Whether the MIME-Version field of that value says 1.0 (RFC 2045 section 4), which may have comments in it."""
    if len(value) > limits.CONTENT_TYPE_OCTETS:
        return False
    try:
        tokens = _Tokens(value)
        version = b""
        while not tokens.at_end():
            version += tokens.token()
        return version == b"1.0"
    except _UnreadableError:
        return False


def decode(body: bytes, encoding: bytes | None) -> bytes | None:
    """The octets that `body` stands for in that transfer encoding, or None when a byte of it stands for nothing."""
    match encoding:
        case b"7bit" | b"8bit" | b"binary":
            return body
        case b"base64":
            return decode_base64(body)
        case b"quoted-printable":
            return _decode_quoted_printable(body)
        case _:
            return None


def decode_base64(text: bytes) -> bytes | None:
    """The octets of base64 text (RFC 4648 section 4) between which only white space is, or None.

    RFC 2045 section 6.8 lets a reader skip other characters; here they could be text that somebody is able to read.
    """
    return decode_packed(text.translate(None, WHITE_SPACE))


def decode_packed(packed: bytes) -> bytes | None:
    """As decode_base64, of base64 without white space."""
    if len(packed) % 4 or not re.fullmatch(_BASE64, packed):
        return None
    return binascii.a2b_base64(packed)


def split_multipart(body: bytes, boundary: bytes) -> Multipart | None:
    """Take the body of a multipart apart, or None when it has more parts than the limit, or its boundary a line end.

    A delimiter line is the boundary between two hyphens and the end of the line, or two more hyphens in the closing
    one, and white space (RFC 2046 section 5.1.1). A body without any is all preamble.
    """
    if b"\n" in boundary:
        return None
    line = b"\n--" + boundary
    rest = re.compile(rb"(--)?[ \t]*+\r?(?=\n|\Z)")  # an expression with a boundary in it would be compiled each time
    text = b"\n" + body  # the delimiter may be the first line; and the line end before one belongs to it
    pieces: list[bytes] = []
    start = found = 0
    while (found := text.find(line, found)) >= 0:
        delimiter = rest.match(text, found + len(line))
        if delimiter is None:
            found += 1
            continue
        pieces.append(text[start:found].removesuffix(b"\r"))
        found, start = delimiter.end(), delimiter.end() + 1
        if delimiter[1]:
            return Multipart(pieces[0][1:], tuple(pieces[1:]), text[start:], closed=True)
        if len(pieces) > limits.MULTIPART_PARTS:
            return None
    pieces.append(text[start:])
    return Multipart(pieces[0][1:], tuple(pieces[1:]), b"", closed=False)


def _decode_quoted_printable(text: bytes) -> bytes | None:
    """Decoded as RFC 2045 section 6.7 says, or None when an equals sign is neither an octet nor a soft line break.

    binascii drops everything between "=" CR and the next LF, so such text would be readable and yet not decoded.
    """
    return None if re.search(_STRAY_EQUALS, text) else binascii.a2b_qp(text)


class _Tokens:
    """Reads a structured field value from left to right; raises _UnreadableError where the grammar is left."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._position = 0
        self._skip()

    def at_end(self) -> bool:
        return self._position == len(self._value)

    def content_type(self) -> ContentType:
        media_type = self.token() + self._expect(b"/") + self.token()
        given: dict[bytes, bytes] = {}
        while not self.at_end():
            self._expect(b";")
            if self.at_end():  # a semicolon after the last parameter is common
                break
            name = self.token().lower()
            self._expect(b"=")
            given.setdefault(name, self._parameter_value())
        return ContentType(media_type.lower(), _joined(given))

    def token(self) -> bytes:
        return self._take(_TOKEN)[0]

    def _parameter_value(self) -> bytes:
        if self._value.startswith(b'"', self._position):
            return _ESCAPED.sub(rb"\1", self._take(_QUOTED)[1])
        return self._take(_LOOSE_VALUE)[0]

    def _expect(self, character: bytes) -> bytes:
        if not self._value.startswith(character, self._position):
            raise _UnreadableError
        self._position += 1
        self._skip()
        return character

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        match = pattern.match(self._value, self._position)
        if match is None:
            raise _UnreadableError
        self._position = match.end()
        self._skip()
        return match

    def _skip(self) -> None:
        """Go past white space and comments, which nest (RFC 5322 section 3.2.2)."""
        depth = 0
        while True:
            space = re.compile(_COMMENT_TEXT) if depth else _SPACES
            match = space.match(self._value, self._position)
            self._position = match.end() if match else self._position
            character = self._value[self._position : self._position + 1]
            if character == b"(":
                depth += 1
            elif character == b")" and depth:
                depth -= 1
            elif depth:
                raise _UnreadableError  # the value ends inside a comment
            else:
                return
            self._position += 1


def _joined(given: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Parameters with the pieces of RFC 2231 put together and the percent encoding undone.

    A plain parameter counts before a continued one of the same name.
    """
    joined: dict[bytes, bytes] = {}
    pieces: dict[bytes, dict[int, bytes]] = {}
    for name, value in given.items():
        match = re.fullmatch(_CONTINUATION, name) if b"*" in name else None
        if match is None:
            joined[name] = value
            continue
        number = int(match[2] or 0)
        if name.endswith(b"*"):
            # The first extended piece starts with charset'language' (RFC 2231 section 4).
            encoded = value.split(b"'", 2)[-1] if number == 0 else value
            value = re.sub(_PERCENT, lambda octet: binascii.a2b_hex(octet[1]), encoded)
        pieces.setdefault(match[1] or match[3], {}).setdefault(number, value)
    for name, numbered in pieces.items():
        joined.setdefault(name, b"".join(numbered[number] for number in sorted(numbered)))
    return joined
