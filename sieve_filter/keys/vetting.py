"""Looks at certificates in a throw-away GnuPG home, before anything of them takes effect."""

import fcntl
import functools
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import EncryptionError, KeyringError, RefusedKeyError, TimedOutError
from sieve_filter.gpg import colons, keybox, keyrings, runner
from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.gpg.keybox import Keybox
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp import encrypted as packets
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.system import pool
from sieve_filter.system.pool import Identity
from sieve_filter.system.signals import at_most

KEYBOX = "pubring.kbx"

# A file system in memory: what is looked at need not touch a disk.
_MEMORY = "/dev/shm"  # noqa: S108 - used by mkdtemp(), and with what belongs to the caller
_PREFIX = "cryptomail-"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # as mkdtemp() makes them

_ELGAMAL = (16, 20)
_BITS_COUNT = {1: "RSA", 2: "RSA", 3: "RSA", 16: "ElGamal", 17: "DSA", 20: "ElGamal"}  # RFC 9580 section 9.1


class Vetted(NamedTuple):
    """A certificate that mail can be encrypted to: GnuPG's view of it, and what to encrypt to.

    `header` and `blob` are what GnuPG made of it for a keyring file (see `keybox`).
    """

    key: Key
    subkey: Subkey
    header: bytes
    blob: bytes


class Revoked(NamedTuple):
    """A certificate that mail cannot be encrypted to, with a revocation that GnuPG found to be its own key's.

    `blob` is as in Vetted; `reason` says in words why nothing can be encrypted to it.
    """

    key: Key
    blob: bytes
    reason: str


Verdict = Vetted | Revoked | str


@contextmanager
def throw_away_home() -> Iterator[Path]:
    """A new GnuPG home, mode 0700, in memory where there is such a place; gone when the block ends, however it does."""
    _sweep_first(os.geteuid())
    while True:
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_top()))
        if (lock := _hold(home)) is not None:
            break
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Take away the homes that killed processes have left: the caller's; as root, also those of a few other users.

    Each goes with its own user's rights, who may have put anything there.
    """
    _sweep()
    if os.geteuid() == 0:
        others = {Identity(status.st_uid, status.st_gid) for _, status in _homes() if status.st_uid != 0}
        chunks = [(one, (None,)) for one in sorted(others)[: limits.SWEPT_USERS]]
        for _ in pool.each(chunks, _sweep, limits.STOP_SECONDS):
            pass


@functools.cache
def _sweep_first(_user: int) -> None:
    """Sweep, the first time in a process of that user's."""
    _sweep()


def _sweep(_: None = None) -> None:
    for home, status in _homes():
        if status.st_uid == os.geteuid() and (lock := _hold(home)) is not None:
            shutil.rmtree(home, ignore_errors=True)
            os.close(lock)


def _homes() -> Iterator[tuple[Path, os.stat_result]]:
    """What may be homes, living ones and others, whosever they are."""
    for home in _top().glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(home.name):
            with suppress(FileNotFoundError):
                status = home.lstat()
                if stat.S_ISDIR(status.st_mode):
                    yield home, status


def _hold(home: Path) -> int | None:
    """The caller's own directory `home`, locked, which says that it is in use; None where another process has it."""
    try:
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(home.lstat(), os.fstat(lock)):
            return lock
    os.close(lock)
    return None


def _top() -> Path:
    return Path(_MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else tempfile.gettempdir())


def vet(certificates: Sequence[Certificate], minimum_bits: int) -> dict[Certificate, Verdict]:
    """Each of `certificates` as GnuPG has it after cleaning, or in words why mail cannot be encrypted to it."""
    verdicts: dict[Certificate, Verdict] = {one: one.problem for one in certificates if one.problem}
    waiting = [one for one in dict.fromkeys(certificates) if not one.problem]
    while waiting:
        # GnuPG would merge two versions of the same certificate.
        batch = {one.fingerprint: one for one in reversed(waiting[: limits.CERTIFICATES_AT_ONCE])}
        verdicts |= _vet_together(batch, minimum_bits)
        waiting = [one for one in waiting if one not in verdicts]
    return verdicts


