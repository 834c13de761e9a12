"""Encrypts in this process, by PySequoia: the only module that knows it. GnuPG stays the keeper of the keys."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sieve_filter.errors import CryptomailError
from sieve_filter.gpg import runner
from sieve_filter.keys.recipients import Recipients
from sieve_filter.openpgp.encrypted import encrypted_message

if TYPE_CHECKING:
    from pysequoia import Cert

# Certificates kept in memory, some 16 KB each for Curve 25519 (measured, PySequoia 0.1.35).
_CERTIFICATES = 1_000


class UnsuitableError(Exception):
    """Sequoia cannot encrypt to these keys; GnuPG may."""


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether PySequoia is there."""
    from importlib.util import find_spec  # programs that only use GnuPG do without

    return find_spec("pysequoia") is not None


def encrypt(plain: bytes, recipients: Recipients) -> bytes:
    """`plain` encrypted to exactly the subkeys of `recipients`, in binary and not compressed.

    `recipients` come fresh from GnuPG's listing or `reading`: PySequoia would encrypt to an expired key. Raises
    UnsuitableError, KeyringError where a key cannot be got from GnuPG.
    """
    return _encrypt(plain, _certificates(recipients))


@lru_cache(maxsize=_CERTIFICATES)
def _certificates(recipients: Recipients) -> "Sequence[Cert]":
    """The certificates, each with no other subkey than the one to encrypt to.

    Each proof (see `plain`) has to serve by itself: so PySequoia verifies every signature in it. Those that are
    returned have not been tried: the message will.
    """
    from pysequoia import Cert

    proofs = recipients.proofs or [(_export(one, recipients.homes),) for one in recipients.fingerprints]
    try:
        certificates = [[Cert.from_bytes(proof) for proof in one] for one in proofs]
    except (CryptomailError, MemoryError):  # the time is over, say
        raise
    except Exception as error:  # PySequoia raises nothing more special
        raise _unsuitable(error) from error
    for _, *others in certificates:
        for other in others:
            _encrypt(b"", [other])
    return [first for first, *_ in certificates]


def _encrypt(plain: bytes, certificates: "Sequence[Cert]") -> bytes:
    from pysequoia import encrypt as encrypt_to

    try:
        encrypted = encrypt_to(plain, certificates, armor=False)
    except (CryptomailError, MemoryError):
        raise
    except Exception as error:
        raise _unsuitable(error) from error
    # A key's features choose the container, and PySequoia cannot be told to.
    message = encrypted_message(encrypted)
    if message is None or message.container != "SEIPD v1":
        raise UnsuitableError("it would write packets that older mail clients cannot open")
    return encrypted


def _unsuitable(error: Exception) -> UnsuitableError:
    """With what is wrong, which begins PySequoia's words; they go on for pages."""
    return UnsuitableError(str(error).partition("\n")[0])


def _export(fingerprint: str, homes: Sequence[str]) -> bytes:
    """The certificate, from the first GnuPG home that has it."""
    return next((found for home in homes if (found := runner.export(home, fingerprint))), b"")
