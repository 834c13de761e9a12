"""Reads the keyring of an owner in this process: a run of GnuPG less for a message.

It gives what GnuPG's listing would, as far as mail is encrypted to it, if the signatures are good: whoever encrypts has
to verify them. Where anything is unusual, GnuPG has to be asked.
"""

import time
from functools import lru_cache

from sieve_filter import limits
from sieve_filter.gpg import keybox
from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.keys.recipients import FileVersion, Holding, Home
from sieve_filter.openpgp import packets, plain
from sieve_filter.openpgp.plain import Plain, PlainKey
from sieve_filter.system import places

# Keyrings kept in memory, some 2 KB each.
_KEYRINGS = 2_000


@lru_cache(maxsize=_KEYRINGS)
def read(home: Home) -> Holding | None:
    """The keys in a keyring, each with its newest encryption subkey alone; None where GnuPG has to be asked.

    The secret keys, and whose key GnuPG trusts, are not looked at.
    """
    try:
        certificates = _certificates(home)
    except (OSError, ValueError, places.NotAFileError):
        return None
    now = int(time.time())
    found = [one for data in certificates if (one := plain.read(data, now)) is not None]
    if not found or len(found) < len(certificates) or len({one.primary.fingerprint for one in found}) < len(found):
        return None
    return Holding(home, tuple(map(_key, found)), proofs={one.subkey.fingerprint: one.proofs for one in found})


def _certificates(home: Home) -> list[bytes]:
    """The certificates in a keyring file, or in a file of them. Raises ValueError where it is none of these."""
    if len(home.version) == 1:
        from sieve_filter.openpgp import newer  # hardly any keyring is such a file

        return packets.certificates(newer.divided(_content(home.path, home.version[0]))[0])
    # Whatever GnuPG cannot read is the last of them.
    box, trust, *others = home.version[0], home.version[4], *home.version[1:4], *home.version[5:-1]
    if any(others):
        raise ValueError("GnuPG may have its keys elsewhere")
    certificates = keybox.plain(_content(f"{home.path}/{keybox.NAME}", box))
    if trust is not None:
        from sieve_filter.gpg import trustdb  # a keyring that `cryptomail keys` made has none

        if trustdb.may_disable(_content(f"{home.path}/{trustdb.NAME}", trust)):
            raise ValueError("there is a disabled key")
    return certificates


def _content(path: str, version: FileVersion | None) -> bytes:
    """What is in a file. Raises ValueError where it is not there, or so large that it takes longer; OSError."""
    if version is None or version.size > limits.CERTIFICATE_OCTETS:
        raise ValueError("it is not there, or large")
    with open(path, "rb", opener=places.open_file) as file:
        return file.read(limits.CERTIFICATE_OCTETS)


def _key(found: Plain) -> Key:
    subkeys = (_subkey(found.primary, encrypts=False), _subkey(found.subkey, encrypts=True))
    return Key(disabled=False, subkeys=subkeys, addresses=found.addresses)


def _subkey(key: PlainKey, *, encrypts: bool) -> Subkey:
    return Subkey(key.fingerprint, "-", key.algorithm, key.bits, key.created, key.expires, encrypts)
