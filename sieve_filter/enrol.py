"""Puts keys into an owner's keyring, and takes them out, so that a delivery sees the old one or the new one."""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sieve_filter import gpg, keybox, limits, quarantine
from sieve_filter.certificate import Certificate
from sieve_filter.errors import CryptomailError, PlaceError, RefusedKeyError, TimedOutError
from sieve_filter.quarantine import KEYBOX, Vetted
from sieve_filter.timelimit import at_most

_LEGACY = "pubring.gpg"  # GnuPG 2.0 and earlier
_KEYBOXD = "public-keys.d"  # GnuPG 2.3 and later, where somebody asked for it

IMPORTED, RENEWED, UNCHANGED, REFUSED = "imported", "renewed", "unchanged", "refused"


class Order(NamedTuple):
    """What is to be set up for one owner.

    `addresses` are the owner's. `named` says that somebody named this owner: then all of `certificates` are taken or
    none, and another address in them gives a warning; else each is taken for itself, if it has an address of these.
    """

    user: str
    keyring: str
    certificates: tuple[Certificate, ...]
    addresses: frozenset[str]
    named: bool


class Outcome(NamedTuple):
    """What became of one certificate: `status` is one of the four above; `note` says why, or warns."""

    user: str
    keyring: str
    fingerprint: str
    status: str
    note: str


# What the quarantine says of each certificate of an order.
Verdicts = tuple[Vetted | str, ...]


def enrol(orders: Sequence[Order], minimum_bits: int) -> list[Outcome]:
    """Vet the certificates of all `orders`, and put those that are fine in their places. No error of one stops another.

    Runs as the user whose keyrings they are.
    """
    return put(list(zip(orders, vet(orders, minimum_bits), strict=True)), minimum_bits)


def vet(orders: Sequence[Order], minimum_bits: int) -> list[Verdicts]:
    """The verdicts on each of `orders`. Runs as anybody: no keyring is looked at."""
    verdicts = quarantine.vet([one for order in orders for one in order.certificates], minimum_bits)
    return [tuple(verdicts[one] for one in order.certificates) for order in orders]


def put(vetted: Sequence[tuple[Order, Verdicts]], minimum_bits: int) -> list[Outcome]:
    """Put the certificates that are fine in their places. Runs as the user whose keyrings they are."""
    return [outcome for order, verdicts in vetted for outcome in _put_one(order, verdicts, minimum_bits)]


def remove(keyring: str, fingerprint: str) -> int:
    """Take a certificate out of a keyring. Out: how many it still has.

    Raises RefusedKeyError where it is not in there, PlaceError and KeyringError.
    """
    with _locked(Path(keyring), make=False) as directory:
        name, content = _stored(directory, keyring)
        with quarantine.throw_away_home() as home, at_most(limits.QUARANTINE_SECONDS):
            (home / name).write_bytes(content)
            before = quarantine.read_listing(home)
            if fingerprint not in [key.fingerprint for key in before]:
                raise RefusedKeyError(f"there is no key {fingerprint} in {keyring}")
            gpg.delete_key(str(home), fingerprint)
            left = [key.fingerprint for key in quarantine.read_listing(home)]
            if left != [key.fingerprint for key in before if key.fingerprint != fingerprint]:
                raise PlaceError(f"gpg took another key than {fingerprint} out of a copy of {keyring}; nothing is done")
            if left:
                _replace(directory, keyring, name, (home / name).read_bytes())
            else:
                os.unlink(name, dir_fd=directory)
            return len(left)


def clashing(stored: Sequence[str], fingerprint: str) -> str | None:
    """The one of the fingerprints `stored` that has the key ID of `fingerprint` but is another key's, if there is one.

    A version 4 key ID is the last 64 bits of a fingerprint (RFC 9580 section 5.5.4): too few to rely on.
    """
    same = (one for one in stored if one[-16:] == fingerprint[-16:] and one != fingerprint)
    return next(same, None)


def _put_one(order: Order, verdicts: Verdicts, minimum_bits: int) -> Iterator[Outcome]:
    def outcome(fingerprint: str, status: str, note: str) -> Outcome:
        return Outcome(order.user, order.keyring, fingerprint, status, note)

    fine: list[Vetted] = []
    for one, verdict in zip(order.certificates, verdicts, strict=True):
        if isinstance(verdict, Vetted) and (order.named or verdict.key.addresses & order.addresses):
            fine.append(verdict)
        else:
            note = verdict if isinstance(verdict, str) else f"no valid user ID of it has the address {order.user}"
            yield outcome(one.fingerprint, REFUSED, note)
    if order.named and len(fine) < len(order.certificates):
        note = "another certificate that was given with it is refused"
        yield from (outcome(one.key.fingerprint, REFUSED, note) for one in fine)
        return
    if not fine:
        return
    try:
        statuses = _place(order.keyring, fine, minimum_bits)
    except (CryptomailError, OSError) as error:
        why = f"{error.strerror}: {order.keyring}" if isinstance(error, OSError) else str(error)
        yield from (outcome(one.key.fingerprint, REFUSED, why) for one in fine)
        return
    for key in {one.key.fingerprint: one.key for one in fine}.values():
        strange = not key.addresses & order.addresses
        has = ", ".join(sorted(key.addresses)) or "no address"
        note = f"warning: none of its user IDs has an address of this user's; it has {has}" if strange else ""
        yield outcome(key.fingerprint, statuses[key.fingerprint], note)


