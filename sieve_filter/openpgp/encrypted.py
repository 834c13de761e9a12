"""Recognises an OpenPGP encrypted message (RFC 9580) by walking its packets. Pure: bytes in, values out.

Nothing is decrypted. What is checked is everything that can be seen without a key: the order and the lengths of the
packets, and the fields inside them. All of it must add up to the last octet.
"""

from collections.abc import Generator
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.mail.randomness import Randomness
from sieve_filter.openpgp.armor import dearmor

ANONYMOUS = "0" * 16  # RFC 9580 section 5.1.8: the recipient's key ID is withheld

# Padding (section 5.14) is not among them: it is any octets at all, and programs put it inside the encrypted data.
_PKESK, _SKESK, _SED, _MARKER, _SEIPD, _OCB = 1, 3, 9, 10, 18, 20
_CONTAINERS = (_SED, _SEIPD, _OCB)
_TAGS = (*_CONTAINERS, _PKESK, _SKESK, _MARKER)
_CONTAINER_HEAD = 4  # octets of a container that say what it is; ciphertext is behind them

# RFC 9580 section 10.3.2.1 says which session key packets go with which container. "AEAD" is GnuPG's OCB packet of
# draft-ietf-openpgp-rfc4880bis-10 section 5.16, whose passphrase packet has version 5.
_KEY_VERSIONS = {
    "SED": {(_PKESK, 3), (_SKESK, 4)},
    "SEIPD v1": {(_PKESK, 3), (_SKESK, 4)},
    "AEAD v1": {(_PKESK, 3), (_SKESK, 4), (_SKESK, 5)},
    "SEIPD v2": {(_PKESK, 6), (_SKESK, 6)},
}

_BLOCK_8, _BLOCK_16 = frozenset({1, 2, 3, 4}), frozenset({7, 8, 9, 10, 11, 12, 13})  # RFC 9580 section 9.3
_CIPHERS = _BLOCK_8 | _BLOCK_16
_AEAD_NONCE = {1: 16, 2: 15, 3: 12}  # RFC 9580 section 9.6: EAX, OCB, GCM
_TAG = 16  # octets of an AEAD authentication tag, the same in all three
_KEY_SIZES = (16, 24, 32)

# RFC 9580 section 9.1, and draft-ietf-openpgp-pqc for 35 and 36: algorithms whose encrypted session key is a number of
# MPIs; and those where it is octets of a fixed count, then a count and the wrapped key.
_MPI_ALGORITHMS = {1: 1, 2: 1, 16: 2}  # RSA, RSA for encryption only, Elgamal
_ECDH = 18
_NATIVE_ALGORITHMS = {25: 32, 26: 56, 35: 32 + 1088, 36: 56 + 1568}  # X25519, X448, ML-KEM with each

_S2K_SIZES = {0: 2, 1: 10, 3: 11, 4: 20}  # RFC 9580 section 3.7.1, the type octet included
_SALTS = {0: (1, 0), 1: (1, 8), 3: (1, 8), 4: (0, 16)}  # where the salt in them begins behind that octet; its size
_FINGERPRINT_SIZES = {4: 20, 6: 32}


class EncryptedMessage(NamedTuple):
    """What an encrypted message shows without a key.

    `key_ids` has one entry for each public-key session key packet, in order: 16 hexadecimal digits, a longer
    fingerprint where the packet has version 6, or ANONYMOUS; `pkesk_versions` are their versions. `passphrase` says
    whether a passphrase opens it too. `container` is "SEIPD v1", "SEIPD v2", "AEAD v1" or "SED".
    """

    key_ids: tuple[str, ...]
    pkesk_versions: tuple[int, ...]
    passphrase: bool
    container: str


class _MalformedError(ValueError):
    """The octets are not what the packet must have here."""


def encrypted_payload(data: bytes, randomness: Randomness | None = None) -> EncryptedMessage | None:
    """What `data`, armored or binary, is encrypted to; None when any of it is not part of one encrypted message.

    `randomness`: as in `Walker`.
    """
    binary = dearmor(data) if data.lstrip().startswith(b"-----") else data
    return None if binary is None else encrypted_message(binary, randomness)


def encrypted_message(data: bytes, randomness: Randomness | None = None) -> EncryptedMessage | None:
    """What the binary packets `data` are encrypted to; None unless they are one encrypted message.

    That is (RFC 9580 section 10.3) at least one session key packet, of a version that fits what follows, then one
    encrypted data packet, which ends where `data` ends. Marker packets may be before it. `randomness`: as in
    `Walker`.
    """
    walker = Walker(randomness)
    walker.feed(data)
    return walker.finish()


# A step of the walk: how many octets it needs next; less than 0 where it only goes past them.
_Octets = Generator[int, bytes, bytes]


