"""Finds the keyring that counts for an owner, and the keys in it: the only module that knows which one that is."""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sieve_filter import limits
from sieve_filter.errors import KeyringError, NoKeyError, UsageError
from sieve_filter.gpg import colons, runner
from sieve_filter.gpg.colons import Key
from sieve_filter.keys import reading, usable
from sieve_filter.keys.recipients import NEWER, FileVersion, Found, Holding, Home
from sieve_filter.owners.owner import Owner, expand
from sieve_filter.policy.settings import SMIME, Keyrings

if TYPE_CHECKING:
    from sieve_filter.keys.newer import Newer

# A keyring of GnuPG 2.1 and later, of 2.0 and earlier, and of keyboxd (2.3 and later).
_KEYRING_FILES = ("pubring.kbx", "pubring.gpg", f"{runner.KEYBOXD}/pubring.db")
# What else a listing depends on: what keyboxd has not put into its file yet, which keys are disabled, and whether
# keyboxd has them. The last has keys that GnuPG cannot read: see `newer`.
_OTHER_FILES = (f"{runner.KEYBOXD}/pubring.db-wal", "trustdb.gpg", "common.conf", NEWER)

# Listings kept in memory, some 2 KB each.
_LISTINGS = 2_000

# A whole fingerprint, v4 or v6. A key ID is not enough: somebody else's key can be made to have the same one.
# This and what follows is compiled where it is used: most deliveries have no need of it.
_FINGERPRINT = r"[0-9A-F]{40}|[0-9A-F]{64}"
_GRIP = r"[0-9A-F]{40}"
_ADDRESS = r"[^\s<>@:]+@[^\s<>@:]+"


def parse_wanted(text: str) -> str:
    """A key as somebody names it: a full fingerprint (upper case out) or an address (lower case out).

    Raises UsageError for anything else.
    """
    fingerprint = text.replace(" ", "").upper().removeprefix("0X")
    if re.fullmatch(_FINGERPRINT, fingerprint):
        return fingerprint
    if re.fullmatch(_ADDRESS, text):
        return text.lower()
    raise UsageError(f"--key {text!r} is neither a full fingerprint (40 or 64 hexadecimal digits) nor an address")


def find(
    owner: Owner, keyrings: Keyrings, wanted: Sequence[str] = (), *, signatures: bool = False, listed: bool = True
) -> Found:
    """The keys of `owner` that count, in the one keyring that counts, or in the file of S/MIME certificates; or those
    `wanted` (see `parse_wanted`) from the owner's keyrings, and no others. Whether they may be encrypted to is another
    matter: see `decision`.

    With `signatures`, each holding has gpg's listing. Unless they have to be `listed` by gpg, this process may read the
    owner's own keyring: see `reading`. Raises NoKeyError where a wanted key is missing, KeyringError
    where a keyring cannot be read.
    """
    if wanted:
        homes = existing(keyrings.owner, owner)
        shared = existing(keyrings.shared, owner)
        return Found(owner.user, tuple(_find_wanted(one, homes, shared) for one in wanted), named=True)
    if keyrings.prefer == SMIME and (certificates := find_certificates(owner, keyrings)):
        return certificates
    found = _find_openpgp(owner, keyrings, signatures, listed)
    if found.holdings or not (certificates := find_certificates(owner, keyrings)):
        return found
    return found._replace(holdings=certificates.holdings)


def find_certificates(owner: Owner, keyrings: Keyrings) -> Found | None:
    """The S/MIME certificates of `owner`, whether they count or not; None where there is no file of them.

    Raises KeyringError where it cannot be read.
    """
    for template in keyrings.certificates:
        path = expand(template, owner)
        try:
            version = _version(path)
        except OSError as error:
            raise KeyringError(f"cannot look at {path}: {error.strerror}; check its owner and mode") from error
        if version is not None:
            from sieve_filter.keys import x509  # most owners have none

            return Found(owner.user, (x509.read(Home(path, (version,))),), path)
    return None


def _find_openpgp(owner: Owner, keyrings: Keyrings, signatures: bool, listed: bool) -> Found:
    place = expand(keyrings.owner[0], owner) if keyrings.owner else "a keyring"
    for home in existing(keyrings.owner, owner):
        if (holding := _all(home, signatures, listed)).keys:
            return Found(owner.user, (holding,), place)
        refuse_damaged(home.path)
    strangers: list[Holding] = []
    for home in existing(keyrings.shared, owner):
        holding, others = _own(_list_owned(home, owner, signatures))
        strangers += [others] if others.keys else []
        if holding.keys:
            return Found(owner.user, (holding,), place, strangers=tuple(strangers))
        refuse_not_whole(home)
    return Found(owner.user, (), place, strangers=tuple(strangers))


