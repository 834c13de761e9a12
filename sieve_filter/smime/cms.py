"""Recognises S/MIME encryption by walking the Cryptographic Message Syntax (RFC 5652, RFC 5083). Pure.

BER and DER are understood (X.690): indefinite lengths, and content in pieces. Nothing is decrypted.
"""

from sieve_filter import limits
from sieve_filter.mail.randomness import Randomness
from sieve_filter.smime import der

SIGNED_DATA = "1.2.840.113549.1.7.2"
ENVELOPED_DATA = "1.2.840.113549.1.7.3"
COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9"
AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"

# Identifier octets (X.690 section 8.1.2): universal types, and context-specific ones, primitive and constructed.
_INTEGER, _BIT_STRING, _OCTET_STRING, _NULL, _OID = 0x02, 0x03, 0x04, 0x05, 0x06
_SEQUENCE, _SET = 0x30, 0x31
_CONTEXT_PRIMITIVE, _CONTEXT = 0x80, 0xA0
_CONSTRUCTED = 0x20

# All that there is in what is around the ciphertext: besides these, strings, times, and a few context-specific
# ones. Among others could be as many as a text has letters, each the identifier of a value without content.
_STRINGS = (0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A, 0x1C, 0x1E)
_IDENTIFIERS = frozenset(
    {0x01, _INTEGER, _BIT_STRING, _OCTET_STRING, _NULL, _OID, 0x0A, *_STRINGS, 0x17, 0x18, _SEQUENCE, _SET, 0x24}
    | {*range(_CONTEXT_PRIMITIVE, _CONTEXT_PRIMITIVE + 5), *range(_CONTEXT, _CONTEXT + 5)}
)

# RecipientInfo (RFC 5652 section 6.2) by its identifier: key transport, key agreement, key encryption key, password.
# They start with a version.
_RECIPIENTS = (_SEQUENCE, 0xA1, 0xA2, 0xA3)

_PIECE = 1 << 20  # octets of ciphertext that are looked at together


class _MalformedError(ValueError):
    """The octets are not what the structure must have here."""


def content_type(data: bytes) -> str | None:
    """The content type, such as ENVELOPED_DATA, that the ContentInfo `data` names (RFC 5652 section 3).

    None when `data` does not start with a ContentInfo. It is only what `data` claims to be: see `enveloped`.
    """
    reader = _Reader(data)
    try:
        reader.enter(_SEQUENCE)
        return _dotted(reader.take(_OID))
    except _MalformedError:
        return None


def enveloped(data: bytes) -> bool:
    """Whether `data` is, from its first octet to its last, enveloped-data or authenticated-enveloped-data.

    That is (RFC 5652 section 6.1, RFC 5083 section 2.1): a version, at least one recipient, an algorithm and some
    ciphertext; all lengths fit, and nothing follows. Ciphertext, keys and parameters look random; of anything else, as
    the names of those who issued the recipients' certificates, there is no more than FREE_OCTETS.
    """
    reader = _Reader(data)
    try:
        _read_content_info(reader)
    except _MalformedError:
        return False
    return reader.randomness.finish()


def _read_content_info(reader: "_Reader") -> None:
    reader.enter(_SEQUENCE)
    kind = _dotted(reader.take(_OID))
    _require(kind in (ENVELOPED_DATA, AUTH_ENVELOPED_DATA))
    reader.enter(_CONTEXT)
    reader.enter(_SEQUENCE)
    _require(len(reader.take(_INTEGER)) == 1)
    reader.read_optional(_CONTEXT)  # originatorInfo
    _read_recipients(reader)
    _read_encrypted_content(reader)
    reader.read_optional(_CONTEXT | 1)  # unprotectedAttrs or authAttrs
    if kind == AUTH_ENVELOPED_DATA:
        mac = reader.take(_OCTET_STRING)
        _require(len(mac) > 0)
        reader.randomness.feed(bytes(mac))
        reader.read_optional(_CONTEXT | 2)  # unauthAttrs
    reader.leave()
    reader.leave()
    reader.leave()
    _require(reader.at_end())


def _read_recipients(reader: "_Reader") -> None:
    """Read recipientInfos (RFC 5652 section 6.1): a set that is not empty."""
    reader.enter(_SET)
    _require(not reader.at_end())
    while not reader.at_end():
        identifier = reader.peek()
        _require(identifier in _RECIPIENTS)
        reader.enter(identifier)
        _require(reader.peek() == _INTEGER)
        while not reader.at_end():
            reader.read()
        reader.leave()
    reader.leave()


