"""Looks at the keyrings that deliveries read, as the user whose mail files they stand beside."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter import certificate, gpg, keyring, keystore, limits, quarantine
from sieve_filter.errors import CryptomailError, KeyringError
from sieve_filter.keyring import Keyrings
from sieve_filter.owner import Owner
from sieve_filter.timelimit import at_most


class Found(NamedTuple):
    """What a delivery to `user` finds.

    `home` is the GnuPG home whose keys count, empty where there is none; `shared` whether it holds other people's keys
    too; `listing` gpg's records; `notes` what is wrong with its files; `error` why it cannot be read.
    """

    user: str
    addresses: frozenset[str]
    home: str = ""
    shared: bool = False
    listing: bytes = b""
    notes: tuple[str, ...] = ()
    error: str = ""


def look(owners: Sequence[Owner], keyrings: Keyrings) -> list[Found]:
    """What deliveries to each of `owners` find."""
    return [_look(owner, keyrings) for owner in owners]


def export(owners: Sequence[Owner], keyrings: Keyrings) -> list[dict[str, bytes]]:
    """The certificates in the keyring of each of `owners`, by fingerprint. Raises KeyringError."""
    return [_export(owner, keyrings) for owner in owners]


def enrolled(owners: Sequence[Owner], keyrings: Keyrings) -> list[frozenset[str] | str]:
    """The fingerprints in the keyring of each of `owners`; in words why it cannot be read, where it cannot."""
    return [_enrolled(owner, keyrings) for owner in owners]


def _enrolled(owner: Owner, keyrings: Keyrings) -> frozenset[str] | str:
    try:
        return frozenset(_export(owner, keyrings))
    except CryptomailError as error:
        return str(error)


def try_out(owner: Owner, keyrings: Keyrings, accept_expired: bool) -> tuple[str, ...]:
    """Encrypt something as a delivery would. Out: the fingerprints of the subkeys that it went to; none without a key.

    `accept_expired`: see `keyring.find`. Raises what a delivery would.
    """
    with at_most(limits.QUARANTINE_SECONDS):
        recipients = keyring.find(owner, keyrings, accept_expired=accept_expired)
        if recipients is None:
            return ()
        moment = recipients.expired_after
        gpg.encrypt([b"trial\n"], lambda _: None, recipients.homes, recipients.fingerprints, "none", moment)
    return recipients.fingerprints


def _look(owner: Owner, keyrings: Keyrings) -> Found:
    found = Found(owner.user, owner.addresses)
    try:
        for templates, shared in ((keyrings.owner, False), (keyrings.shared, True)):
            for home in keyring.existing(templates, owner):
                found = found._replace(home=home.path, shared=shared)
                with at_most(limits.QUARANTINE_SECONDS):
                    colons = keystore.list_signatures(home.path)
                if shared:
                    keyring.refuse_not_whole(home)
                if b"\npub:" in b"\n" + colons:
                    return found._replace(listing=colons, notes=_notes(Path(home.path)))
                keyring.refuse_damaged(home.path)
    except CryptomailError as error:
        return found._replace(error=str(error))
    return found._replace(home="", shared=False)


def _export(owner: Owner, keyrings: Keyrings) -> dict[str, bytes]:
    for home in keyring.existing(keyrings.owner, owner):
        with at_most(limits.QUARANTINE_SECONDS):
            reading = certificate.read(keystore.export_keys(home.path))
        if reading.problems and reading.certificates:
            raise KeyringError(f"cannot read what gpg exports from {home.path}: {reading.problems[0]}")
        if reading.certificates:
            return {one.fingerprint: one.packets for one in reading.certificates}
    return {}


def _notes(home: Path) -> tuple[str, ...]:
    """What lets somebody else put keys into the keyring."""
    notes = []
    names = (quarantine.KEYBOX, "pubring.gpg", f"{gpg.KEYBOXD}/pubring.db")
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