def find_in_file(path: str, *, listed: bool = True) -> Found:
    """The keys in a file of binary certificates, as if the message named them; for `listed` see `find`.

    Raises NoKeyError, KeyringError.
    """
    home = _home(path)
    if home is None or not (holding := _all(home, listed=listed)).keys:
        raise NoKeyError(f"there is no key in {path}")
    return Found("", (holding,), named=True)


def remembered() -> tuple[int, int]:
    """How often, in this process, a keyring that was looked for was in memory, and how often it was not."""
    caches = reading.read.cache_info(), _list.cache_info()
    return sum(one.hits for one in caches), sum(one.misses for one in caches)


def _find_wanted(wanted: str, homes: Sequence[Home], shared: Sequence[Home]) -> Holding:
    for home in (*homes, *shared):
        holding = _list_matching(home, [wanted], newer_keys(home) if home in homes else None)
        if home in shared and len(holding.keys) > 1:
            # Nobody who has another key with that address imported gets what is meant for the first.
            holding, _ = _own(holding)
            if not holding.keys:
                raise NoKeyError(f"several keys in {home.path} have the address {wanted}: name a fingerprint")
        if holding.keys:
            return holding
    places = " or ".join(home.path for home in (*homes, *shared)) or "the owner's keyrings: there are none"
    raise NoKeyError(f"no key {wanted} in {places}: import it there")


def _own(holding: Holding) -> tuple[Holding, Holding]:
    """The keys of a shared keyring that are of who owns it, and the others: see `usable.own`.

    Into a file of certificates, no program puts what strangers send: all in there count.
    """
    if len(holding.home.version) == 1:
        return holding, holding._replace(keys=())
    own: list[Key] = []
    others: list[Key] = []
    for key in holding.keys:
        secrets = () if key.ultimate else _secrets(holding.home.path, [subkey.grip for subkey in key.subkeys])
        theirs = usable.own(key, secrets)
        if theirs is None:
            others.append(key)
        else:
            own.append(theirs)
    return holding._replace(keys=tuple(own)), holding._replace(keys=tuple(others))


def unchanged_since(holdings: Sequence[Holding], moment: int) -> bool:
    """Whether one of these keyrings is as it was then, in nanoseconds since 1970: its keys were there."""
    return any(
        all(version is None or version.changed < moment for version in one.home.version[: len(_KEYRING_FILES)])
        for one in holdings
    )


def _secrets(home: str, grips: Sequence[str]) -> list[str]:
    """Those of the grips whose secret keys GnuPG has there; gpg itself would start an agent to find out."""
    try:
        files = {grip: _version(f"{home}/private-keys-v1.d/{grip}.key") for grip in grips if re.fullmatch(_GRIP, grip)}
    except OSError as error:
        raise KeyringError(f"cannot look into {home}/private-keys-v1.d: {error.strerror}") from error
    return [grip for grip, version in files.items() if version is not None and version.is_file and version.size > 0]


def _all(home: Home, signatures: bool = False, listed: bool = True) -> Holding:
    beside = newer_keys(home)
    if beside is not None and not _has_keyring(home):
        return _beside(Holding(home, ()), beside)
    holding = (None if listed else reading.read(home)) or _list(home, (), signatures)
    if beside is not None and not holding.keys:
        refuse_damaged(home.path)
    return _beside(holding, beside)


def newer_keys(home: Home) -> "Newer | None":
    """What of a keyring of the owner's Sequoia judges, because GnuPG cannot; None where there is nothing.

    Raises KeyringError.
    """
    if len(home.version) > 1 and home.version[-1] is None:
        return None
    from sieve_filter.keys import newer  # hardly any owner has some

    return newer.read(home)


def _beside(holding: Holding, beside: "Newer | None") -> Holding:
    """What GnuPG has, and those keys besides."""
    if beside is None:
        return holding
    others = {key.fingerprint for key in beside.keys}
    keys = (*(key for key in holding.keys if key.fingerprint not in others), *beside.keys)
    return holding._replace(keys=keys, newer=beside.proofs)


def _has_keyring(home: Home) -> bool:
    """Whether there is anything that GnuPG may read in a GnuPG home."""
    return len(home.version) > 1 and any(home.version[: len(_KEYRING_FILES)])


@lru_cache(maxsize=_LISTINGS)
def _list(home: Home, patterns: tuple[str, ...] = (), signatures: bool = False) -> Holding:
    try:
        listing = runner.list_keys(home.path, patterns, signatures=signatures)
        return Holding(home, tuple(colons.parse(listing)), listing if signatures else b"")
    except (ValueError, IndexError) as error:
        raise KeyringError(f"cannot read gpg's listing of {home.path}: {error}") from error


