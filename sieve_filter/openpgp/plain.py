"""Reads plain certificates (RFC 9580 section 10.1): which subkey to encrypt to, if the signatures are good. Pure.

Nearly all are plain: of version 4, with algorithms and subpackets that every program knows, and nothing revoked. The
newest self-signatures count, as with GnuPG. None is verified here: whoever encrypts has to. Where GnuPG could see more
in a certificate than what is read here, it is not plain.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sieve_filter.openpgp.packets import (
    BINDING,
    CREATED,
    FLAGS,
    LIFETIME,
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SIGNATURE,
    TO_ENCRYPT,
    TRUST,
    USER_ID,
    MalformedError,
    Packet,
    SelfSignature,
    fingerprint,
    split,
    subpackets,
)
from sieve_filter.openpgp.user_id import address_in

# RFC 9580 section 9.1. Encryption is what matters here: keys of other algorithms only sign.
_RSA, _ELGAMAL, _DSA, _ECDH, _ECDSA, _EDDSA = 1, 16, 17, 18, 19, 22
_INTEGERS = {_RSA: 2, _ELGAMAL: 3, _DSA: 4, _ECDH: 1, _ECDSA: 1, _EDDSA: 1}
_SIGNATURE_INTEGERS = {_RSA: 1, _DSA: 2, _ECDSA: 2, _EDDSA: 2}
_MOST_BITS = 16_384
_ON_CURVES = (_ECDH, _ECDSA, _EDDSA)
_ENCRYPTING = (_RSA, _ELGAMAL, _ECDH)
_HASHES = (2, 8, 9, 10, 11)  # section 9.5: SHA-1 and SHA-2; others are new or broken

# Section 9.2, and how many bits GnuPG says that they have.
_CURVES = {
    bytes.fromhex("2b06010401da470f01"): 255,  # Ed25519
    bytes.fromhex("2b060104019755010501"): 255,  # Curve 25519
    bytes.fromhex("2a8648ce3d030107"): 256,  # NIST
    bytes.fromhex("2b81040022"): 384,
    bytes.fromhex("2b81040023"): 521,
}

# Section 5.2.1: signatures about a user ID, and the primary key.
_CERTIFICATIONS, _DIRECT = (0x10, 0x11, 0x12, 0x13), 0x1F
_REVOCATIONS = (0x20, 0x28, 0x30)

# Section 5.2.3.7: what subpackets a plain signature may have, those of them that may be critical, and those that may be
# where they are not signed.
_ISSUER, _ISSUER_FINGERPRINT, _EMBEDDED = 16, 33, 32
_CRITICAL = frozenset({CREATED, LIFETIME, FLAGS, _ISSUER, _ISSUER_FINGERPRINT, _EMBEDDED, 11, 21, 22, 24, 25, 26, 30})
_KNOWN = _CRITICAL | {20, 23, 28, 34}
_SAID = (CREATED, LIFETIME, FLAGS)
_UNSIGNED = frozenset({_ISSUER, _ISSUER_FINGERPRINT, _EMBEDDED})

# GnuPG notes behind a signature whether it has verified it (parse_trust of its g10/parse-packet.c), and believes that:
# not yet, or it is good.
_CACHED = (b"\x00", b"\x03")

# Far below what GnuPG takes.
_USER_ID_OCTETS = 1_000
_HASHED_OCTETS = 10_000


class PlainKey(NamedTuple):
    """A primary key or a subkey; times are in seconds since 1970, `expires` is None where it does not."""

    fingerprint: str
    algorithm: int
    bits: int
    created: int
    expires: int | None = None


class Plain(NamedTuple):
    """A plain certificate, as far as mail is encrypted to it.

    `subkey` is the newest that encrypts, `addresses` are those of its user IDs, lower case. Each of the `proofs` is a
    certificate of the primary key, one of its self-signatures, and that subkey: if all of them are good certificates,
    what is said here is true.
    """

    primary: PlainKey
    subkey: PlainKey
    addresses: frozenset[str]
    proofs: tuple[bytes, ...]


class _Component(NamedTuple):
    """A key or a user ID, and the signatures behind it."""

    packet: Packet
    signatures: list[Packet]


class _UnusualError(Exception):
    """The certificate is not plain."""


def read(certificate: bytes, now: int) -> Plain | None:
    """What the packets of one certificate say at that time, in seconds since 1970; None where it is not plain."""
    try:
        return _read(_components(split(certificate)), now)
    except (_UnusualError, MalformedError, LookupError):
        return None


def _components(packets: Sequence[Packet]) -> list[_Component]:
    """The primary key, user IDs and subkeys, in their order."""
    found: list[_Component] = []
    for packet in packets:
        last = found[-1].packet.tag if found else None
        if packet.tag == TRUST and packet.body[1:2] in _CACHED:
            continue
        if packet.tag == SIGNATURE and found:
            if not _is_whole(packet.body):
                raise _UnusualError
            found[-1].signatures.append(packet)
        elif (packet.tag == PUBLIC_KEY and last is None) or (
            (packet.tag == USER_ID and last in (PUBLIC_KEY, USER_ID))
            or (packet.tag == PUBLIC_SUBKEY and last in (USER_ID, PUBLIC_SUBKEY))
        ):
            found.append(_Component(packet, []))
        else:
            raise _UnusualError
    return found


def _read(components: Sequence[_Component], now: int) -> Plain:
    first, *others = components
    primary = _key(first.packet.body)
    user_ids = [one for one in others if one.packet.tag == USER_ID]
    bound = [(one.packet.raw, _newest(_own(one, primary, _CERTIFICATIONS, now))) for one in user_ids]
    if not bound or any(len(one.packet.body) > _USER_ID_OCTETS for one in user_ids):
        raise _UnusualError
    if direct := _own(first, primary, (_DIRECT,), now):
        bound.append((b"", _newest(direct)))
    # Which of them GnuPG goes by does not matter where all say the same.
    (flags, lifetime), *different = {(signature.flags, signature.lifetime) for _, signature in bound}
    if different or flags is None or (primary.algorithm in _ENCRYPTING and flags & TO_ENCRYPT):
        raise _UnusualError
    packet, subkey, binding = _encrypting(others[len(user_ids) :], primary, now)
    return Plain(
        primary._replace(expires=_end(primary.created, lifetime)),
        subkey._replace(expires=_end(subkey.created, binding.lifetime)),
        frozenset(address for one in user_ids if (address := address_in(one.packet.body)) is not None),
        tuple(first.packet.raw + user_id + one.raw + packet.raw + binding.raw for user_id, one in bound),
    )


def _encrypting(subkeys: Sequence[_Component], primary: PlainKey, now: int) -> tuple[Packet, PlainKey, SelfSignature]:
    """The newest subkey that may encrypt, and its newest binding signature."""
    found = [
        (key.created, one, key)
        for one in subkeys
        if (key := _key(one.packet.body)).algorithm in _ENCRYPTING and not _only_signs(one, primary, now)
    ]
    found.sort(key=lambda one: one[0])
    if not found or (len(found) > 1 and found[-2][0] == found[-1][0]):
        raise _UnusualError
    _, component, key = found[-1]
    binding = _newest(_own(component, primary, (BINDING,), now))
    if not primary.created <= key.created <= binding.created or not binding.flags or binding.flags & ~TO_ENCRYPT:
        raise _UnusualError
    return component.packet, key, binding


def _only_signs(subkey: _Component, primary: PlainKey, now: int) -> bool:
    """Whether GnuPG cannot find that the subkey encrypts, whichever of its signatures are good."""
    try:
        signatures = _own(subkey, primary, (BINDING,), now)
    except _UnusualError:
        return False
    return bool(signatures) and not any(one.flags is None or one.flags & TO_ENCRYPT for one in signatures)


def _key(body: bytes) -> PlainKey:
    """The key in a packet (section 5.5.2), written as GnuPG would write it."""
    algorithm = body[5]
    if body[0] != 4 or algorithm not in _INTEGERS:
        raise _UnusualError
    position, bits = 6, 0
    if algorithm in _ON_CURVES:
        curve = body[7 : 7 + body[6]]
        position, bits = 7 + len(curve), _CURVES.get(curve, 0)
    for _ in range(_INTEGERS[algorithm]):
        size = int.from_bytes(body[position : position + 2])
        if body[position + 2].bit_length() != (size - 1) % 8 + 1:
            raise _UnusualError
        bits = bits or size
        position += 2 + (size + 7) // 8
    if algorithm == _ECDH:  # how a session key is wrapped: three octets, of which the first is 1
        if body[position : position + 2] != b"\x03\x01":
            raise _UnusualError
        position += 4
    if position != len(body) or (algorithm in _ON_CURVES and curve not in _CURVES):
        raise _UnusualError
    return PlainKey(fingerprint(body), algorithm, bits, int.from_bytes(body[1:5]))


def _own(component: _Component, primary: PlainKey, kinds: Sequence[int], now: int) -> list[SelfSignature]:
    """The signatures of the primary key's own, which all must be of one of these kinds. Others' do not count."""
    found = []
    for packet in component.signatures:
        signature, issuers = _signature(packet)
        own = issuers == {primary.fingerprint[-16:]}
        if (own and signature.kind not in kinds) or signature.kind in _REVOCATIONS:
            raise _UnusualError
        if not own and (not issuers or primary.fingerprint[-16:] in issuers):
            raise _UnusualError
        if own and not primary.created <= signature.created <= now:
            raise _UnusualError
        found += [signature] if own else []
    return found


def _is_whole(signature: bytes) -> bool:
    """Whether the numbers at the end are where they must be: of one broken signature, GnuPG gives the whole key up."""
    position = 4
    for _ in ("hashed", "not hashed"):
        position += 2 + int.from_bytes(signature[position : position + 2])
    position += 2  # of the digest
    for _ in range(_SIGNATURE_INTEGERS.get(signature[2], 0)):
        bits = int.from_bytes(signature[position : position + 2])
        if bits > _MOST_BITS:
            return False
        position += 2 + (bits + 7) // 8
    return signature[0] == 4 and signature[2] in _SIGNATURE_INTEGERS and position == len(signature)


def _signature(packet: Packet) -> tuple[SelfSignature, set[str]]:
    """The signature in a packet (section 5.2.3), and the key IDs that it names as its issuer's."""
    body = packet.body
    hashed = int.from_bytes(body[4:6])
    unhashed = int.from_bytes(body[6 + hashed : 8 + hashed])
    if body[3] not in _HASHES or hashed > _HASHED_OCTETS:
        raise _UnusualError
    signed: dict[int, bytes] = {}
    issuers: set[str] = set()
    for octets, known in ((body[6 : 6 + hashed], _KNOWN), (body[8 + hashed : 8 + hashed + unhashed], _UNSIGNED)):
        for size, content in subpackets(octets):
            kind, value = content[0] & 0x7F, content[1:]
            critical = content[0] & 0x80
            if len(content) != size or kind not in (known & _CRITICAL if critical else known):
                raise _UnusualError
            if kind == _ISSUER:
                issuers.add(value.hex().upper())
            elif kind == _ISSUER_FINGERPRINT:
                issuers.add(value[-8:].hex().upper())
            elif kind in signed:
                raise _UnusualError
            elif kind in _SAID:
                signed[kind] = value
    flags = signed.get(FLAGS)
    created, lifetime = signed[CREATED], signed.get(LIFETIME, bytes(4))
    if len(created) != 4 or len(lifetime) != 4 or (flags is not None and len(flags) != 1):
        raise _UnusualError
    return SelfSignature(
        packet.raw, body[1], int.from_bytes(created), int.from_bytes(lifetime), None if flags is None else flags[0]
    ), issuers


def _newest(signatures: Sequence[SelfSignature]) -> SelfSignature:
    """The one that counts. Of two of the same second, GnuPG might choose another than whoever encrypts."""
    in_order = sorted(signatures, key=lambda one: one.created)
    if not in_order or (len(in_order) > 1 and in_order[-2].created == in_order[-1].created):
        raise _UnusualError
    return in_order[-1]


def _end(created: int, lifetime: int) -> int | None:
    """When a key expires; None where it does not."""
    if created + lifetime >= 2**32:
        raise _UnusualError
    return created + lifetime if lifetime else None
