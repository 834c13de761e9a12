"""Tells OpenPGP packets apart (RFC 9580 section 4), those of certificates, and names keys by their fingerprints. Pure.

`encrypted` walks the packets of messages, which may be divided and larger than memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter.openpgp.digest import sha1

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE = 2, 5, 6, 7, 13, 14, 17
MARKER, TRUST, PADDING = 10, 12, 21

BINDING = 0x18  # section 5.2.1: the kind of signature by which a subkey is a key's
CREATED, LIFETIME, FLAGS = 2, 9, 27  # section 5.2.3.7: what subpackets say of a key
TO_ENCRYPT = 0x0C  # section 5.2.3.29: communications, or storage

VERSION_6_DIGITS = 64  # of a fingerprint; those of version 4 have 40


class MalformedError(ValueError):
    """The octets are not what the packet must have here; the text says so in words."""


class Packet(NamedTuple):
    """`raw` has its header, too; `body` does not."""

    tag: int
    raw: bytes
    body: bytes


class SelfSignature(NamedTuple):
    """What a key's owner says of it: `kind` as in section 5.2.1, `created` in seconds since 1970, the key's `lifetime`
    in seconds, 0 for no end; `flags` say what the key is for, if they are there.
    """

    raw: bytes
    kind: int
    created: int
    lifetime: int
    flags: int | None


def split(data: bytes) -> list[Packet]:
    """The packets in `data`. Raises MalformedError."""
    found: list[Packet] = []
    position = 0
    while position < len(data):
        packet, position = following(data, position)
        found.append(packet)
    return found


def certificates(data: bytes) -> list[bytes]:
    """The certificates in a file of them, each as it stands there. Raises MalformedError."""
    found: list[list[bytes]] = []
    for packet in split(data):
        if packet.tag == PUBLIC_KEY:
            found.append([])
        elif not found:
            raise MalformedError("it does not begin with a public key")
        found[-1].append(packet.raw)
    return [b"".join(one) for one in found]


def following(data: bytes, start: int) -> tuple[Packet, int]:
    """The packet at `start` (section 4.2), and where the one behind it begins. Raises MalformedError."""
    head = data[start : start + 6]
    if not head or not head[0] & 0x80:
        raise MalformedError(f"at octet {start} there is no OpenPGP packet")
    if head[0] & 0x40:
        tag, octets = head[0] & 0x3F, 1
        first = head[1] if len(head) > 1 else 0
        if 224 <= first < 255:
            raise MalformedError("a packet in it is divided")  # section 4.2.1.4: only packets of data may be
        if first < 192:
            size = first
        elif first < 224:
            size, octets = (first - 192 << 8) + int.from_bytes(head[2:3]) + 192, 2
        else:
            size, octets = int.from_bytes(head[2:6]), 5
    else:
        tag, kind = head[0] >> 2 & 0x0F, head[0] & 0x03
        if kind == 3:
            raise MalformedError("a packet in it has no length")
        octets = 1 << kind
        size = int.from_bytes(head[1 : 1 + octets])
    body = start + 1 + octets
    end = body + size
    if len(head) < 1 + octets or end > len(data):
        raise MalformedError("it is cut short")
    return Packet(tag, data[start:end], data[body:end]), end


def subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    """The subpackets of a signature (section 5.2.3.7), each with its length: its type's octet, and what is behind it.

    Where `area` is cut short, what is there of the last has fewer octets than its length says.
    """
    position = 0
    while position < len(area):
        first = area[position]
        octets = 1 if first < 192 else 2 if first < 255 else 5
        if octets == 1:
            size = first
        elif octets == 2:
            size = (first - 192 << 8) + int.from_bytes(area[position + 1 : position + 2]) + 192
        else:
            size = int.from_bytes(area[position + 1 : position + 5])
        yield size, area[position + octets : position + octets + size]
        position += octets + size


def certificate_fingerprint(data: bytes) -> str:
    """The fingerprint of the certificate that begins `data`. Raises MalformedError."""
    packet, _ = following(data, 0)
    if packet.tag != PUBLIC_KEY:
        raise MalformedError("it does not begin with a public key")
    return fingerprint(packet.body)


def key_fingerprints(certificate: bytes) -> frozenset[str]:
    """The fingerprints of the primary key and the subkeys in a certificate. Raises MalformedError where it is none."""
    return frozenset(fingerprint(one.body) for one in split(certificate) if one.tag in (PUBLIC_KEY, PUBLIC_SUBKEY))


def key_id(name: str) -> str:
    """The ID of the key with that fingerprint, or key ID, in hexadecimal digits (section 5.5.4)."""
    return name[:16] if len(name) == VERSION_6_DIGITS else name[-16:]


def fingerprint(body: bytes) -> str:
    """The fingerprint of the key in a packet's `body` (section 5.5.4), in upper-case hexadecimal digits."""
    if body[:1] == b"\x04":
        return sha1(b"\x99" + (len(body) & 0xFFFF).to_bytes(2) + body).hex().upper()
    import hashlib  # see `digest`

    begin = b"\x9a" if body[:1] == b"\x05" else b"\x9b"
    return hashlib.sha256(begin + len(body).to_bytes(4) + body).hexdigest().upper()
