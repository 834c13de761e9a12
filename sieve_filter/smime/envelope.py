"""Follows enveloped data (RFC 5652, RFC 5083) while it is written, and composes the message around it. Pure.

This is what stands between an engine and the store: nothing but ciphertext for whom it was meant gets through. So it is
far stricter than `cms`, which tells what strangers send: it knows what `openssl cms` writes, and nothing else.
"""

from collections.abc import Generator, Iterator
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.mail.protection import MARK, MARK_VALUE, Protected
from sieve_filter.smime import der
from sieve_filter.smime.cms import AUTH_ENVELOPED_DATA, ENVELOPED_DATA
from sieve_filter.smime.der import Value

CBC, GCM = "aes-256-cbc", "aes-256-gcm"

_CONTENT_TYPES = {ENVELOPED_DATA: CBC, AUTH_ENVELOPED_DATA: GCM}
_CIPHERS = {"2.16.840.1.101.3.4.1.42": CBC, "2.16.840.1.101.3.4.1.46": GCM}
_DATA = "1.2.840.113549.1.7.1"
_BLOCK_OCTETS = _TAG_OCTETS = 16
_NONCE_OCTETS = 12  # RFC 5084 section 3.2
# How keys are encrypted: RSA PKCS #1 v1.5 and OAEP; ECDH with SHA-1 (RFC 5753) and SHA-2.
_RSA = ("1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7")
_ECDH = ("1.3.133.16.840.63.0.2", "1.3.132.1.11.1", "1.3.132.1.11.2", "1.3.132.1.11.3")
_SMIME_TYPES = {CBC: b"enveloped-data", GCM: b"authEnveloped-data"}  # RFC 8551 section 3.2.2
_BEGIN_INDEFINITE = 0x80
_PIECES = 0xA0


class Enveloped(NamedTuple):
    """What was written: its cipher, for whom (by issuer and serial number, in DER), how many octets of ciphertext."""

    cipher: str
    recipients: tuple[bytes, ...]
    size: int


class _MalformedError(Exception):
    """The octets are not what `openssl cms` writes."""


class Walker:
    """Follows one message in pieces, from the first octet to the last; keeps its head in memory, no more."""

    def __init__(self) -> None:
        self.malformed = False
        self._held = bytearray()
        self._wanted = 0
        self._result: Enveloped | None = None
        self._steps = self._walk()
        self._advance(None)

    def feed(self, octets: bytes) -> None:
        """Look at more of it. From the moment at which it is `malformed`, nothing more is looked at."""
        if self.malformed or not octets:
            return
        self._held += octets
        position = 0
        while not self.malformed and self._result is None and len(self._held) - position >= self._wanted:
            taken = bytes(self._held[position : position + self._wanted])
            position += self._wanted
            self._advance(taken)
        del self._held[:position]
        if self._result is not None and self._held:  # something follows
            self.malformed = True

    def finish(self) -> Enveloped | None:
        """What it is, once all was fed; None where it is malformed, or not whole."""
        return None if self.malformed else self._result

    def _advance(self, taken: bytes | None) -> None:
        try:
            self._wanted = self._steps.send(taken) if taken is not None else next(self._steps)
        except StopIteration as end:
            self._result = end.value
        except (_MalformedError, ValueError):
            self.malformed = True

    def _walk(self) -> Generator[int, bytes, Enveloped]:
        """Read it step by step: yields how many octets it wants, and is sent these."""
        yield from _begin(der.SEQUENCE)
        kind = _CONTENT_TYPES.get(der.dotted((yield from _whole(der.OID)).content), "")
        _require(bool(kind))
        yield from _begin(_PIECES)
        yield from _begin(der.SEQUENCE)
        _require(len((yield from _whole(der.INTEGER)).content) == 1)
        recipients = tuple(_recipient(one) for one in der.parts((yield from _whole(der.SET))))
        _require(bool(recipients))
        yield from _begin(der.SEQUENCE)
        _require(der.dotted((yield from _whole(der.OID)).content) == _DATA)
        algorithm = der.parts((yield from _whole(der.SEQUENCE)))
        cipher = _CIPHERS.get(der.dotted(der.expect(algorithm, der.OID).content), "")
        _require(cipher == kind and _is_vector(cipher, algorithm))
        yield from _begin(_PIECES)
        size = 0
        while (head := (yield 2)) != b"\0\0":
            _require(head[0] == der.OCTET_STRING)
            length = yield from _length(head)
            size += length
            while length:
                step = min(length, limits.ENVELOPE_PIECE_OCTETS)
                yield step
                length -= step
        _require(size > 0 and (cipher == GCM or size % _BLOCK_OCTETS == 0))
        yield from _end()  # of the encrypted content
        if cipher == GCM:
            _require(len((yield from _whole(der.OCTET_STRING)).content) == _TAG_OCTETS)
        for _ in range(3):
            yield from _end()
        return Enveloped(cipher, recipients, size)


