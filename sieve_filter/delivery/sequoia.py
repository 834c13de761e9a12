"""Encrypts in this process, by PySequoia: the only module that knows it. GnuPG stays the keeper of the keys."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sieve_filter.errors import CryptomailError, EncryptionError
from sieve_filter.gpg import runner
from sieve_filter.keys.recipients import Recipients
from sieve_filter.openpgp.encrypted import encrypted_message

if TYPE_CHECKING:
    from pysequoia import Cert

# Certificates kept in memory, some 3 KB each.
_CERTIFICATES = 2_000


class UnsuitableError(Exception):
    """Sequoia cannot encrypt to these keys; GnuPG may."""


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether PySequoia is there."""
    from importlib.util import find_spec  # programs that only use GnuPG do without

    return find_spec("pysequoia") is not None


def encrypt(source: Iterable[bytes], recipients: Recipients) -> bytes:
    """`source` encrypted to exactly the subkeys of `recipients`, in binary and not compressed.

    `recipients` come fresh from GnuPG's listing or `reading`: PySequoia would encrypt to an expired key. Raises
    UnsuitableError before `source` is read, EncryptionError where it fails later, KeyringError where a key cannot be
    got from GnuPG.
    """
    certificates = _certificates(recipients)
    from pysequoia import encrypt as encrypt_to

    plain = b"".join(source)
    try:
        return encrypt_to(plain, certificates, armor=False)
    except (CryptomailError, MemoryError):  # the time is over, say
        raise
    except Exception as error:  # PySequoia raises nothing more special
        raise EncryptionError(f"Sequoia could not encrypt: {type(error).__name__}") from error


@lru_cache(maxsize=_CERTIFICATES)
def _certificates(recipients: Recipients) -> "Sequence[Cert]":
    """The certificates, each with no other subkey than the one to encrypt to.

    Each proof (see `plain`) has to serve by itself: so PySequoia verifies every signature in it.
    """
    from pysequoia import Cert
    from pysequoia import encrypt as encrypt_to

    try:
        proofs = recipients.proofs or [(_export(one, recipients.homes),) for one in recipients.fingerprints]
        certificates = [[Cert.from_bytes(proof) for proof in one] for one in proofs]
        trials = [encrypted_message(encrypt_to(b"", [proof], armor=False)) for one in certificates for proof in one]
    except (CryptomailError, MemoryError):
        raise
    except Exception as error:  # as above; its text begins with what is wrong with the key, and goes on for pages
        raise UnsuitableError(str(error).partition("\n")[0]) from error
    # A key's features choose the container, and PySequoia cannot be told to.
    if any(trial is None or trial.container != "SEIPD v1" for trial in trials):
        raise UnsuitableError("it would write packets that older mail clients cannot open")
    return [first for first, *_ in certificates]


def _export(fingerprint: str, homes: Sequence[str]) -> bytes:
    """The certificate, from the first GnuPG home that has it."""
    return next((found for home in homes if (found := runner.export(home, fingerprint))), b"")
