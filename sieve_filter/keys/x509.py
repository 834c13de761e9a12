"""Reads an owner's S/MIME certificates: deliveries load it for owners who have some, and for no others."""

from collections.abc import Iterable
from functools import lru_cache

from sieve_filter import limits
from sieve_filter.errors import KeyringError
from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.keys import keyring_file
from sieve_filter.keys.recipients import Found, Holding, Home
from sieve_filter.smime import certificate, recipients
from sieve_filter.smime.certificate import X509

# Files kept in memory, some 4 KB each.
_FILES = 2_000


@lru_cache(maxsize=_FILES)
def read(home: Home) -> Holding:
    """The certificates in a file. Raises KeyringError where it cannot be read, or there is anything else in it."""
    content = keyring_file.read(home.path, limits.X509_FILE_OCTETS)
    reading = certificate.read(content)
    if reading.secret:
        raise KeyringError(f"{home.path} holds a SECRET key: take it away, and set up a new certificate")
    if reading.problems:
        raise KeyringError(f"{home.path} is damaged ({reading.problems[0]}): set the certificates in it up again")
    return _holding(home, reading.certificates)


def named(certificates: Iterable[X509]) -> Found:
    """These certificates, as if a message named them."""
    return Found("", (_holding(Home("", ()), tuple(certificates)),), named=True)


def key_ids(holding: Holding) -> frozenset[str]:
    """The IDs by which messages name the certificates in it: see `recipients` of *smime*."""
    ders = (holding.certificates or {}).values()
    return frozenset(recipients.key_id(certificate.parse(one).issuer_and_serial) for one in ders)


def key(one: X509) -> Key:
    """A certificate as the one key that it is."""
    subkey = Subkey(one.fingerprint, "-", one.algorithm, one.bits, one.begins, one.expires, one.encrypts)
    return Key(disabled=False, subkeys=(subkey,), addresses=one.addresses)


def _holding(home: Home, certificates: tuple[X509, ...]) -> Holding:
    return Holding(home, tuple(map(key, certificates)), certificates={one.fingerprint: one.der for one in certificates})