def _place(keyring: str, vetted: Sequence[Vetted], minimum_bits: int) -> dict[str, str]:
    """Put certificates into a keyring. Out: for each fingerprint, what became of it."""
    with _locked(Path(keyring), make=True) as directory:
        name, content = _stored(directory, keyring)
        blobs = {one.key.fingerprint: one.blob for one in vetted}
        if not content and len(blobs) == len(vetted):
            _refuse_clashes([], vetted)
            _replace(directory, keyring, name, keybox.join(vetted[0].header, blobs.values()))
            return dict.fromkeys(blobs, IMPORTED)
        if name == KEYBOX and content:
            stored = keybox.split(content).blobs
            if all(one in stored and keybox.packets(stored[one]) == keybox.packets(blobs[one]) for one in blobs):
                return dict.fromkeys(blobs, UNCHANGED)
        with quarantine.throw_away_home() as home, at_most(limits.QUARANTINE_SECONDS):
            if content:
                (home / name).write_bytes(content)
            statuses = _merge(home, vetted, minimum_bits)
            if set(statuses.values()) != {UNCHANGED}:
                _replace(directory, keyring, name, (home / name).read_bytes())
            return statuses


def _merge(home: Path, vetted: Sequence[Vetted], minimum_bits: int) -> dict[str, str]:
    """Have gpg import certificates into a copy of a keyring, and see that mail could be encrypted to them there."""
    before = quarantine.read_listing(home)
    _refuse_clashes([subkey.fingerprint for key in before for subkey in key.subkeys], vetted)
    statuses: dict[str, str] = {}
    for one in vetted:
        done = gpg.import_keys(str(home), keybox.packets(one.blob))
        new = done.new.get(one.key.fingerprint)
        if new is None:
            raise RefusedKeyError(f"gpg does not put it beside the keys that are there: {done.complaint}")
        if new or one.key.fingerprint not in statuses:
            changed = RENEWED if one.key.fingerprint in done.changed else UNCHANGED
            statuses[one.key.fingerprint] = IMPORTED if new else changed
    after = {key.fingerprint: key for key in quarantine.read_listing(home)}
    if not {key.fingerprint for key in before} <= after.keys():
        raise RefusedKeyError("gpg lost a key that was there")
    # What is stored already counts too: a key that was revoked once does not come back with an older copy of it.
    quarantine.try_out(home, [quarantine.judge(after[fingerprint], minimum_bits) for fingerprint in statuses])
    return statuses


def _refuse_clashes(stored: Sequence[str], vetted: Sequence[Vetted]) -> None:
    known = list(stored)
    for one in vetted:
        for subkey in one.key.subkeys:
            if other := clashing(known, subkey.fingerprint):
                raise RefusedKeyError(f"it has the same key ID as {other}, which is another key")
        known += [subkey.fingerprint for subkey in one.key.subkeys]


@contextmanager
def _locked(keyring: Path, make: bool) -> Iterator[int]:
    """The directory `keyring`, made if asked for, as a descriptor; nobody else changes it with this program meanwhile.

    The lock is on the directory itself: it needs no file of its own, which would stay behind.
    """
    try:
        if make:
            keyring.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(keyring, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise RefusedKeyError(f"there is no keyring {keyring}") from None
    except OSError as error:
        link = "it is a link, not a directory" if keyring.is_symlink() else error.strerror
        raise PlaceError(f"cannot use {keyring} as a keyring: {link}; check who owns it and what it is in") from error
    try:
        if os.fstat(directory).st_uid != os.geteuid():
            raise PlaceError(f"{keyring} does not belong to the user who owns the home directory: change its owner")
        try:
            with at_most(limits.QUARANTINE_SECONDS):
                fcntl.flock(directory, fcntl.LOCK_EX)
        except TimedOutError:
            raise PlaceError(f"another cryptomail is at work on {keyring}: try again later") from None
        yield directory
    finally:
        os.close(directory)


def _stored(directory: int, keyring: str) -> tuple[str, bytes]:
    """The name and the content of the keyring file that gpg uses in there; the content is empty if it has no keys."""
    if _KEYBOXD in os.listdir(directory):
        raise PlaceError(f"{keyring} is kept by keyboxd: use gpg itself, or a keyring without it")
    content = _read(directory, KEYBOX)
    if content:
        try:
            if keybox.split(content).blobs:
                return KEYBOX, content
        except ValueError as error:
            raise PlaceError(f"cannot read {keyring}/{KEYBOX}: {error}") from error
    if legacy := _read(directory, _LEGACY):
        return _LEGACY, legacy
    return KEYBOX, b""


def _read(directory: int, name: str) -> bytes:
    # Without O_NONBLOCK, opening a pipe that somebody put there would wait for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        return b""
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PlaceError(f"{name} in the keyring is not a file")
        content = file.read(limits.KEYRING_OCTETS + 1)
    if len(content) > limits.KEYRING_OCTETS:
        raise PlaceError(f"{name} in the keyring is larger than {limits.KEYRING_OCTETS} octets")
    return content


def _replace(directory: int, keyring: str, name: str, content: bytes) -> None:
    """Write the keyring file beside the old one, and give it the old one's name: a reader sees the one or the other."""
    fresh = f"{name}.cryptomail"

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NOFOLLOW, mode=0o600, dir_fd=directory)

    try:
        with open(fresh, "wb", opener=opener) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        raise PlaceError(f"cannot write to {keyring}: {error.strerror}; nothing in it has changed") from error
