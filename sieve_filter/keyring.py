"""Finds the keys that an owner's messages are encrypted to, in the owner's own keyrings and nowhere else."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter import gpg, listing
from sieve_filter.errors import KeyringError, NoKeyError, UnusableKeyError, UsageError
from sieve_filter.listing import Key
from sieve_filter.owner import Owner, expand

# A keyring of GnuPG 2.1 and later, of 2.0 and earlier, and of keyboxd (2.3 and later).
_KEYRING_FILES = ("pubring.kbx", "pubring.gpg", "public-keys.d/pubring.db")

# A whole fingerprint, v4 or v6. A key ID is not enough: somebody else's key can be made to have the same one.
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_ADDRESS = re.compile(r"[^\s<>@:]+@[^\s<>@:]+")


class Keyrings(NamedTuple):
    """Where keys may be, as templates of `owner.expand`, each naming a GnuPG home.

    All keys in the first of `owner` that has any are the owner's; in `shared`, those with one of the owner's
    addresses.
    """

    owner: tuple[str, ...]
    shared: tuple[str, ...]
    minimum_bits: int


class Recipients(NamedTuple):
    """What to encrypt to: fingerprints of encryption subkeys, and the GnuPG homes that hold them."""

    homes: tuple[str, ...]
    fingerprints: tuple[str, ...]


def parse_wanted(text: str) -> str:
    """A key as somebody names it: a full fingerprint (upper case out) or an address (lower case out).

    Raises UsageError for anything else.
    """
    fingerprint = text.replace(" ", "").upper().removeprefix("0X")
    if _FINGERPRINT.fullmatch(fingerprint):
        return fingerprint
    if _ADDRESS.fullmatch(text):
        return text.lower()
    raise UsageError(f"--key {text!r} is neither a full fingerprint (40 or 64 hexadecimal digits) nor an address")


def find(owner: Owner, keyrings: Keyrings, wanted: Sequence[str] = ()) -> Recipients | None:
    """The usable keys of `owner`; or those `wanted` (see `parse_wanted`) from the owner's keyrings, and no others.

    None where the owner has no key. Raises UnusableKeyError where there are keys but none may be encrypted to,
    NoKeyError where a wanted one is missing, KeyringError where a keyring cannot be read.
    """
    personal = existing(keyrings.owner, owner)
    shared = existing(keyrings.shared, owner)
    if wanted:
        return _find_wanted(wanted, [*personal, *shared], keyrings.minimum_bits)
    for home in personal:
        if keys := _list(home):
            return _usable(home, keys, keyrings.minimum_bits)
    for home in shared:
        if keys := _list_matching(home, sorted(owner.addresses)):
            return _usable(home, keys, keyrings.minimum_bits)
    return None


def _find_wanted(wanted: Sequence[str], homes: Sequence[str], minimum_bits: int) -> Recipients:
    found: list[Recipients] = []
    for one in wanted:
        matches = ((home, keys) for home in homes if (keys := _list_matching(home, [one])))
        home, keys = next(matches, ("", []))
        if not keys:
            places = " or ".join(homes) or "the owner's keyrings: there are none"
            raise NoKeyError(f"no key {one} in {places}: import it there")
        found.append(_usable(home, keys, minimum_bits))
    return Recipients(
        tuple(dict.fromkeys(home for recipients in found for home in recipients.homes)),
        tuple(dict.fromkeys(one for recipients in found for one in recipients.fingerprints)),
    )


def _usable(home: str, keys: Sequence[Key], minimum_bits: int) -> Recipients:
    choices = [(key, listing.choose(key, minimum_bits)) for key in keys]
    fingerprints = [choice.fingerprint for _, choice in choices if not isinstance(choice, str)]
    if not fingerprints:
        reasons = "; ".join(f"key {key.fingerprint} {reason}" for key, reason in choices)
        raise UnusableKeyError(f"no usable key in {home}: {reasons}; renew or replace it")
    return Recipients((home,), tuple(fingerprints))


def _list(home: str, patterns: Sequence[str] = ()) -> list[Key]:
    try:
        return listing.parse(gpg.list_keys(home, patterns))
    except (ValueError, IndexError) as error:
        raise KeyringError(f"cannot read gpg's listing of {home}: {error}") from error


def _list_matching(home: str, wanted: Sequence[str]) -> list[Key]:
    """The keys in `home` with a wanted fingerprint or address. gpg narrows the search; the comparison is ours."""
    if not wanted:
        return []
    keys = _list(home, [f"<{one}>" if "@" in one else one for one in wanted])
    named = set(wanted)
    return [key for key in keys if key.addresses & named or key.fingerprint in named]


def existing(templates: Sequence[str], owner: Owner) -> list[str]:
    """Those of the GnuPG homes `templates` that hold a keyring of `owner`. Raises KeyringError."""
    homes = (expand(template, owner) for template in templates)
    return [home for home in homes if _has_keyring(Path(home))]


def _has_keyring(home: Path) -> bool:
    """Whether `home` holds a keyring. One that cannot be looked at is an error: it is not "no key"."""
    try:
        return any(_is_there(home / name) for name in _KEYRING_FILES)
    except OSError as error:
        raise KeyringError(f"cannot look into {home}: {error.strerror}; check its owner and mode") from error


def _is_there(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
