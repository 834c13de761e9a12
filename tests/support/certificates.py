"""Certificates made of packets."""

import base64

from sieve_filter.openpgp.packets import certificate_fingerprint
from tests.support.samples import packet

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY, TRUST, USER_ID, SUBKEY, ATTRIBUTE = 2, 5, 6, 7, 12, 13, 14, 17
KEY = (
    b"\x04" + b"\x65\x00\x00\x00" + b"\x16" + b"\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01" + b"\x01\x07\x40" + b"k" * 32
)
PRIMARY = packet(PUBLIC_KEY, KEY)
FINGERPRINT = certificate_fingerprint(PRIMARY)
NAME = packet(USER_ID, b"Alice <Alice@Example.org>")


def signature(issuer: str, kind: int = 0x13, by_fingerprint: bool = False) -> bytes:
    """A version 4 signature that says it is by the key `issuer`, a fingerprint."""
    named = b"\x16\x21\x04" + bytes.fromhex(issuer) if by_fingerprint else b"\x09\x10" + bytes.fromhex(issuer[-16:])
    areas = (0).to_bytes(2) + len(named).to_bytes(2) + named
    return packet(SIGNATURE, bytes([4, kind, 22, 8]) + areas + b"\x12\x34" + b"\x00\x08\xff\x00\x08\xff")


MINE = signature(FINGERPRINT)
SUB = packet(SUBKEY, KEY[:-1] + b"s")
BINDING = signature(FINGERPRINT, 0x18, by_fingerprint=True)
ALICE = PRIMARY + NAME + MINE + SUB + BINDING


def armored(
    data: bytes, kind: bytes = b"PUBLIC KEY BLOCK", headers: bytes = b"", checksum: bytes = b"=AAAA\n"
) -> bytes:
    text = base64.encodebytes(data)
    return b"-----BEGIN PGP %s-----\n%s\n%s%s-----END PGP %s-----\n" % (kind, headers, text, checksum, kind)
