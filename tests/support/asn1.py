"""CMS, made of ASN.1 in BER and DER."""

from tests.support.samples import noise


def der(identifier: int, *contents: bytes) -> bytes:
    """A value of definite length, in the shortest form."""
    content = b"".join(contents)
    if len(content) < 128:
        return bytes([identifier, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes([identifier, 0x80 | len(size)]) + size + content


def ber(identifier: int, *contents: bytes) -> bytes:
    """A value of indefinite length."""
    return bytes([identifier, 0x80]) + b"".join(contents) + b"\0\0"


DATA = bytes.fromhex("06092a864886f70d010701")
ENVELOPED = bytes.fromhex("06092a864886f70d010703")
AUTH_ENVELOPED = bytes.fromhex("060b2a864886f70d0109100117")
AES = der(0x30, bytes.fromhex("060960864801650304012a"), der(0x04, noise(16)))
VERSION = b"\x02\x01\x00"
NAME = der(0x30, der(0x31, der(0x30, b"\x06\x03\x55\x04\x03", der(0x0C, b"Example Authority 1"))))
ISSUER = der(0x30, NAME, der(0x02, noise(16)))
RECIPIENT = der(0x30, VERSION, ISSUER, AES, der(0x04, noise(256)))
RECIPIENTS = der(0x31, RECIPIENT)
CONTENT = der(0x30, DATA, AES, der(0x80, noise(32)))


def info(*envelope: bytes, kind: bytes = ENVELOPED) -> bytes:
    return der(0x30, kind, der(0xA0, der(0x30, *envelope)))
