"""Finds the keys that an owner's messages are encrypted to, in the owner's own keyrings and nowhere else."""

import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from sieve_filter import gpg, listing
from sieve_filter.errors import ExpiredKeyError, KeyringError, NoKeyError, UnusableKeyError, UsageError
from sieve_filter.listing import Key
from sieve_filter.owner import Owner, expand

# A keyring of GnuPG 2.1 and later, of 2.0 and earlier, and of keyboxd (2.3 and later).
_KEYRING_FILES = ("pubring.kbx", "pubring.gpg", f"{gpg.KEYBOXD}/pubring.db")
# What else a listing depends on: what keyboxd has not put into its file yet, and which keys are disabled.
_OTHER_FILES = (f"{gpg.KEYBOXD}/pubring.db-wal", "trustdb.gpg")

# Listings kept in memory, some 2 KB each.
_LISTINGS = 2_000

# A whole fingerprint, v4 or v6. A key ID is not enough: somebody else's key can be made to have the same one.
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_ADDRESS = re.compile(r"[^\s<>@:]+@[^\s<>@:]+")


class Keyrings(NamedTuple):
    """Where keys may be, as templates of `owner.expand`, each naming a GnuPG home or a file of binary certificates.

    All keys in the first of `owner` that has any are the owner's; in `shared`, those with one of the owner's
    addresses.
    """

    owner: tuple[str, ...]
    shared: tuple[str, ...]
    minimum_bits: int


class FileVersion(NamedTuple):
    """What a file shows when it has been changed; `changed` counts nanoseconds since 1970."""

    inode: int
    size: int
    changed: int
    is_file: bool


# The files of a keyring; None for one that is not there.
Version = tuple[FileVersion | None, ...]


class Recipients(NamedTuple):
    """What to encrypt to: fingerprints of encryption subkeys, the GnuPG homes that hold them, and their versions.

    Where the keys have expired, `expired_after` is the last second at which they were good.
    """

    homes: tuple[str, ...]
    fingerprints: tuple[str, ...]
    versions: tuple[Version, ...]
    expired_after: int | None = None


class Home(NamedTuple):
    """A GnuPG home or a file of certificates, as it is now."""

    path: str
    version: Version


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


def find(
    owner: Owner, keyrings: Keyrings, wanted: Sequence[str] = (), *, accept_expired: bool = False
) -> Recipients | None:
    """The usable keys of `owner`; or those `wanted` (see `parse_wanted`) from the owner's keyrings, and no others.

    None where the owner has no key. With `accept_expired`, keys of which nothing is wrong but their age serve where
    there are no others. Raises UnusableKeyError where there are keys but none may be encrypted to (ExpiredKeyError
    where their age is the reason), NoKeyError where a wanted one is missing, KeyringError where a keyring cannot be
    read.
    """
    if wanted:
        homes = existing((*keyrings.owner, *keyrings.shared), owner)
        return _find_wanted(wanted, homes, keyrings.minimum_bits, accept_expired)
    for home in existing(keyrings.owner, owner):
        if keys := _list(home):
            return _usable(home, keys, keyrings.minimum_bits, accept_expired)
        refuse_damaged(home.path)
    for home in existing(keyrings.shared, owner):
        if matching := _list_matching(home, sorted(owner.addresses)):
            return _usable(home, matching, keyrings.minimum_bits, accept_expired)
        refuse_not_whole(home)
    return None


def find_in_file(path: str, minimum_bits: int, *, accept_expired: bool = False) -> Recipients:
    """The usable keys in a file of binary certificates. Raises as `find` does, and NoKeyError where there is none."""
    home = _home(path)
    if home is None or not (keys := _list(home)):
        raise NoKeyError(f"there is no key in {path}")
    return _usable(home, keys, minimum_bits, accept_expired)


def _find_wanted(wanted: Sequence[str], homes: Sequence[Home], minimum_bits: int, accept_expired: bool) -> Recipients:
    found: list[Recipients] = []
    for one in wanted:
        matches = ((home, keys) for home in homes if (keys := _list_matching(home, [one])))
        home, keys = next(matches, (None, []))
        if home is None:
            places = " or ".join(home.path for home in homes) or "the owner's keyrings: there are none"
            raise NoKeyError(f"no key {one} in {places}: import it there")
        found.append(_usable(home, keys, minimum_bits, accept_expired))
    return Recipients(
        tuple(dict.fromkeys(home for recipients in found for home in recipients.homes)),
        tuple(dict.fromkeys(one for recipients in found for one in recipients.fingerprints)),
        tuple(dict.fromkeys(version for recipients in found for version in recipients.versions)),
        min((one.expired_after for one in found if one.expired_after is not None), default=None),
    )


