"""Which subkeys of a key may be encrypted to, and why not, by what GnuPG's listing says of them. Pure."""

import time
from collections.abc import Container

from sieve_filter.gpg.colons import Key, Subkey

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

# RFC 9980 section 4.1: ML-KEM, which no quantum computer is known to open.
POST_QUANTUM = frozenset({35, 36})

_DAY = 86_400
_YEAR_DAYS = 365


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
    good = [subkey for subkey in able if subkey.state not in _STATES]
    if not good:
        return f"has no usable encryption subkey: {max(able, key=_age).fingerprint} {_state(max(able, key=_age))}"
    newest = max(good, key=_rank)
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


def _rank(subkey: Subkey) -> tuple[bool, int]:
    """The newest is best; but of an owner with a subkey of either kind, programs may not know the post-quantum one."""
    return subkey.algorithm not in POST_QUANTUM, subkey.created


def _age(subkey: Subkey) -> int:
    return subkey.created


def _state(subkey: Subkey) -> str:
    words = _STATES[subkey.state]
    if subkey.state == "e" and subkey.expires is not None:
        words += f" on {time.strftime('%Y-%m-%d', time.gmtime(subkey.expires))}"
    return words
