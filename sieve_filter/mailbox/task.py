"""What can be done with stored messages: they are encrypted, given back as they arrived, or encrypted to other keys."""

from collections.abc import Callable, Collection, Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.delivery import incoming, restore
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.errors import DecryptionError, EncryptionError, SpoolError, TooLargeError
from sieve_filter.mailbox.audit import Verdict
from sieve_filter.system.spool import Spool

Filter = Callable[[Incoming], Delivery]

_NOT_OURS = "it is not what cryptomail made of a message"


class Made(NamedTuple):
    """What takes a message's place: its octets, how many, and their SHA-256; `binary` where NUL is among them."""

    octets: Iterable[bytes]
    size: int
    digest: str
    binary: bool = False


class Task(NamedTuple):
    """`wants` says with which messages it is done. `make` makes of a message what takes its place: None where there is
    no octet of it, because it has gone; else why it stays as it is. `unfinished`: drafts and outgoing mail count, too.
    `secret`: what is made is clear text, of which nothing may be noted, not even a digest.
    """

    wants: Callable[[Verdict], bool]
    make: Callable[[Iterator[bytes]], Made | str | None]
    unfinished: bool
    secret: bool


def encryption(turn: Filter) -> Task:
    """What is in clear is encrypted by `turn`."""

    def wants(verdict: Verdict) -> bool:
        return not verdict.shape.encrypted

    def make(pieces: Iterator[bytes]) -> Made | str | None:
        return _encrypted(pieces, turn)

    return Task(wants, make, unfinished=False, secret=False)


def restoration(smime_key: str | None = None) -> Task:
    """What cryptomail encrypted is stored as it arrived, in clear, by the caller's own gpg; what is S/MIME by gpgsm, or
    with the secret key in that file.
    """

    def wants(verdict: Verdict) -> bool:
        return verdict.shape.encrypted and verdict.marked

    def make(pieces: Iterator[bytes]) -> Made | str | None:
        original = _decrypted(pieces, smime_key)
        if not isinstance(original, bytes):
            return original
        return Made([original], len(original), sha256(original).hexdigest(), b"\0" in original)

    return Task(wants, make, unfinished=True, secret=True)


def rekeying(turn: Filter, key_ids: Collection[str], smime_key: str | None = None) -> Task:
    """What cryptomail encrypted is decrypted as by `restoration`, and encrypted by `turn`, to keys with these IDs.

    What is encrypted to exactly these already stays.
    """

    def wants(verdict: Verdict) -> bool:
        return verdict.shape.encrypted and verdict.marked and set(verdict.shape.key_ids) != set(key_ids)

    def make(pieces: Iterator[bytes]) -> Made | str | None:
        original = _decrypted(pieces, smime_key)
        return _encrypted(iter([original]), turn) if isinstance(original, bytes) else original

    return Task(wants, make, unfinished=True, secret=False)


def _encrypted(pieces: Iterator[bytes], turn: Filter) -> Made | str | None:
    octets, digest = Spool(), sha256()
    try:
        taken = incoming.receive(pieces, limits.SMALL_OCTETS)
        if not taken.message.raw:
            return None
        delivery = turn(taken)
        if not delivery.encrypted:
            return delivery.reason
        for piece in delivery.pieces:
            digest.update(piece)
            octets.write(piece)
    except (EncryptionError, SpoolError, TooLargeError) as error:
        return str(error)
    return Made(octets, octets.size, digest.hexdigest())


def _decrypted(pieces: Iterator[bytes], smime_key: str | None) -> bytes | str | None:
    """The message as it arrived; else as `Task.make`."""
    raw = b"".join(pieces)
    if not raw:
        return None
    try:
        original = restore.decrypt(raw, smime_key)
    except DecryptionError as error:
        return str(error)
    return _NOT_OURS if original is None else original
