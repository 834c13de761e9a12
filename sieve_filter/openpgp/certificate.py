"""Takes OpenPGP certificates (transferable public keys, RFC 9580 section 10.1) apart, and cleans them. Pure.

GnuPG checks every signature that it imports, and other people can put tens of thousands on anybody's key. What is not
the owner's own is left out here, by its packet alone, before GnuPG sees it. No signature is verified: that is GnuPG's.
"""

from collections import Counter
from collections.abc import Container, Iterator
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.openpgp import blocks
from sieve_filter.openpgp.blocks import Block
from sieve_filter.openpgp.packets import (
    MARKER,
    PADDING,
    PUBLIC_KEY,
    PUBLIC_SUBKEY,
    SECRET_KEY,
    SECRET_SUBKEY,
    SIGNATURE,
    TRUST,
    USER_ATTRIBUTE,
    USER_ID,
    MalformedError,
    Packet,
    certificate_fingerprint,
    fingerprint,
    following,
    key_id,
    split,
    subpackets,
)
from sieve_filter.openpgp.user_id import address_in

_LEAST_IGNORED = 40  # RFC 9580 section 4.3: packet types from 40 on may be ignored by who does not know them

_KEY_REVOCATION = b"\x20"  # RFC 9580 section 5.2.1.11, behind the version of a signature

_ISSUER, _ISSUER_FINGERPRINT = 16, 33  # RFC 9580 sections 5.2.3.12 and 5.2.3.35

_SECRETS = (b"PRIVATE KEY BLOCK", b"SECRET KEY BLOCK")  # kinds of armor


class Certificate(NamedTuple):
    """One certificate, cleaned.

    `fingerprint` is in upper-case hexadecimal digits; `packets` its binary packets: primary key, user IDs and subkeys,
    each with the owner's own signatures only; `addresses` those of its user IDs, lower case, which nobody has verified
    yet. `problem` says in words why it cannot be taken, and is empty else.
    """

    fingerprint: str
    packets: bytes
    addresses: frozenset[str]
    problem: str


class Reading(NamedTuple):
    """What is in some octets: certificates in their order, and in words what could not be read."""

    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...]
    secret: bool


class _SecretError(Exception):
    """There is a secret key."""


def read(data: bytes) -> Reading:
    """The certificates in `data`, armored or binary, one or many. Any octets at all can be read.

    Where there is a secret key, `secret` is true and nothing else is told.
    """
    certificates: list[Certificate] = []
    problems: list[str] = []
    try:
        for number, block in enumerate(_blocks(data), start=1):
            where = f"block {number}: " if number > 1 else ""
            try:
                _read_block(_packets(block), certificates)
            except MalformedError as error:
                problems.append(f"{where}{error}")
    except _SecretError:
        return Reading((), (), True)
    if not certificates and not problems:
        problems.append("there is no OpenPGP certificate in it")
    return Reading(tuple(certificates), tuple(problems), False)


def apart(packets: bytes) -> dict[str, bytes]:
    """The certificates in a file of them, by their fingerprints, each as it stands there. Raises ValueError."""
    found: dict[str, list[bytes]] = {}
    name = ""
    for packet in split(packets):
        if packet.tag == PUBLIC_KEY:
            name = fingerprint(packet.body)
        elif not name:
            raise MalformedError("it does not begin with a public key")
        found.setdefault(name, []).append(packet.raw)
    return {name: b"".join(raw) for name, raw in found.items()}


def is_of(packets: bytes, given: bytes) -> bool:
    """Whether `packets` are the certificate `given`, of which some packets may be missing, and nothing else.

    What GnuPG notes for itself in trust packets does not count. Raises ValueError where one of them is malformed.
    """
    return certificate_fingerprint(packets) == certificate_fingerprint(given) and _said(packets) <= _said(given)


def reduce(packets: bytes, subkeys: Container[str], address: str | None) -> bytes:
    """A cleaned certificate with one user ID and with those subkeys only, by their fingerprints.

    The user ID is one with `address`, else the first. Raises ValueError where `packets` are none.
    """
    all_packets = split(packets)
    user_ids = [one.body for one in all_packets if one.tag == USER_ID]
    with_address = [one for one in user_ids if address and address_in(one) == address.lower()]
    chosen = (with_address or user_ids or [b""])[0]
    kept: list[bytes] = []
    keeping = True
    for packet in all_packets:
        if packet.tag == USER_ID:
            keeping = packet.body == chosen
        elif packet.tag == PUBLIC_SUBKEY:
            keeping = fingerprint(packet.body) in subkeys
        if keeping:
            kept.append(packet.raw)
    return b"".join(kept)


def _blocks(data: bytes) -> Iterator[Block | bytes]:
    """The armored blocks of `data`; or `data` itself where it is binary. Raises _SecretError."""
    # A packet's first octet has its highest bit set (RFC 9580 section 4.2), and no text of an armor has.
    if not data or data[0] & 0x80:
        return iter([data] if data else [])
    if any(line.kind in _SECRETS for line in blocks.lines(data)):
        raise _SecretError
    return blocks.read(data)


