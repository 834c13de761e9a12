"""Reads GnuPG's key listing. Pure.

The format is that of `gpg --list-keys --with-colons` (GnuPG's doc/DETAILS).
"""

import re
from typing import NamedTuple

from sieve_filter.openpgp.user_id import address_in

_ESCAPE = rb"\\x([0-9a-fA-F]{2})"  # compiled where it is used: most deliveries have no listing


class Subkey(NamedTuple):
    """A key or subkey: `state` is GnuPG's validity letter, `created` seconds since 1970, `expires` the same or None.

    `grip` names the file that GnuPG keeps the secret key in.
    """

    fingerprint: str
    state: str
    algorithm: int
    bits: int
    created: int
    expires: int | None
    encrypts: bool
    grip: str = ""


class Key(NamedTuple):
    """A certificate: its primary key first, then its subkeys; the addresses of its user IDs, lower case.

    `ultimate` says that whose keyring it is trusts it ultimately, as GnuPG does with keys that it has made.
    """

    disabled: bool
    subkeys: tuple[Subkey, ...]
    addresses: frozenset[str]
    ultimate: bool = False

    @property
    def fingerprint(self) -> str:
        return self.subkeys[0].fingerprint


def parse(colons: bytes) -> list[Key]:
    """The keys in a listing, in its order. Raises ValueError where it is not one."""
    keys: list[Key] = []
    for line in colons.split(b"\n"):
        fields = line.split(b":")
        kind = fields[0]
        if kind == b"pub":
            keys.append(Key(b"D" in fields[11], (_subkey(fields),), frozenset(), fields[8] == b"u"))
        elif kind in (b"sub", b"fpr", b"grp", b"uid"):
            if not keys:
                raise ValueError("the listing does not begin with a key")
            keys[-1] = _extend(keys[-1], kind, fields)
    return keys


def user_ids(colons: bytes) -> dict[str, tuple[str, ...]]:
    """The user IDs of each key in a listing, by its fingerprint; without those that were revoked."""
    found: dict[str, tuple[str, ...]] = {}
    fingerprint = ""
    for line in colons.split(b"\n"):
        fields = line.split(b":")
        if fields[0] == b"pub":
            fingerprint = ""
        elif fields[0] == b"fpr" and not fingerprint:
            fingerprint = fields[9].decode("ascii", "replace")
            found[fingerprint] = ()
        elif fields[0] == b"uid" and fields[1] != b"r" and fingerprint:
            found[fingerprint] += (_unescaped(fields[9]).decode("utf-8", "replace"),)
    return found


def _extend(key: Key, kind: bytes, fields: list[bytes]) -> Key:
    if kind == b"sub":
        return key._replace(subkeys=(*key.subkeys, _subkey(fields)))
    if kind == b"fpr":
        newest = key.subkeys[-1]._replace(fingerprint=fields[9].decode("ascii"))
        return key._replace(subkeys=(*key.subkeys[:-1], newest))
    if kind == b"grp":
        newest = key.subkeys[-1]._replace(grip=fields[9].decode("ascii"))
        return key._replace(subkeys=(*key.subkeys[:-1], newest))
    # A revoked user ID names nobody any more; but where the key itself is revoked GnuPG says so of each user ID, and
    # its owner must be told of it instead of passing for somebody without a key.
    revoked = fields[1] == b"r" and key.subkeys[0].state != "r"
    address = None if revoked else _address(fields[9])
    return key if address is None else key._replace(addresses=key.addresses | {address})


def _subkey(fields: list[bytes]) -> Subkey:
    return Subkey(
        fingerprint="",
        state=fields[1].decode("ascii"),
        bits=int(fields[2]),
        algorithm=int(fields[3]),
        created=_time(fields[5]) or 0,
        expires=_time(fields[6]),
        encrypts=b"e" in fields[11],
    )


def _time(field: bytes) -> int | None:
    """Seconds since 1970, or None where there is no time."""
    seconds = int(field) if field else None
    if seconds is not None and not 0 <= seconds < 2**33:  # RFC 9580 sections 3.5, 5.2.3.13: two numbers of 32 bits
        raise ValueError("a time in the listing is out of range")
    return seconds


def _address(user_id: bytes) -> str | None:
    """The address of a user ID as GnuPG writes it in a listing (UTF-8, special octets as \\xNN)."""
    return address_in(_unescaped(user_id))


def _unescaped(field: bytes) -> bytes:
    return re.sub(_ESCAPE, lambda escape: bytes([int(escape[1], 16)]), field)
