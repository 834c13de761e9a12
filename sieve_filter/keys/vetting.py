"""Looks at certificates in a throw-away GnuPG home, before anything of them takes effect."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import EncryptionError, KeyringError, RefusedKeyError, TimedOutError
from sieve_filter.gpg import colons, keybox, keyrings, runner, temporary_home
from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.gpg.keybox import Keybox
from sieve_filter.keys import usable
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp import encrypted as packets
from sieve_filter.openpgp import newer as newer_packets
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.openpgp.packets import key_fingerprints, key_id
from sieve_filter.system.signals import at_most

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

    `packets` are what GnuPG made of it; `reason` says in words why nothing can be encrypted to it.
    """

    key: Key
    packets: bytes
    reason: str


class Newer(NamedTuple):
    """A certificate that GnuPG cannot read, and that mail can be encrypted to: as GnuPG would list it, and to what."""

    key: Key
    subkey: Subkey


Verdict = Vetted | Newer | Revoked | str


def vet(certificates: Sequence[Certificate], minimum_bits: int) -> dict[Certificate, Verdict]:
    """Each of `certificates` as GnuPG has it after cleaning, or in words why mail cannot be encrypted to it.

    Those that GnuPG cannot read, Sequoia judges.
    """
    verdicts: dict[Certificate, Verdict] = {one: one.problem for one in certificates if one.problem}
    for one in certificates:
        if one not in verdicts and _is_newer(one):
            verdicts[one] = _vet_newer(one, minimum_bits)
    waiting = [one for one in dict.fromkeys(certificates) if one not in verdicts]
    while waiting:
        # GnuPG would merge two versions of the same certificate.
        batch = {one.fingerprint: one for one in reversed(waiting[: limits.CERTIFICATES_AT_ONCE])}
        verdicts |= _vet_together(batch, minimum_bits)
        waiting = [one for one in waiting if one not in verdicts]
    return verdicts


def believed(one: Certificate, verdict: Verdict) -> Verdict:
    """`verdict`, if it can be one on `one`; else in words that it is not.

    Who vets looks at octets of anybody's, so the process may have fallen to them. Where it answers with anything that
    is not in the certificate that was given, nothing of the answer counts. That signatures are good is its word alone.
    """
    if isinstance(verdict, str) or _fits(one, verdict):
        return verdict
    return "what looked at it answered with something that is not in it"


def _fits(one: Certificate, verdict: Vetted | Newer | Revoked) -> bool:
    subkeys = verdict.key.subkeys
    try:
        packets = one.packets
        if isinstance(verdict, Vetted):
            packets = keybox.only(verdict.header, verdict.blob)
        elif isinstance(verdict, Revoked):
            packets = verdict.packets
        return (
            certificate.is_of(packets, one.packets)
            and {subkey.fingerprint for subkey in subkeys} == key_fingerprints(packets)
            and subkeys[0].fingerprint == one.fingerprint
            and verdict.key.addresses <= one.addresses
            and (isinstance(verdict, Revoked) or verdict.subkey in subkeys)
        )
    except ValueError:
        return False


def _is_newer(one: Certificate) -> bool:
    try:
        return newer_packets.is_newer(one.packets)
    except ValueError:
        return False  # GnuPG will say what is wrong with it


def _vet_newer(one: Certificate, minimum_bits: int) -> Verdict:
    from sieve_filter.keys import newer  # hardly any certificate needs it

    try:
        with at_most(limits.QUARANTINE_SECONDS):
            newer.require("what was given")
            key, _ = newer.judged(one)
    except (KeyringError, TimedOutError, ValueError) as error:
        return str(error)
    try:
        return Newer(key, judge(key, minimum_bits))
    except RefusedKeyError as error:
        return Revoked(key, one.packets, str(error)) if usable.revoked(key) else str(error)


def judge(key: Key, minimum_bits: int) -> Subkey:
    """The subkey of `key` to encrypt to. Raises RefusedKeyError, which says why there is none."""
    if weakness := weak_primary(key, minimum_bits):
        raise RefusedKeyError(weakness)
    chosen = usable.choose(key, minimum_bits, int(time.time()))
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
    encrypted = packets.encrypted_message(bytes(ciphertext))
    if encrypted is None or sorted(encrypted.key_ids) != sorted(map(key_id, fingerprints)):
        raise EncryptionError("gpg did not encrypt to the keys that it was told to")


def _vet_together(batch: Mapping[str, Certificate], minimum_bits: int) -> dict[Certificate, Verdict]:
    try:
        with temporary_home.made() as home, at_most(limits.QUARANTINE_SECONDS):
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
    imported = keyrings.import_keys(str(home), b"".join(one.packets for one in batch.values()), listed=True)
    listed = {key.fingerprint: key for key in _parsed(imported.listing, home)}
    box = Keybox(b"", {})
    if imported.new:
        try:
            box = keybox.split((home / keybox.NAME).read_bytes())
        except (OSError, ValueError) as error:
            raise KeyringError(f"gpg does not keep keys in {keybox.NAME} here: {error}") from error
    verdicts: dict[Certificate, Verdict] = {}
    for fingerprint, one in batch.items():
        key = listed.get(fingerprint)
        if key is None or fingerprint not in box.blobs:
            why = imported.complaint if len(batch) == 1 else "is there a user ID with its own key's signature?"
            verdicts[one] = f"gpg does not take it: {why}"
            continue
        blob = box.blobs[fingerprint]
        stored = keybox.packets(blob)
        if not key_fingerprints(stored) <= key_fingerprints(one.packets):
            # gpg has others' certificates here, too: none of them may get a key into this one.
            verdicts[one] = "gpg added a key to it"
            continue
        try:
            verdicts[one] = Vetted(key, judge(key, minimum_bits), box.header, blob)
        except RefusedKeyError as error:
            verdicts[one] = Revoked(key, stored, str(error)) if usable.revoked(key) else str(error)
    chosen = [verdict.subkey for verdict in verdicts.values() if isinstance(verdict, Vetted)]
    if chosen:
        try_out(home, chosen)
    return verdicts


def read_listing(home: Path) -> list[Key]:
    """The keys in the GnuPG home `home`. Raises KeyringError."""
    return _parsed(runner.list_keys(str(home)), home)


def _parsed(listing: bytes, home: Path) -> list[Key]:
    try:
        return colons.parse(listing)
    except (ValueError, IndexError) as error:
        raise KeyringError(f"cannot read gpg's listing of {home}: {error}") from error
