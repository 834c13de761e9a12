"""Encrypts a message in this process, by PySequoia."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from sieve_filter.gpg import runner
from sieve_filter.keys.recipients import Recipients
from sieve_filter.sequoia import engine
from sieve_filter.sequoia.engine import Loaded

# Certificates kept in memory, some 16 KB each for Curve 25519 (measured, PySequoia 0.1.35).
_CERTIFICATES = 1_000


def encrypt(plain: bytes, recipients: Recipients) -> bytes:
    """`plain` encrypted to exactly the subkeys of `recipients`, in binary and not compressed.

    `recipients` come fresh from GnuPG's listing, `reading` or `newer`: PySequoia would encrypt to an expired key.
    Raises UnsuitableError, KeyringError where a key cannot be got from GnuPG.
    """
    return engine.encrypt(plain, _certificates(recipients))


def encrypt_large(source: Iterable[bytes], sink: Callable[[bytes], object], recipients: Recipients) -> None:
    """The same in pieces, for what does not fit into memory. Raises SpoolError too."""
    engine.encrypt_large(source, sink, _certificates(recipients))


@lru_cache(maxsize=_CERTIFICATES)
def _certificates(recipients: Recipients) -> Loaded:
    """The certificates, each with no other subkey than the one to encrypt to.

    Each proof (see `plain`) has to serve by itself: so PySequoia verifies every signature in it. Those that are
    returned have not been tried: the message will.
    """
    known = dict(recipients.proofs)
    proofs = [known.get(one) or (_export(one, recipients.homes),) for one in recipients.fingerprints]
    for _, *others in proofs:
        for other in others:
            engine.encrypt(b"", engine.load([other]))
    return engine.load([first for first, *_ in proofs])


def _export(fingerprint: str, homes: Sequence[str]) -> bytes:
    """The certificate, from the first GnuPG home that has it."""
    return next((found for home in homes if (found := runner.export(home, fingerprint))), b"")