def _read_encrypted_content(reader: "_Reader") -> None:
    """Read encryptedContentInfo (RFC 5652 section 6.1), whose content may be left out; here it must not be.

    It is an octet string, whole or in pieces (X.690 section 8.7).
    """
    reader.enter(_SEQUENCE)
    _require(reader.peek() == _OID)
    reader.read()
    reader.enter(_SEQUENCE)  # contentEncryptionAlgorithm
    _require(reader.peek() == _OID)
    while not reader.at_end():
        reader.read()
    reader.leave()
    size = 0
    if reader.peek() == _CONTEXT_PRIMITIVE:
        ciphertext = reader.take(_CONTEXT_PRIMITIVE)
        size = len(ciphertext)
        for start in range(0, size, _PIECE):
            reader.randomness.feed(bytes(ciphertext[start : start + _PIECE]))
    else:
        reader.enter(_CONTEXT)
        while not reader.at_end():
            piece = reader.take(_OCTET_STRING)
            size += len(piece)
            reader.randomness.feed(bytes(piece))
        reader.leave()
    _require(size > 0)
    reader.leave()


def _require(condition: bool) -> None:
    if not condition:
        raise _MalformedError


def _dotted(octets: memoryview) -> str:
    """An object identifier (X.690 section 8.19) in dotted form."""
    _require(0 < len(octets) <= limits.CMS_OID_OCTETS and octets[-1] < 0x80)
    return der.dotted(bytes(octets))


class _Reader:
    """Goes through ASN.1 values (X.690) from left to right; raises _MalformedError where one is not as asked.

    `randomness` looks at the values that were read and have to be random. Of the others there may be FREE_OCTETS. One
    that comes again, such as the name of those who issued several recipients' certificates, counts once.
    """

    def __init__(self, data: bytes) -> None:
        self.randomness = Randomness()
        self._others: set[bytes] = set()
        self._free = 0
        self._data = memoryview(data)
        self._position = 0
        self._values = 0
        # The values entered and not left yet: the offset that none of their content may pass, and whether they end
        # there or, having an indefinite length, at an end-of-contents (X.690 section 8.1.5) before it.
        self._entered = [(len(data), True)]

    def at_end(self) -> bool:
        """Whether the content of the value entered last is at its end."""
        limit, definite = self._entered[-1]
        if definite:
            return self._position == limit
        return limit - self._position >= 2 and not any(self._data[self._position : self._position + 2])

    def peek(self) -> int:
        """The identifier octet of the next value."""
        _require(self._position < self._entered[-1][0])
        return self._data[self._position]

    def enter(self, identifier: int) -> None:
        """Go to the content of the next value, which must have that identifier."""
        _require(self.peek() == identifier)
        self._enter(self._read_head())

    def leave(self) -> None:
        """Go past the value entered last, whose content must be at its end."""
        _require(self.at_end())
        if not self._entered.pop()[1]:
            self._position += 2

    def take(self, identifier: int) -> memoryview:
        """Go past the next value, which must be primitive and have that identifier: its content."""
        _require(self.peek() == identifier)
        length = self._read_head()
        if length is None:
            raise _MalformedError
        self._position += length
        return self._data[self._position - length : self._position]

    def read(self) -> None:
        """Go past the next value, and look at all of it."""
        outside = len(self._entered)
        while True:
            identifier = self.peek()
            if identifier & _CONSTRUCTED:
                self._enter(self._read_head())
            else:
                self._look_at(identifier, self.take(identifier))
            while len(self._entered) > outside and self.at_end():
                self.leave()
            if len(self._entered) == outside:
                return

    def _look_at(self, identifier: int, content: memoryview) -> None:
        """Look at a primitive value.

        An octet string is a key, the hash of one, a salt, or a parameter of a cipher; so is what has a context-specific
        identifier. A long integer is a serial number, which is random as well.
        """
        octets = bytes(content)
        random = identifier in (_OCTET_STRING, _BIT_STRING) or identifier >= _CONTEXT_PRIMITIVE
        if random or (identifier == _INTEGER and len(octets) >= limits.CMS_LONG_INTEGER_OCTETS):
            self.randomness.feed(octets)
        elif octets not in self._others:
            _require(identifier != _OID or len(octets) <= limits.CMS_OID_OCTETS)
            self._others.add(octets)
            self._free += len(octets)
            _require(self._free <= limits.FREE_OCTETS)

    def read_optional(self, identifier: int) -> None:
        """Go past the next value if it has that identifier, and look at all of it."""
        if not self.at_end() and self.peek() == identifier:
            self.read()

    def _enter(self, length: int | None) -> None:
        _require(len(self._entered) < limits.CMS_DEPTH)
        limit = self._entered[-1][0]
        self._entered.append((limit, False) if length is None else (self._position + length, True))

    def _read_head(self) -> int | None:
        """Read identifier and length (X.690 sections 8.1.2, 8.1.3): the length, or None when it is indefinite."""
        identifier = self.peek()
        _require(identifier in _IDENTIFIERS)
        self._values += 1
        _require(self._values <= limits.CMS_VALUES)
        self._position += 1
        length = self.peek()
        self._position += 1
        if length == 0x80:
            _require(identifier & _CONSTRUCTED != 0)
            return None
        limit = self._entered[-1][0]
        if length > 0x80:
            octets = length & 0x7F
            _require(octets <= 8 and octets <= limit - self._position)
            length = int.from_bytes(self._data[self._position : self._position + octets])
            self._position += octets
        _require(length <= limit - self._position)
        return length
