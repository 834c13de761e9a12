"""Reads an owner's keys that GnuPG cannot: of version 6, or with algorithms that it does not know.

They are in a file of certificates: one beside the keyring of a GnuPG home, or the one that serves as a keyring itself.
Sequoia judges them, and encrypts to them. Deliveries load this module for owners who have such keys, and for no others.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import KeyringError, RefusedKeyError
from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.keys import keyring_file
from sieve_filter.keys.recipients import NEWER, Home
from sieve_filter.openpgp import certificate, newer
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.openpgp.newer import Part
from sieve_filter.openpgp.packets import key_id
from sieve_filter.openpgp.user_id import address_in
from sieve_filter.sequoia import engine
from sieve_filter.sequoia.engine import UnsuitableError

# Files kept in memory, 2 KB for each key of version 6, 50 KB for a post-quantum one.
_FILES = 500


class Newer(NamedTuple):
    """Keys that Sequoia judges, certificates with one encryption subkey each, by its fingerprint, and all of each
    certificate, by its own.
    """

    keys: tuple[Key, ...]
    proofs: Mapping[str, tuple[bytes, ...]]
    certificates: Mapping[str, bytes]


@lru_cache(maxsize=_FILES)
def read(home: Home) -> Newer | None:
    """The keys in the file beside a GnuPG home's keyring; or in a file of certificates, if GnuPG cannot read one there.

    GnuPG gives up such a file as a whole. Raises KeyringError where one is damaged, or Sequoia is not there.
    """
    is_file = len(home.version) == 1
    path = home.path if is_file else f"{home.path}/{NEWER}"
    content = keyring_file.read(path, limits.KEYRING_OCTETS)
    if is_file and not newer.divided(content)[1]:
        return None
    reading = certificate.read(content)
    problems = [text for text in (*reading.problems, *(one.problem for one in reading.certificates)) if text]
    if problems or reading.secret:
        why = problems[0] if problems else "it holds a SECRET key"
        raise KeyringError(f"{path} is damaged ({why}): set the keys in it up again")
    require(path)
    keys: list[Key] = []
    proofs: dict[str, tuple[bytes, ...]] = {}
    for one in reading.certificates:
        key, its = judged(one)
        keys.append(key)
        proofs |= {name: (proof,) for name, proof in its.items()}
    certificates = {one.fingerprint: one.packets for one in reading.certificates}
    return Newer(tuple(keys), MappingProxyType(proofs), MappingProxyType(certificates))


def require(path: str) -> None:
    """Raise KeyringError where Sequoia is not installed."""
    if not engine.installed():
        raise KeyringError(
            f"{path} has keys that GnuPG cannot read, and PySequoia is not installed: make install SEQUOIA=yes"
        )


def judged(one: Certificate) -> tuple[Key, dict[str, bytes]]:
    """A certificate as GnuPG would list it, and a certificate of each subkey that can be encrypted to alone.

    Sequoia has verified all that is told of them: it encrypted something to each. The states are as in GnuPG's listing.
    """
    primary, *subkeys = newer.read(one.packets)
    seen = _seen(one.packets)
    if seen is None:
        states = dict.fromkeys((part.fingerprint for part in subkeys), "i")
        proofs: dict[str, bytes] = {}
        first = _subkey(primary, "i")
    else:
        states = {part.fingerprint: "r" if seen.revoked or part.revoked else _state(part) for part in subkeys}
        proofs = {part.fingerprint: part.alone for part in subkeys if part.encrypts and states[part.fingerprint] == "-"}
        first = _subkey(primary, "r" if seen.revoked else "-")._replace(expires=seen.expires)
    addresses = {address_in(name.encode("utf-8", "replace")) for name in seen.user_ids} if seen else set()
    if seen is None or seen.revoked:  # it still says whose it is
        addresses |= one.addresses
    others = (_subkey(part, states[part.fingerprint]) for part in subkeys)
    return Key(False, (first, *others), frozenset(address for address in addresses if address)), proofs


def merged(stored: bytes, one: Certificate) -> tuple[bytes, Key]:
    """A stored certificate together with another version of it, and how GnuPG would list that.

    Raises RefusedKeyError.
    """
    require(one.fingerprint)
    try:
        old = certificate.is_of(one.packets, stored)
        (both,) = certificate.read(stored if old else engine.merge(stored, one.packets)).certificates
        key, _ = judged(both)
    except (UnsuitableError, ValueError) as error:
        raise RefusedKeyError(f"Sequoia does not put it beside the keys that are there: {error}") from error
    return stored if old else both.packets, key


def _seen(packets: bytes) -> engine.Seen | None:
    """What Sequoia has verified; None where that is no key of anybody's, because it has signed no user ID."""
    try:
        seen = engine.look(packets)
    except UnsuitableError:
        return None
    return seen if seen.user_ids or seen.revoked else None


def _state(part: Part) -> str:
    """Whether something can be encrypted to the subkey, and to nothing else."""
    if not part.encrypts:
        return "-"
    try:
        return "-" if [*map(key_id, engine.recipients_of(part.alone))] == [key_id(part.fingerprint)] else "i"
    except UnsuitableError:
        return "i"


def _subkey(part: Part, state: str) -> Subkey:
    return Subkey(part.fingerprint, state, part.algorithm, part.bits, part.created, part.expires, part.encrypts)
