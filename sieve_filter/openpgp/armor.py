"""Takes the ASCII armor (RFC 9580 section 6) off an OpenPGP message. Pure: bytes in, bytes out."""

import binascii
import re

from sieve_filter import limits
from sieve_filter.mail.mime import WHITE_SPACE, decode_packed
from sieve_filter.mail.randomness import Letters
from sieve_filter.openpgp.checksum import Checksum

# RFC 9580 section 6.2. A key that is not among its five is text that an encrypted message has no need of.
_ARMOR_BEGIN = b"-----BEGIN PGP MESSAGE-----"
_ARMOR_HEAD = re.compile(
    rb"-----BEGIN PGP MESSAGE-----[ \t\r]*+\n"
    rb"(?:(?:Version|Comment|Hash|Charset|MessageID):[^\r\n]{0,%d}+[ \t\r]*+\n){0,%d}+"
    rb"[ \t\r]*+\n" % (limits.ARMOR_HEADER_OCTETS, limits.ARMOR_HEADERS)
)
_ARMOR_TAIL = b"-----END PGP MESSAGE-----"
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*+")
_ARMOR_CHECKSUM = rb"\n=([A-Za-z0-9+/]{4})\Z"  # compiled where it is used: in mail that is encrypted already


def dearmor(data: bytes) -> bytes | None:
    """The octets inside an armor (RFC 9580 section 6.2) that is a PGP MESSAGE and, but for white space, all of `data`.

    None for anything else: other text, a header line too many, characters that are not base64, words in the letters of
    base64, a wrong checksum. A missing checksum is fine (section 6.1).
    """
    start = content_start(data)
    return None if start is None else Content().finish(data[start:])


def content_start(text: bytes) -> int | None:
    """Where the content of an armor begins: with the end of the empty line below its header lines.

    None where `text`, which may be only the beginning of it, is no armor, or has less than that of it.
    """
    head = _ARMOR_HEAD.match(text, len(text) - len(text.lstrip()))
    return None if head is None else head.end() - 1


def header_text(text: bytes) -> bytes:
    """The header lines of the armor that `text` begins with, which are text that anybody may write; if it is one."""
    start = content_start(text)
    return b"" if start is None else text[:start].strip().removeprefix(_ARMOR_BEGIN).strip()


class Content:
    """Does what `dearmor` does for an armor whose content comes in pieces, each of which begins with a line end."""

    def __init__(self) -> None:
        self._left = b""  # base64 characters, less than the four that stand for three octets
        self._letters = Letters()
        self._checksum = Checksum()

    def feed(self, text: bytes) -> bytes:
        """The octets that lines of base64 add, behind which others follow.

        Raises ValueError where anything else is among them: the end of the armor, for one. It is as if they had not
        been there, then.
        """
        packed = self._left + text.translate(None, WHITE_SPACE)
        end = len(packed) - len(packed) % 4
        if b"=" in packed or not _BASE64.fullmatch(packed, end):
            raise ValueError("this is not base64 only")
        octets = binascii.a2b_base64(packed[:end], strict_mode=True)
        self._left = packed[end:]
        self._letters.feed(packed[:end])
        self._checksum.feed(octets)
        return octets

    def finish(self, text: bytes) -> bytes | None:
        """The octets that the last lines add; None where the armor does not end as it must, or where they do not."""
        end = text.rfind(b"\n" + _ARMOR_TAIL)
        if end < 0 or text[end + 1 + len(_ARMOR_TAIL) :].strip():
            return None
        body = text[:end].rstrip()
        checksum = re.compile(_ARMOR_CHECKSUM).search(body, max(0, len(body) - 6))
        if checksum is not None:
            body = body[: checksum.start()]
        packed = self._left + body.translate(None, WHITE_SPACE)
        octets = decode_packed(packed)
        self._letters.feed(packed)
        if octets is None or not self._letters.finish():
            return None
        if checksum is not None:
            self._checksum.feed(octets)
            if decode_packed(checksum[1]) != self._checksum.finish().to_bytes(3):
                return None
        return octets