def _list_matching(home: Home, wanted: Sequence[str], beside: "Newer | None" = None) -> Holding:
    """The keys in `home`, and `beside` them, with a wanted fingerprint or address. gpg narrows the search; the
    comparison is ours.
    """
    if not wanted:
        return Holding(home, ())
    listed = beside is None or _has_keyring(home)
    patterns = tuple(f"<{one}>" if "@" in one else one for one in wanted)
    holding = _beside(_list(home, patterns) if listed else Holding(home, ()), beside)
    named = set(wanted)
    return holding._replace(
        keys=tuple(key for key in holding.keys if key.addresses & named or key.fingerprint in named)
    )


def _list_owned(home: Home, owner: Owner, signatures: bool) -> Holding:
    """The keys in `home` with an address of that owner's. gpg narrows the search here, too."""
    patterns = [f"<{one}>" for one in sorted(owner.addresses)] + ([f"@{owner.anywhere}@"] if owner.anywhere else [])
    holding = _list(home, tuple(patterns), signatures)
    return holding._replace(keys=tuple(key for key in holding.keys if any(map(owner.has, key.addresses))))


def existing(templates: Sequence[str], owner: Owner) -> list[Home]:
    """Those of the GnuPG homes `templates` that hold a keyring of `owner`. Raises KeyringError."""
    homes = (_home(expand(template, owner)) for template in templates)
    return [home for home in homes if home is not None]


def _home(path: str) -> Home | None:
    """The GnuPG home at `path`, if there is a keyring in it; or the file.

    One that cannot be looked at is an error, not "no key".
    """
    try:
        if (alone := _version(path, or_directory=True)) and alone.is_file:
            return Home(path, (alone,))
        keyrings = [_version(f"{path}/{name}") for name in _KEYRING_FILES]
        there = [(version, name) for version, name in zip(keyrings, _KEYRING_FILES, strict=True) if version is not None]
        others = [_version(f"{path}/{name}") for name in _OTHER_FILES]
        if others[-1] is None and all(_is_nothing(version, f"{path}/{name}", path) for version, name in there):
            return None
        return Home(path, (*keyrings, *others))
    except OSError as error:
        raise KeyringError(f"cannot look into {path}: {error.strerror}; check its owner and mode") from error


def _version(path: str, or_directory: bool = False) -> FileVersion | None:
    """What a file shows, or a directory. Raises KeyringError where it is neither: gpg would wait for a pipe."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not (stat.S_ISREG(status.st_mode) or (or_directory and stat.S_ISDIR(status.st_mode))):
        raise KeyringError(f"{path} is not a file: take it away")
    return FileVersion(status.st_ino, status.st_size, status.st_mtime_ns, stat.S_ISREG(status.st_mode))


def refuse_damaged(home: str) -> None:
    """Raise KeyringError where there is something in which gpg found no key: it passes over what it cannot read."""
    from sieve_filter.gpg import keybox  # a good keyring has no need of it

    for path, content in _contents(home, limits.KEYRING_OCTETS):
        try:
            if not content:
                damaged = not _may_be_empty(path, home)
            else:  # what is left where all keys were removed is a keybox with nothing but its header
                damaged = not path.endswith(".kbx") or bool(keybox.split(content).blobs)
        except ValueError:
            damaged = True
        if damaged:
            raise KeyringError(f"{path} is damaged, because gpg finds no key in it: set the keys up again")


@lru_cache(maxsize=_LISTINGS)
def refuse_not_whole(home: Home) -> None:
    """Raise KeyringError where a keyring is damaged anywhere: there may be the key that gpg did not find."""
    from sieve_filter.gpg import keybox
    from sieve_filter.openpgp import certificate  # an owner's key is found without them

    for path, content in _contents(home.path, limits.SHARED_KEYRING_OCTETS):
        try:
            if not content and not _may_be_empty(path, home.path):
                raise ValueError("it is empty")
            if path.endswith(".kbx"):
                keybox.split(content)
            elif content and (problems := certificate.read(content).problems):
                raise ValueError(problems[0])
        except ValueError as error:
            raise KeyringError(f"{path} is damaged ({error}): set the keys in it up again") from error


def _is_nothing(version: FileVersion, path: str, home: str) -> bool:
    return version.size == 0 and _may_be_empty(path, home)


def _may_be_empty(path: str, home: str) -> bool:
    """Whether GnuPG leaves such a file without an octet where keys are none, as 2.0 did a pubring.gpg.

    Any other was lost: a disk was full, or a copy broke off.
    """
    return path != home and not path.endswith(".kbx")


def _contents(home: str, most: int) -> Iterator[tuple[str, bytes]]:
    """The keyring files in a GnuPG home, or the one file that it is, with what is in them: `most` octets each."""
    from sieve_filter.keys import keyring_file  # deliveries have no need of it

    for path in [home] if os.path.isfile(home) else [f"{home}/{name}" for name in _KEYRING_FILES[:2]]:
        if (content := keyring_file.read_if_there(path, most)) is not None:
            yield path, content