def _usable(home: Home, keys: Sequence[Key], minimum_bits: int, accept_expired: bool) -> Recipients:
    now = int(time.time())  # a listing may be from yesterday
    if fingerprints := _chosen(keys, minimum_bits, now):
        return Recipients((home.path,), fingerprints, (home.version,))
    reasons = "; ".join(f"key {key.fingerprint} {listing.choose(key, minimum_bits, now)}" for key in keys)
    error = f"no usable key in {home.path}: {reasons}; renew or replace it"
    moment = listing.expired_after(keys, minimum_bits)
    if moment is None:
        raise UnusableKeyError(error)
    if not accept_expired:
        raise ExpiredKeyError(error)
    return Recipients((home.path,), _chosen(keys, minimum_bits, moment), (home.version,), moment)


def _chosen(keys: Sequence[Key], minimum_bits: int, now: int) -> tuple[str, ...]:
    """The fingerprint of the subkey to encrypt to, of each key that has one at that time."""
    choices = (listing.choose(key, minimum_bits, now) for key in keys)
    return tuple(choice.fingerprint for choice in choices if not isinstance(choice, str))


@lru_cache(maxsize=_LISTINGS)
def _list(home: Home, patterns: tuple[str, ...] = ()) -> tuple[Key, ...]:
    try:
        return tuple(listing.parse(gpg.list_keys(home.path, patterns)))
    except (ValueError, IndexError) as error:
        raise KeyringError(f"cannot read gpg's listing of {home.path}: {error}") from error


def _list_matching(home: Home, wanted: Sequence[str]) -> list[Key]:
    """The keys in `home` with a wanted fingerprint or address. gpg narrows the search; the comparison is ours."""
    if not wanted:
        return []
    keys = _list(home, tuple(f"<{one}>" if "@" in one else one for one in wanted))
    named = set(wanted)
    return [key for key in keys if key.addresses & named or key.fingerprint in named]


def existing(templates: Sequence[str], owner: Owner) -> list[Home]:
    """Those of the GnuPG homes `templates` that hold a keyring of `owner`. Raises KeyringError."""
    homes = (_home(expand(template, owner)) for template in templates)
    return [home for home in homes if home is not None]


def _home(path: str) -> Home | None:
    """The GnuPG home at `path`, if there is a keyring in it; or the file, if there is something in it.

    One that cannot be looked at is an error, not "no key".
    """
    try:
        if (alone := _version(path)) and alone.is_file:
            return Home(path, (alone,)) if alone.size else None
        keyrings = [_version(f"{path}/{name}") for name in _KEYRING_FILES]
        if not any(version is not None and version.size > 0 for version in keyrings):
            return None
        return Home(path, (*keyrings, *(_version(f"{path}/{name}") for name in _OTHER_FILES)))
    except OSError as error:
        raise KeyringError(f"cannot look into {path}: {error.strerror}; check its owner and mode") from error


def _version(path: str) -> FileVersion | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileVersion(status.st_ino, status.st_size, status.st_mtime_ns, stat.S_ISREG(status.st_mode))


def refuse_damaged(home: str) -> None:
    """Raise KeyringError where there is something in which gpg found no key: it passes over what it cannot read."""
    from sieve_filter import keybox  # a good keyring has no need of it

    for path, content in _contents(home):
        try:
            # What is left where all keys were removed is a file without certificates.
            damaged = bool(keybox.split(content).blobs) if path.endswith(".kbx") else bool(content)
        except ValueError:
            damaged = True
        if damaged:
            raise KeyringError(f"{path} is damaged, for gpg finds no key in it: set the keys up again")


@lru_cache(maxsize=_LISTINGS)
def refuse_not_whole(home: Home) -> None:
    """Raise KeyringError where a keyring is damaged anywhere: there may be the key that gpg did not find."""
    from sieve_filter import certificate, keybox  # an owner's key is found without them

    for path, content in _contents(home.path):
        try:
            if path.endswith(".kbx"):
                keybox.split(content)
            elif content and (problems := certificate.read(content).problems):
                raise ValueError(problems[0])
        except ValueError as error:
            raise KeyringError(f"{path} is damaged ({error}): set the keys in it up again") from error


def _contents(home: str) -> Iterator[tuple[str, bytes]]:
    """The keyring files in a GnuPG home, or the one file that it is, with what is in them."""
    for path in [home] if os.path.isfile(home) else [f"{home}/{name}" for name in _KEYRING_FILES[:2]]:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KeyringError(f"cannot read {path}: {error.strerror}") from error
        yield path, content