def _packets(block: Block | bytes) -> bytes:
    if isinstance(block, bytes):
        return block
    if block.text is None:
        raise MalformedError("its armor is cut short")
    if block.kind != blocks.PUBLIC_KEY:
        raise MalformedError("it is armored, but not a public key")
    packets = blocks.unpack(block.text)
    if packets is None:
        raise MalformedError("its armor is damaged")
    return packets


def _read_block(data: bytes, certificates: list[Certificate]) -> None:
    """Add the certificates in the binary packets `data`.

    Where it is malformed, those before count. The one in which that is does not: it may have lost a revocation.
    """
    packets: list[Packet] = []
    position = 0
    while position < len(data):
        packet, position = following(data, position)
        if packet.tag in (SECRET_KEY, SECRET_SUBKEY):
            raise _SecretError
        if packet.tag in (MARKER, TRUST, PADDING) or packet.tag >= _LEAST_IGNORED:
            continue
        if packet.tag == PUBLIC_KEY and packets:
            certificates.append(_clean(packets))
            packets = []
        elif packet.tag == SIGNATURE and not packets and packet.body[1:2] == _KEY_REVOCATION:
            raise MalformedError("it is a revocation alone: import it into a copy of the key, and give that")
        elif packet.tag != PUBLIC_KEY and not packets:
            raise MalformedError("it does not begin with a public key")
        if packet.tag not in (PUBLIC_KEY, PUBLIC_SUBKEY, USER_ID, USER_ATTRIBUTE, SIGNATURE):
            raise MalformedError("a packet in it does not belong into a certificate")
        packets.append(packet)
    if packets:
        certificates.append(_clean(packets))


def _clean(packets: list[Packet]) -> Certificate:
    primary = packets[0].body
    version = primary[0] if primary else 0
    if version not in (4, 5, 6):
        return Certificate("", b"", frozenset(), f"it is a key of version {version}, which is no longer safe to use")
    own = fingerprint(primary)
    issuer = bytes.fromhex(key_id(own))
    kept: list[bytes] = []
    addresses: set[str] = set()
    dropping = has_user_id = False
    for packet in packets:
        if packet.tag == SIGNATURE:
            if not dropping and issued_by(packet.body, issuer):
                kept.append(packet.raw)
            continue
        dropping = packet.tag == USER_ATTRIBUTE  # a picture: delivery has no use for it
        if not dropping:
            kept.append(packet.raw)
        if packet.tag == USER_ID:
            has_user_id = True
            address = address_in(packet.body)
            addresses |= {address} if address else set()
    problem = ""
    if not has_user_id:
        problem = "it has no user ID"
    elif len(kept) > limits.CERTIFICATE_PACKETS:
        problem = f"it has {len(kept)} packets of its owner's, more than {limits.CERTIFICATE_PACKETS}"
    elif sum(map(len, kept)) > limits.CERTIFICATE_OCTETS:
        problem = f"it is larger than {limits.CERTIFICATE_OCTETS} octets"
    return Certificate(own, b"" if problem else b"".join(kept), frozenset(addresses), problem)


def _said(packets: bytes) -> Counter[tuple[int, bytes]]:
    """What the packets of a certificate say, without how they are written."""
    return Counter((one.tag, _without_numbers(one)) for one in split(packets) if one.tag != TRUST)


def _without_numbers(packet: Packet) -> bytes:
    """The body of `packet`; of a signature, up to its numbers (RFC 9580 section 5.2.3), which GnuPG writes anew."""
    body = packet.body
    if packet.tag != SIGNATURE:
        return body
    if body[:1] == b"\x03":
        return body[:19]
    wide = 4 if body[:1] == b"\x06" else 2
    position = 4
    for _ in ("hashed", "not hashed"):
        position += wide + int.from_bytes(body[position : position + wide])
    return body[: position + 2]


def issued_by(signature: bytes, issuer: bytes) -> bool:
    """Whether the body of a signature claims to be that key's (RFC 9580 section 5.2). One that names nobody may be."""
    if signature[:1] == b"\x03":
        return signature[7:15] == issuer
    wide = 4 if signature[:1] == b"\x06" else 2
    named = []
    position = 4
    for _ in ("hashed", "not hashed"):
        size = int.from_bytes(signature[position : position + wide])
        named += _issuers(signature[position + wide : position + wide + size])
        position += wide + size
    return not named or issuer in named


def _issuers(area: bytes) -> list[bytes]:
    """The key IDs that a signature's subpackets (RFC 9580 section 5.2.3.7) name as its issuer's."""
    found: list[bytes] = []
    for _, content in subpackets(area):
        kind = content[0] & 0x7F if content else 0
        if kind == _ISSUER:
            found.append(content[1:9])
        elif kind == _ISSUER_FINGERPRINT:
            found.append(content[-8:] if content[1:2] == b"\x04" else content[2:10])
    return found