def size(cipher: str, octets: int) -> int:
    """How many octets that many become when they are encrypted (for CBC: RFC 5652 section 6.3)."""
    return octets if cipher == GCM else octets + _BLOCK_OCTETS - octets % _BLOCK_OCTETS


def compose(protected: Protected, cipher: str, token: bytes) -> bytes:
    """The header section of an S/MIME message (RFC 8551 section 3.2) with `protected.outside` in it, the empty line
    behind it included. `token` is random, and tells this message from all others.
    """
    eol = protected.eol
    header = (
        MARK + b": " + MARK_VALUE,
        b"Content-Type: application/pkcs7-mime; smime-type=" + _SMIME_TYPES[cipher] + b";",
        b' name="smime.p7m"; cryptomail="' + token + b'"',
        b'Content-Disposition: attachment; filename="smime.p7m"',
        b"Content-Transfer-Encoding: base64",
        b"",
        b"",
    )
    return protected.outside + eol.join(header)


def _require(condition: bool) -> None:
    if not condition:
        raise _MalformedError


def _begin(identifier: int) -> Generator[int, bytes, None]:
    """A constructed value of indefinite length begins (X.690 section 8.1.3.6)."""
    _require((yield 2) == bytes([identifier, _BEGIN_INDEFINITE]))


def _end() -> Generator[int, bytes, None]:
    """Such a value ends."""
    _require((yield 2) == b"\0\0")


def _whole(identifier: int) -> Generator[int, bytes, Value]:
    """A value of definite length, all of it."""
    head = yield 2
    _require(head[0] == identifier)
    length = yield from _length(head)
    _require(length <= limits.ENVELOPE_HEAD_OCTETS)
    content = (yield length) if length else b""
    return Value(identifier, content, b"")


def _length(head: bytes) -> Generator[int, bytes, int]:
    """The definite length in the head of a value."""
    if head[1] < 0x80:
        return head[1]
    count = head[1] & 0x7F
    _require(1 <= count <= 4)
    return int.from_bytes((yield count))


def _is_vector(cipher: str, parameters: Iterator[Value]) -> bool:
    """Whether these are the parameters of the cipher: RFC 3565 section 4.1, RFC 5084 section 3.2."""
    if cipher == CBC:
        return len(der.expect(parameters, der.OCTET_STRING, last=True).content) == _BLOCK_OCTETS
    both = der.parts(der.expect(parameters, der.SEQUENCE, last=True))
    nonce = der.expect(both, der.OCTET_STRING).content
    return len(nonce) == _NONCE_OCTETS and der.expect(both, der.INTEGER, last=True).content == bytes([_TAG_OCTETS])


def _recipient(value: Value) -> bytes:
    """Issuer and serial number of a RecipientInfo's certificate (RFC 5652 section 6.2), in DER."""
    fields = der.parts(value)
    der.expect(fields, der.INTEGER)
    if value.identifier == der.SEQUENCE:  # key transport
        name = der.expect(fields, der.SEQUENCE)
        algorithm = der.expect(fields, der.SEQUENCE)
        _require(der.dotted(der.expect(der.parts(algorithm), der.OID).content) in _RSA)
        der.expect(fields, der.OCTET_STRING, last=True)
        return name.content
    _require(value.identifier == der.CONTEXT | 1)  # key agreement
    der.expect(fields, der.CONTEXT)
    algorithm = der.expect(fields, der.SEQUENCE)
    _require(der.dotted(der.expect(der.parts(algorithm), der.OID).content) in _ECDH)
    one = der.parts(der.only(der.expect(fields, der.SEQUENCE, last=True).content, der.SEQUENCE))
    name = der.expect(one, der.SEQUENCE)
    der.expect(one, der.OCTET_STRING, last=True)
    return name.content
