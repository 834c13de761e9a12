"""Looks at the keyrings that deliveries read, as the user who owns the mail files beside them."""

import stat
import time
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.delivery import pipeline
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.detection import classify
from sieve_filter.errors import KeyringError
from sieve_filter.gpg import keybox, runner
from sieve_filter.gpg import keyrings as keystore
from sieve_filter.keys import find
from sieve_filter.keys import status as keyreport
from sieve_filter.keys.decision import Decision, decide
from sieve_filter.keys.recipients import NEWER, Found
from sieve_filter.keys.status import OwnerState
from sieve_filter.mail.message import split
from sieve_filter.openpgp import certificate
from sieve_filter.owners import register
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Keyrings, Options, Settings
from sieve_filter.smime import certificate as x509
from sieve_filter.system.signals import at_most


class Survey(NamedTuple):
    """What a delivery to an owner finds, what it decides, and how that is judged."""

    found: Found
    decision: Decision
    state: OwnerState


def look(owner: Owner, settings: Settings, warn_days: int) -> OwnerState:
    """How it is with the keys of `owner`; `warn_days` says how soon is soon. Raises as `survey` does."""
    return survey(owner, settings, warn_days).state


def survey(owner: Owner, settings: Settings, warn_days: int) -> Survey:
    """What a delivery to `owner` finds. Raises CryptomailError where that cannot be read."""
    settings = pipeline.for_owner(owner, settings, lambda _: None).settings
    with at_most(limits.QUARANTINE_SECONDS):
        found = pipeline.find_keys(owner, settings, signatures=True)
    now, rules = int(time.time()), pipeline.rules(settings, Options())
    decision = decide(found, rules, now)
    notes = [note for holding in found.holdings for note in _notes(Path(holding.home.path))]
    state = keyreport.judge(found, decision, notes, keyreport.Rules(rules.minimum_bits, warn_days, now))
    return Survey(found, decision, state)


def enrolled(owner: Owner, keyrings: Keyrings) -> frozenset[str]:
    """The fingerprints in the keyring of `owner`. Raises KeyringError."""
    return frozenset(export(owner, keyrings))


def note(owner: Owner, settings: Settings) -> bool:
    """Note outside the home that mail for `owner` is encrypted, or was before keys had to be known for theirs.

    Returns whether it is, or was. Raises CryptomailError.
    """
    with at_most(limits.QUARANTINE_SECONDS):
        found = find.find(owner, settings.keyrings)
    if found.holdings or found.strangers:
        register.note(settings.register, owner.user)
        return True
    return False


class Trial(NamedTuple):
    """What a message was encrypted to: the fingerprints of the subkeys, and how messages name these. Else `why` not."""

    fingerprints: tuple[str, ...]
    key_ids: tuple[str, ...]
    why: str


def try_out(owner: Owner, settings: Settings) -> Trial:
    """Encrypt a message as deliveries do.

    By the engine of the worker, and by that of a program for one message. Raises what a delivery would.
    """
    environment = {"USER": owner.user, "HOME": owner.home}
    with at_most(limits.QUARANTINE_SECONDS):
        for lasting in (True, False):
            incoming = Incoming(split(b"Subject: trial\r\n\r\ntrial\r\n"), True, ())
            engines = Engines(lambda _: None, lasting=lasting)
            delivery = pipeline.encrypt_for_owner(
                incoming, Options(), environment, settings._replace(size_limit=0), engines
            )
    if not delivery.encrypted:
        return Trial((), (), delivery.reason)
    return Trial(tuple(delivery.fingerprints), classify.classify(split(b"".join(delivery.pieces))).key_ids, "")


def export(owner: Owner, keyrings: Keyrings) -> dict[str, bytes]:
    """The OpenPGP certificates in the keyring of `owner`, by fingerprint. Raises KeyringError."""
    with at_most(limits.QUARANTINE_SECONDS):
        found = find.find(owner, keyrings._replace(shared=(), certificates=()))
        exported: dict[str, bytes] = {}
        for holding in found.holdings:
            newer = find.newer_keys(holding.home)
            if newer is None or len(newer.keys) < len(holding.keys):  # else GnuPG has none of them
                reading = certificate.read(keystore.export_keys(holding.home.path))
                if reading.problems:
                    raise KeyringError(f"cannot read what gpg exports from {holding.home.path}: {reading.problems[0]}")
                exported |= {one.fingerprint: one.packets for one in reading.certificates}
            exported |= newer.certificates if newer else {}
    return exported


def export_smime(owner: Owner, keyrings: Keyrings) -> bytes:
    """The S/MIME certificates of `owner` as PEM; empty where there are none. Raises KeyringError."""
    found = find.find_certificates(owner, keyrings)
    ders = [one for holding in found.holdings for one in (holding.certificates or {}).values()] if found else []
    return x509.pem(ders)


def _notes(home: Path) -> tuple[str, ...]:
    """What lets somebody else put keys into the keyring."""
    notes = []
    names = (keybox.NAME, "pubring.gpg", f"{runner.KEYBOXD}/pubring.db", NEWER)
    others = [home.parent] if home.is_file() else [home / name for name in names]
    for path in (home, *others):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KeyringError(f"cannot look at {path}: {error.strerror}") from error
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            notes.append(f"others may write to {path}: chmod go-w it")
    return tuple(notes)
