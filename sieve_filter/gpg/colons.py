"""Reads GnuPG's key listing, and judges which of a key's subkeys may be encrypted to. Pure.

The format is that of `gpg --list-keys --with-colons` (GnuPG's doc/DETAILS).
"""

import re
import time
from collections.abc import Container
from typing import NamedTuple

from sieve_filter.openpgp.user_id import address_in

_STATES = {
    "d": "is disabled",
    "e": "expired",
    "i": "is invalid",
    "n": "is not valid",
    "r": "was revoked",
}

# Algorithms whose strength is the length of a number: RSA and ElGamal (RFC 9580 section 9.1). Of elliptic curves
# GnuPG knows none that is too weak.
_BITS_COUNT = frozenset({1, 2, 16, 20})

_DAY = 86_400
_YEAR_DAYS = 365

_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})")


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


def choose(key: Key, minimum_bits: int, now: int) -> Subkey | str:
    """The subkey of `key` to encrypt to: GnuPG's own choice, the newest. Else, in words, why there is none.

    `minimum_bits` is the least length of an RSA or ElGamal key; `now`, in seconds since 1970, may be long after GnuPG
    wrote the listing.
    """
    key = _at(key, now)
    primary = key.subkeys[0]
    if key.disabled:
        return _STATES["d"]
    if primary.state in _STATES:
        return _state(primary)
    able = [subkey for subkey in key.subkeys if subkey.encrypts]
    if not able:
        return "cannot encrypt"
    usable = [subkey for subkey in able if subkey.state not in _STATES]
    if not usable:
        return f"has no usable encryption subkey: {max(able, key=_age).fingerprint} {_state(max(able, key=_age))}"
    newest = max(usable, key=_age)
    if newest.algorithm in _BITS_COUNT and newest.bits < minimum_bits:
        return f"has {newest.bits} bits, fewer than the {minimum_bits} that minimum_bits asks for"
    return newest


def own(key: Key, secrets: Container[str]) -> Key | None:
    """`key` as far as it is of who owns the keyring, which has the secret keys with those grips; None where it is not.

    Anybody can make a key with anybody's address, and have it imported. GnuPG trusts ultimately what it has made, or
    was told to. Who has the secret primary key has made all subkeys. A stranger can take somebody else's subkey over
    into a key of theirs, beside others: of such a key, the subkeys count whose secret is there.
    """
    primary, *others = key.subkeys
    if key.ultimate or primary.grip in secrets:
        return key
    there = [one for one in others if one.encrypts and one.grip in secrets]
    return key._replace(subkeys=(primary._replace(encrypts=False), *there)) if there else None


def encryption_subkeys(key: Key, minimum_bits: int, now: int) -> list[Subkey]:
    """All subkeys of `key`, or the key itself, that `choose` could choose from at some time before they expire."""
    return [
        one
        for one in _at(key, now).subkeys
        if one.encrypts and one.state not in _STATES and not (one.algorithm in _BITS_COUNT and one.bits < minimum_bits)
    ]


def revoked(key: Key) -> frozenset[str]:
    """Of `key` and its encryption subkeys, those that were revoked, by their fingerprints."""
    primary, *others = key.subkeys
    return frozenset(one.fingerprint for one in (primary, *(one for one in others if one.encrypts)) if one.state == "r")


def short_life(key: Key, chosen: Subkey) -> int | None:
    """The days that the encryption subkey `chosen` lives, where that is less than a year and `key` lives on; else None.

    Owners of such keys make a new subkey again and again, and many destroy the old one.
    """
    ends = key.subkeys[0].expires
    if chosen.expires is None or (ends is not None and ends - chosen.expires <= _DAY):
        return None
    days = (chosen.expires - chosen.created) // _DAY
    return days if days < _YEAR_DAYS else None


def last_good(key: Key, now: int) -> int | None:
    """The last second at which `key` could be encrypted to, where it has expired as a whole and nothing else is wrong.

    None elsewhere: of a subkey that expires while its key lives on, the owner may have destroyed the secret. The two
    ends of a key that expires as a whole may be some hours apart, because programs set them one after the other.
    """
    primary = key.subkeys[0]
    if key.disabled or primary.expires is None or primary.expires > now:
        return None
    moments = [
        end - 1
        for subkey in key.subkeys
        if subkey.encrypts and {primary.state, subkey.state}.isdisjoint(_STATES.keys() - {"e"})
        if (end := min(subkey.expires or primary.expires, primary.expires)) >= primary.expires - _DAY
        if subkey.created < end
    ]
    return max(moments, default=None)


def _at(key: Key, now: int) -> Key:
    """`key` as GnuPG would have listed it then, as far as it depends on the clock."""
    primary, *others = (_aged(subkey, now) for subkey in key.subkeys)
    # GnuPG says of each subkey of an expired key that it is expired.
    ageless = [one._replace(state="-") if one.state == "e" and one.expires is None else one for one in others]
    return key._replace(subkeys=(primary, *ageless))


def _aged(subkey: Subkey, now: int) -> Subkey:
    if subkey.expires is None or subkey.state in _STATES.keys() - {"e"}:
        return subkey
    return subkey._replace(state="e" if subkey.expires <= now else "-")


def _age(subkey: Subkey) -> int:
    return subkey.created


def _state(subkey: Subkey) -> str:
    words = _STATES[subkey.state]
    if subkey.state == "e" and subkey.expires is not None:
        words += f" on {time.strftime('%Y-%m-%d', time.gmtime(subkey.expires))}"
    return words


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
    return _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), field)