def judge(key: Key, minimum_bits: int) -> Subkey:
    """The subkey of `key` to encrypt to. Raises RefusedKeyError, which says why there is none."""
    if weakness := weak_primary(key, minimum_bits):
        raise RefusedKeyError(weakness)
    chosen = colons.choose(key, minimum_bits, int(time.time()))
    if isinstance(chosen, str):
        raise RefusedKeyError(f"it {chosen}")
    return chosen


def weak_primary(key: Key, minimum_bits: int) -> str:
    """In words what is weak about the primary key of `key`; empty where nothing is."""
    primary = key.subkeys[0]
    if primary.algorithm in _ELGAMAL:
        return "its primary key is ElGamal, whose signatures are not safe"
    if primary.algorithm in _BITS_COUNT and primary.bits < minimum_bits:
        name = _BITS_COUNT[primary.algorithm]
        return f"its primary key ({name}) has {primary.bits} bits, fewer than the {minimum_bits} of minimum_bits"
    return ""


def try_out(home: Path, subkeys: Sequence[Subkey]) -> None:
    """Encrypt something to all `subkeys`, as a delivery would. Raises EncryptionError."""
    fingerprints = [subkey.fingerprint for subkey in subkeys]
    ciphertext = bytearray()
    runner.encrypt([b"trial\n"], ciphertext.extend, (str(home),), fingerprints, "none")
    encrypted = packets.encrypted_payload(bytes(ciphertext))
    if encrypted is None or sorted(encrypted.key_ids) != sorted(one[-16:] for one in fingerprints):
        raise EncryptionError("gpg did not encrypt to the keys that it was told to")


def _vet_together(batch: Mapping[str, Certificate], minimum_bits: int) -> dict[Certificate, Verdict]:
    try:
        with throw_away_home() as home, at_most(limits.QUARANTINE_SECONDS):
            return _vet_in(home, batch, minimum_bits)
    except (EncryptionError, KeyringError, TimedOutError) as error:
        if len(batch) == 1:
            return {one: str(error) for one in batch.values()}
    # One of them is at fault, and the others must not suffer for it.
    half = len(batch) // 2
    names = list(batch)
    first, second = ({name: batch[name] for name in part} for part in (names[:half], names[half:]))
    return _vet_together(first, minimum_bits) | _vet_together(second, minimum_bits)


def _vet_in(home: Path, batch: Mapping[str, Certificate], minimum_bits: int) -> dict[Certificate, Verdict]:
    imported = keyrings.import_keys(str(home), b"".join(one.packets for one in batch.values()))
    stored: dict[str, Key] = {}
    box = Keybox(b"", {})
    if imported.new:
        stored = {key.fingerprint: key for key in read_listing(home)}
        try:
            box = keybox.split((home / KEYBOX).read_bytes())
        except (OSError, ValueError) as error:
            raise KeyringError(f"gpg does not keep keys in {KEYBOX} here: {error}") from error
    verdicts: dict[Certificate, Verdict] = {}
    for fingerprint, one in batch.items():
        key = stored.get(fingerprint)
        if key is None or fingerprint not in box.blobs:
            why = imported.complaint if len(batch) == 1 else "is there a user ID with its own key's signature?"
            verdicts[one] = f"gpg does not take it: {why}"
            continue
        blob = box.blobs[fingerprint]
        if not certificate.keys(keybox.packets(blob)) <= certificate.keys(one.packets):
            # gpg has others' certificates here, too: none of them may get a key into this one.
            verdicts[one] = "gpg added a key to it"
            continue
        try:
            verdicts[one] = Vetted(key, judge(key, minimum_bits), box.header, blob)
        except RefusedKeyError as error:
            verdicts[one] = Revoked(key, blob, str(error)) if colons.revoked(key) else str(error)
    usable = [verdict.subkey for verdict in verdicts.values() if isinstance(verdict, Vetted)]
    if usable:
        try_out(home, usable)
    return verdicts


def read_listing(home: Path) -> list[Key]:
    """The keys in the GnuPG home `home`. Raises KeyringError."""
    try:
        return colons.parse(keyrings.list_signatures(str(home)))
    except (ValueError, IndexError) as error:
        raise KeyringError(f"cannot read gpg's listing of {home}: {error}") from error
