"""The main job: one message in, the bytes to store out. Pure but for the two functions that it is handed."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sieve_filter import packets, pgpmime, shape, structure
from sieve_filter.errors import EncryptionError
from sieve_filter.hcp import Policy
from sieve_filter.keyring import Recipients
from sieve_filter.message import Message

Find = Callable[[], Recipients | None]
Encrypt = Callable[[bytes, Recipients], bytes]


class Delivery(NamedTuple):
    """What may be stored: the `output`, whether it was `encrypted` here, and in one clause why (not)."""

    output: bytes
    encrypted: bool
    reason: str


def deliver(message: Message, policy: Policy, find: Find, encrypt: Encrypt, boundary: bytes) -> Delivery:
    """Encrypt `message` unless it is encrypted already, or `find` knows no key.

    Raises what `find` and `encrypt` raise, and EncryptionError where the ciphertext is not what was asked for.
    """
    kind = shape.classify(message, structure.read)
    if kind.encrypted:
        return Delivery(message.raw, False, kind.reason)
    recipients = find()
    if recipients is None:
        return Delivery(message.raw, False, "its owner has no key set up")
    protected = pgpmime.protect(message, policy)
    armored = encrypt(protected.inside, recipients)
    _verify(armored, recipients.fingerprints)
    return Delivery(pgpmime.compose(protected, armored, boundary), True, kind.reason)


def _verify(armored: bytes, fingerprints: Sequence[str]) -> None:
    """Raise EncryptionError unless `armored` is wholly ciphertext, in packets that all clients open, for these keys.

    `fingerprints` are of version 4 keys: the last 16 digits are the key ID (RFC 9580 section 5.5.4.2).
    """
    binary = packets.dearmor(armored)
    encrypted = None if binary is None else packets.encrypted_message(binary)
    if encrypted is None:
        raise EncryptionError("gpg succeeded, but what it wrote is not an encrypted message; check the gpg program")
    if encrypted.container != "SEIPD v1" or set(encrypted.pkesk_versions) != {3}:
        raise EncryptionError("gpg wrote packets that older mail clients cannot open; check the gpg program")
    if sorted(encrypted.key_ids) != sorted(one[-16:] for one in fingerprints) or encrypted.passphrase:
        raise EncryptionError("gpg encrypted to other keys than it was asked to; check the gpg program")
