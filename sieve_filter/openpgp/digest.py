"""SHA-1, which names keys of version 4, and guards keyring files against accidents: no signature is verified. Pure.

hashlib loads OpenSSL, which takes an executed filter three times as long as a run of gpg. What it uses where OpenSSL is
missing is in Python itself.
"""

try:
    from _sha1 import sha1 as _sha1  # type: ignore[import-not-found, unused-ignore]
except ImportError:
    from hashlib import sha1 as _sha1


def sha1(data: bytes) -> bytes:
    """The digest of `data`, 20 octets."""
    return bytes(_sha1(data, usedforsecurity=False).digest())
