"""Reads certificates that GnuPG cannot: those of version 6, and with newer algorithms (RFC 9580, RFC 9980). Pure.

GnuPG reads no certificate of version 6 at all, and of version 4 no keys of the algorithms that came with RFC 9580.
Nothing is verified here: whoever encrypts has to. A subkey counts as revoked where anything claims to be its
revocation.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sieve_filter.openpgp.certificate import issued_by
from sieve_filter.openpgp.packets import (
    BINDING,
    CREATED,
    FLAGS,
    LIFETIME,
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SIGNATURE,
    TO_ENCRYPT,
    MalformedError,
    Packet,
    SelfSignature,
    certificates,
    fingerprint,
    key_id,
    split,
    subpackets,
)

# RFC 9580 section 9.1, RFC 9980 section 4.1. Of GnuPG's own, those that encrypt; of the newer ones, likewise.
_GNUPG = frozenset({1, 2, 3, 16, 17, 18, 19, 20, 22})
_GNUPG_ENCRYPTS = frozenset({1, 2, 16, 18})
_X25519, _X448, _ML_KEM_768, _ML_KEM_1024 = 25, 26, 35, 36
_ENCRYPTS = _GNUPG_ENCRYPTS | {_X25519, _X448, _ML_KEM_768, _ML_KEM_1024}
_RSA = frozenset({1, 2, 3})
_BITS = {18: 256, 22: 255, _X25519: 255, _X448: 448, 27: 255, 28: 456, _ML_KEM_768: 768, _ML_KEM_1024: 1024}

_SUBKEY_REVOCATION = 0x28  # RFC 9580 section 5.2.1


class Part(NamedTuple):
    """The primary key, or a subkey: times are in seconds since 1970, `expires` is None where it does not.

    `alone` is a certificate in which it is the only subkey: if that can be encrypted to, what is said here is true. Of
    the primary key, `expires` and `revoked` are not told.
    """

    fingerprint: str
    algorithm: int
    bits: int
    created: int
    expires: int | None
    encrypts: bool
    revoked: bool
    alone: bytes


class _Component(NamedTuple):
    """A key, and its owner's own signatures behind it; of the primary key, those on its user IDs too."""

    packet: Packet
    signatures: list[SelfSignature]

    @property
    def algorithm(self) -> int:
        return self.packet.body[5]


def is_newer(certificate: bytes) -> bool:
    """Whether mail can be encrypted to the certificate, if at all, without GnuPG alone. Raises ValueError.

    Where it has a subkey of either kind, GnuPG's serves: every program of the owner's can read that.
    """
    primary, *subkeys = _components(certificate)[1]
    if primary.packet.body[:1] == b"\x06" or primary.algorithm not in _GNUPG:
        return True
    if any(one.algorithm in _GNUPG_ENCRYPTS and _may_encrypt(one) for one in (primary, *subkeys)):
        return False
    return any(one.algorithm in _ENCRYPTS - _GNUPG_ENCRYPTS for one in subkeys)


def read(certificate: bytes) -> tuple[Part, ...]:
    """The primary key and the subkeys of one certificate that `certificate.read` cleaned. Raises ValueError."""
    head, (primary, *subkeys) = _components(certificate)
    return (_part(primary, head, None), *(_part(one, head, _newest(one)) for one in subkeys))


def divided(content: bytes) -> tuple[bytes, bytes]:
    """What of a file of certificates GnuPG reads, and the rest: certificates that are newer.

    Octets that are no certificates are left to GnuPG, as they are.
    """
    older: list[bytes] = []
    newer: list[bytes] = []
    try:
        for one in certificates(content):
            (newer if is_newer(one) else older).append(one)
    except ValueError:
        return content, b""
    return (b"".join(older), b"".join(newer)) if newer else (content, b"")


def _components(certificate: bytes) -> tuple[bytes, list[_Component]]:
    """What is in front of the subkeys, and all keys. Raises ValueError."""
    head: list[bytes] = []
    found: list[_Component] = []
    issuer = b""
    try:
        for packet in split(certificate):
            if packet.tag == PUBLIC_KEY:
                issuer = bytes.fromhex(key_id(fingerprint(packet.body)))
            if packet.tag in (PUBLIC_KEY, PUBLIC_SUBKEY):
                found.append(_Component(packet, []))
            elif packet.tag == SIGNATURE and issued_by(packet.body, issuer):
                found[-1].signatures.append(_signature(packet))
            if len(found) == 1:
                head.append(packet.raw)
        if not found or found[0].packet.tag != PUBLIC_KEY or any(len(one.packet.body) < 6 for one in found):
            raise MalformedError("it does not begin with a public key")
    except LookupError as error:
        raise MalformedError("it is cut short") from error
    return b"".join(head), found


def _part(component: _Component, head: bytes, binding: SelfSignature | None) -> Part:
    body, algorithm = component.packet.body, component.algorithm
    created = int.from_bytes(body[1:5])
    number = 10 if body[:1] == b"\x06" else 6  # behind the algorithm, version 6 has the length of what follows
    bits = int.from_bytes(body[number : number + 2]) if algorithm in _RSA else _BITS.get(algorithm, 0)
    revoked = any(one.kind == _SUBKEY_REVOCATION for one in component.signatures)
    name = fingerprint(body)
    if binding is None:
        return Part(name, algorithm, bits, created, None, encrypts=False, revoked=revoked, alone=head)
    return Part(
        name,
        algorithm,
        bits,
        created,
        created + binding.lifetime if binding.lifetime else None,
        encrypts=algorithm in _ENCRYPTS and bool((binding.flags or 0) & TO_ENCRYPT),
        revoked=revoked,
        alone=head + component.packet.raw + binding.raw,
    )


def _newest(subkey: _Component) -> SelfSignature | None:
    bindings: Sequence[SelfSignature] = [one for one in subkey.signatures if one.kind == BINDING]
    return max(bindings, key=lambda one: one.created, default=None)


def _may_encrypt(component: _Component) -> bool:
    """Whether any signature says so, or none says what the key is for."""
    flags = [one.flags for one in component.signatures if one.flags is not None]
    return not flags or any(one & TO_ENCRYPT for one in flags)


def _signature(packet: Packet) -> SelfSignature:
    """What the signed subpackets say (section 5.2.3). Raises LookupError."""
    body = packet.body
    wide = 4 if body[:1] == b"\x06" else 2
    said = {CREATED: b"", LIFETIME: b"", FLAGS: b""}
    if body[:1] in (b"\x04", b"\x06"):
        for _, content in subpackets(body[4 + wide : 4 + wide + int.from_bytes(body[4 : 4 + wide])]):
            if content and content[0] & 0x7F in said:
                said[content[0] & 0x7F] = content[1:]
    flags = said[FLAGS]
    return SelfSignature(
        packet.raw,
        body[1],
        int.from_bytes(said[CREATED][:4]),
        int.from_bytes(said[LIFETIME][:4]),
        flags[0] if flags else None,
    )
