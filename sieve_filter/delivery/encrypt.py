"""The main job: one message in, what to store out. Pure but for what it is handed."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from sieve_filter.delivery.incoming import Incoming, Store, look
from sieve_filter.errors import EncryptionError
from sieve_filter.keys.decision import Encrypt, Left, StoreClear
from sieve_filter.keys.recipients import Recipients
from sieve_filter.mail import protection
from sieve_filter.mail.header_policy import Policy
from sieve_filter.openpgp import pgpmime
from sieve_filter.openpgp.armor_writer import Writer
from sieve_filter.openpgp.encrypted import Walker
from sieve_filter.openpgp.packets import VERSION_6_DIGITS, key_id

Sink = Callable[[bytes], object]
Decide = Callable[[], Encrypt | StoreClear]
Engine = Callable[[Iterable[bytes], Sink, Recipients], str]  # returns what encrypted it


class Delivery(NamedTuple):
    """What may be stored: its `header` section, up to where the body begins; the `body`, in pieces, to be read once;
    whether it was `encrypted` here, to which subkeys and by which `engine`, or of which kind the reason is that it was
    `left` as it came; and in one clause why (not).
    """

    header: bytes
    body: Iterable[bytes]
    encrypted: bool
    reason: str
    fingerprints: Sequence[str] = ()
    engine: str = ""
    left: Left | None = None

    @property
    def pieces(self) -> Iterator[bytes]:
        """All of it; to be read once."""
        return chain([self.header], self.body)


def unchanged(incoming: Incoming, reason: str, left: Left) -> Delivery:
    """The message as it came."""
    message = incoming.message
    body = chain([message.body], incoming.rest)
    return Delivery(message.raw[: message.body_start], body, False, reason, left=left)


def encrypt_message(
    incoming: Incoming,
    policy: Policy,
    decide: Decide,
    encrypt: Engine,
    boundary: bytes,
    store: Store,
    hold: Callable[[], Store],
    smime_cipher: str,
) -> Delivery:
    """Encrypt the message into `store`, unless it is encrypted already, or `decide` says to leave it.

    What `hold` makes gets what may be clear text. Raises what `decide`, `encrypt`, `store` and `hold` raise, and
    EncryptionError where the ciphertext is not what was asked for.
    """
    kind, incoming = look(incoming, hold)
    if kind.encrypted:
        return unchanged(incoming, kind.reason, Left.ENCRYPTED_ALREADY)
    decided = decide()
    if isinstance(decided, StoreClear):
        return unchanged(incoming, decided.reason, decided.why)
    recipients = decided.recipients
    protected = protection.protect(incoming.message, policy)
    inside = chain([protected.inside], incoming.rest)
    if recipients.certificates:
        from sieve_filter.delivery import smime  # most owners have none

        header, engine = smime.encrypt(inside, protected, recipients, encrypt, store, smime_cipher, boundary)
        return Delivery(header, store, True, kind.reason, recipients.fingerprints, engine)
    header, before, behind = pgpmime.frame(protected, boundary)
    ciphertext = _Ciphertext(store, protected.eol)
    engine = encrypt(inside, ciphertext.take, recipients)
    ciphertext.finish(recipients.fingerprints)
    body = chain([before], store, [behind])
    return Delivery(header, body, True, kind.reason, recipients.fingerprints, engine)


class _Ciphertext:
    """Takes what an engine writes: nothing but ciphertext, in packets that all clients open, gets through, armored."""

    def __init__(self, store: Store, eol: bytes) -> None:
        self._armor = Writer(b"MESSAGE", eol, store.write)
        self._walker = Walker()

    def take(self, packets: bytes) -> None:
        self._walker.feed(packets)
        if self._walker.malformed:
            raise EncryptionError("what gpg wrote is not an encrypted message; check the gpg program")
        self._armor.feed(packets)

    def finish(self, fingerprints: Sequence[str]) -> None:
        """Raise EncryptionError unless it all was one message for exactly these keys.

        Where one of them is of version 4, it has to be in packets that all clients open.
        """
        encrypted = self._walker.finish()
        if encrypted is None:
            raise EncryptionError("gpg succeeded, but what it wrote is not an encrypted message; check the gpg program")
        packets = {(encrypted.container, version) for version in encrypted.pkesk_versions}
        newest = all(len(one) == VERSION_6_DIGITS for one in fingerprints) and packets == {("SEIPD v2", 6)}
        if packets != {("SEIPD v1", 3)} and not newest:
            raise EncryptionError("gpg wrote packets that older mail clients cannot open; check the gpg program")
        expected = sorted(fingerprints if newest else map(key_id, fingerprints))
        if sorted(encrypted.key_ids) != expected or encrypted.passphrase:
            raise EncryptionError("gpg encrypted to other keys than it was asked to; check the gpg program")
        self._armor.finish()