class Walker:
    """Does what `encrypted_message` does for data that comes in pieces, and holds hardly any of it.

    Where others wrote the data, `randomness` looks at every octet that has to be ciphertext, a key, or a salt. Once the
    walker is `malformed`, nothing that follows can mend it.
    """

    def __init__(self, randomness: Randomness | None = None) -> None:
        self._randomness = randomness
        self._walk = _read_message(randomness)
        self._held = b""
        self._wanted = next(self._walk)
        self._message: EncryptedMessage | None = None
        self.malformed = False

    def feed(self, piece: bytes) -> None:
        """Go on with the next octets."""
        data = self._held + piece if self._held else piece
        position = 0
        wanted = self._wanted
        try:
            while not self.malformed and position < len(data):
                _require(self._message is None)  # else something follows
                end = position + abs(wanted)
                if end > len(data):
                    break
                octets = data[position:end] if wanted > 0 else self._gone(data, position, end)
                position = end
                wanted = self._walk.send(octets)
                while wanted == 0:
                    wanted = self._walk.send(b"")
        except StopIteration as finished:
            self._message = finished.value
            self.malformed = position < len(data)
        except _MalformedError:
            self.malformed = True
        if wanted < 0:  # the rest of this piece is gone past already
            self._gone(data, position, len(data))
            wanted += max(0, len(data) - position)
            position = len(data)
        self._held = data[position:]
        self._wanted = wanted

    def _gone(self, data: bytes, start: int, end: int) -> bytes:
        if self._randomness is not None:
            self._randomness.feed(data[start:end])
        return b""

    def finish(self) -> EncryptedMessage | None:
        """What the octets were; None unless they were one encrypted message."""
        if self.malformed or (self._randomness is not None and not self._randomness.finish()):
            return None
        return self._message


