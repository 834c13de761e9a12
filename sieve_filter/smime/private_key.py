"""Tells whether there are secret keys of certificates in some octets, in DER or BER. Pure.

PEM says so itself: see `secret_key` of *openpgp*. A key need not be whole: its beginning is enough.
"""

import re

_LENGTH = rb"(?:[\x00-\x80]|\x81.|\x82..|\x83.{3}|\x84.{4})"
_PKCS = rb"\x2a\x86\x48\x86\xf7\x0d\x01"
_KEY = re.compile(
    # PKCS #12 (RFC 7292 sections 4 and 4.2): version 3 and the content; a bag with a key, encrypted or not.
    rb"\x02\x01\x03\x30" + _LENGTH + rb"\x06\x09" + _PKCS + rb"\x07[\x01\x02]"
    rb"|\x06\x0b" + _PKCS + rb"\x0c\x0a\x01[\x01\x02]"
    # PKCS #8 (RFC 5958 section 2): version 0 or 1, an algorithm of RSA or on curves, and the key.
    rb"|\x02\x01[\x00\x01]\x30[\x05-\x30]\x06(?:\x09" + _PKCS + rb"\x01\x01(?:\x05\x00)?"
    rb"|\x07\x2a\x86\x48\xce\x3d\x02\x01\x06[\x05-\x0c].{5,12}?|\x03\x2b\x65[\x6e-\x71])\x04"
    # And encrypted (section 3): with PBES2, PBES1 (RFC 8018), or what PKCS #12 has for it.
    rb"|\x30"
    + _LENGTH
    + rb"\x30"
    + _LENGTH
    + rb"\x06(?:\x09"
    + _PKCS
    + rb"\x05[\x01-\x0d]|\x0a"
    + _PKCS
    + rb"\x0c\x01.)"
    # PKCS #1 (RFC 8017 appendix A.1.2): version 0, and a modulus of at least 512 bits.
    rb"|\x30\x82..\x02\x01\x00\x02(?:\x81.|\x82..|\x41)\x00"
    # SEC 1 (RFC 5915 section 3): version 1, the number, and the curve's name.
    rb"|\x30(?:[\x25-\x7f]|\x81.)\x02\x01\x01\x04(?:\x20.{32}|\x30.{48}|\x42.{66})\xa0.\x06",
    re.DOTALL,
)


_PKCS12 = re.compile(rb"\x30" + _LENGTH + rb"\x02\x01\x03\x30", re.DOTALL)


def is_pkcs12(data: bytes) -> bool:
    """Whether `data` begins as a file of PKCS #12 does."""
    return _PKCS12.match(data) is not None


def found(data: bytes) -> bool:
    """Whether there is a secret key in `data`, in these octets as they are."""
    return _KEY.search(data) is not None