class _Reader:
    """Takes octets from the front of `data`; raises _MalformedError when there are not enough."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._position = 0
        self.random = b""  # what was taken of it that must look random

    @property
    def left(self) -> int:
        return len(self._data) - self._position

    def take(self, count: int) -> memoryview:
        if count > self.left:
            raise _MalformedError
        self._position += count
        return self._data[self._position - count : self._position]

    def take_random(self, count: int) -> memoryview:
        octets = self.take(count)
        self.random += octets
        return octets

    def number(self, octets: int = 1) -> int:
        return int.from_bytes(self.take(octets))


def _require(condition: bool) -> None:
    if not condition:
        raise _MalformedError


def _read_message(randomness: Randomness | None) -> Generator[int, bytes, EncryptedMessage]:
    """Read packets up to the encrypted data, which must be the last."""
    key_ids: list[str] = []
    versions: list[tuple[int, int]] = []
    for _ in range(limits.OPENPGP_PACKETS):
        tag, beginning, size = yield from _read_packet()
        body = _Reader(memoryview(beginning))
        if tag in _CONTAINERS:
            container = _container(tag, body, size)
            _require(versions != [] and _KEY_VERSIONS[container].issuperset(versions))
            pkesk_versions = tuple(version for kind, version in versions if kind == _PKESK)
            passphrase = len(pkesk_versions) < len(versions)
            return EncryptedMessage(tuple(key_ids), pkesk_versions, passphrase, container)
        if tag == _PKESK:
            version, key_id = _read_pkesk(body)
            versions.append((tag, version))
            key_ids.append(key_id)
        elif tag == _SKESK:
            versions.append((tag, _read_skesk(body)))
        else:
            _require(tag == _MARKER and beginning == b"PGP")  # RFC 9580 section 5.8
        if randomness is not None:
            randomness.feed(body.random)
    raise _MalformedError


def _read_packet() -> Generator[int, bytes, tuple[int, bytes, int]]:
    """Read a packet (RFC 9580 section 4.2) as its type, its first octets, and how many it has.

    Session keys and markers are there as a whole: in one that is longer than the limit, octets are missing.
    """
    head = yield from _number(1)
    _require(head & 0x80 != 0)
    if head & 0x40:
        tag = head & 0x3F
        _require(tag in _TAGS)  # before its octets are waited for: a JPEG begins like a packet that nobody defined
        return tag, *(yield from _read_chunks(tag in _CONTAINERS))
    tag, length_type = head >> 2 & 0x0F, head & 0x03
    # Type 3 is a packet without a length (section 4.2.2): whatever is behind it, text included, would be its own.
    _require(length_type != 3 and tag in _TAGS)
    size = yield from _number(1 << length_type)
    return tag, (yield from _beginning(size, tag in _CONTAINERS)), size


def _read_chunks(divisible: bool) -> Generator[int, bytes, tuple[bytes, int]]:
    """Read a body with lengths of the new format (RFC 9580 section 4.2.1): its first octets, and the size of it all."""
    size, partial = yield from _read_length()
    _require(not partial or (divisible and size >= 512))  # section 4.2.1.4: only data packets are divided
    beginning = yield from _beginning(size, divisible)
    chunks = 0
    while partial:
        length, partial = yield from _read_length()
        yield -length
        size += length
        chunks += 1
        _require(chunks <= limits.OPENPGP_CHUNKS)
    return beginning, size


def _read_length() -> Generator[int, bytes, tuple[int, bool]]:
    """Read one length, and whether it is partial, so that another follows behind its octets."""
    first = (yield 1)[0]
    if first < 192:
        return first, False
    if first < 224:
        return (first - 192 << 8) + (yield 1)[0] + 192, False
    if first < 255:
        return 1 << (first & 0x1F), True
    return (yield from _number(4)), False


def _beginning(size: int, container: bool) -> _Octets:
    """Read `size` octets; out are only the head of a container, or as many as a session key packet may have."""
    most = _CONTAINER_HEAD if container else limits.OPENPGP_PACKET_OCTETS
    beginning = yield min(size, most)
    if size > most:
        yield most - size
    return beginning


def _number(octets: int) -> Generator[int, bytes, int]:
    return int.from_bytes((yield octets))


def _container(tag: int, body: _Reader, size: int) -> str:
    """The name of the encrypted data packet whose first octets are in `body` and which has `size` octets in all."""
    if tag == _SED:  # RFC 9580 section 5.7: a block of random octets, two of them again, the data
        _require(size > 8 + 2)
        return "SED"
    version = body.number()
    if tag == _SEIPD and version == 1:  # section 5.13.1: as above, and a packet of 22 octets with a hash
        _require(size > 1 + 8 + 2 + 22)
        return "SEIPD v1"
    cipher, aead, chunk_size = body.number(), body.number(), body.number()
    _require(cipher in _BLOCK_16 and aead in _AEAD_NONCE)
    if tag == _SEIPD:  # section 5.13.2: a salt of 32 octets, the data, two tags
        _require(version == 2 and chunk_size <= 16 and size > 4 + 32 + 2 * _TAG)
        return "SEIPD v2"
    _require(version == 1 and chunk_size <= 56 and size > 4 + _AEAD_NONCE[aead] + 2 * _TAG)
    return "AEAD v1"


def _read_pkesk(body: _Reader) -> tuple[int, str]:
    """Read a public-key encrypted session key (RFC 9580 section 5.1): its version, and whose key it is for."""
    version = body.number()
    _require(version in (3, 6))
    key_id = _read_key_id(body, 8) if version == 3 else _read_recipient(body)
    algorithm = body.number()
    if algorithm in _MPI_ALGORITHMS:
        for _ in range(_MPI_ALGORITHMS[algorithm]):
            _read_mpi(body)
    elif algorithm == _ECDH:
        _read_mpi(body)
        _read_wrapped_key(body)
    else:
        _require(algorithm in _NATIVE_ALGORITHMS)
        body.take_random(_NATIVE_ALGORITHMS[algorithm])
        _read_wrapped_key(body)
    _require(body.left == 0)
    return version, key_id


def _read_recipient(body: _Reader) -> str:
    """Read the fingerprint in a version 6 packet (RFC 9580 section 5.1.2); ANONYMOUS when it is left out."""
    size = body.number()
    if size == 0:
        return ANONYMOUS
    _require(_FINGERPRINT_SIZES.get(body.number()) == size - 1)
    return _read_key_id(body, size - 1)


def _read_key_id(body: _Reader, size: int) -> str:
    key_id = bytes(body.take(size)).hex().upper()
    if key_id != ANONYMOUS:
        body.random += bytes.fromhex(key_id)
    return key_id


def _read_mpi(body: _Reader) -> None:
    """Read a multiprecision integer (RFC 9580 section 3.2): a count of bits, and as many octets as they need."""
    bits = body.number(2)
    value = body.take_random((bits + 7) // 8)
    _require(bits > 0 and value[0] >> ((bits - 1) % 8 + 1) == 0)


def _read_wrapped_key(body: _Reader) -> None:
    """Read a count and a session key in the wrapping of RFC 3394 (RFC 9580 sections 5.1.5 and 5.1.6)."""
    size = body.number()
    _require(size >= 16 + 8)
    body.take_random(size)


def _read_skesk(body: _Reader) -> int:
    """Read a passphrase encrypted session key (RFC 9580 section 5.3, and version 5 as GnuPG has it): its version."""
    version = body.number()
    if version == 4:
        _require(body.number() in _CIPHERS)
        _read_s2k(body)
        _require(body.left == 0 or body.left - 1 in _KEY_SIZES)  # nothing, or a cipher and a key for it
        body.take_random(body.left)
        return version
    _require(version in (5, 6))
    counted = body.number() if version == 6 else 0
    before = body.left
    cipher, aead = body.number(), body.number()
    _require(cipher in _BLOCK_16 and aead in _AEAD_NONCE)
    s2k_counted = body.number() if version == 6 else 0
    s2k_size = _read_s2k(body)
    body.take_random(_AEAD_NONCE[aead])
    _require(version == 5 or (s2k_counted == s2k_size and counted == before - body.left))
    _require(body.left - _TAG in _KEY_SIZES)
    body.take_random(body.left)
    return version


def _read_s2k(body: _Reader) -> int:
    """Read a string-to-key specifier (RFC 9580 section 3.7.1): the number of its octets."""
    kind = body.number()
    _require(kind in _S2K_SIZES)
    before, salt = _SALTS[kind]
    body.take(before)
    body.take_random(salt)
    body.take(_S2K_SIZES[kind] - 1 - before - salt)
    return _S2K_SIZES[kind]
