"""Encrypts to certificates: what OpenSSL does for S/MIME, checked before any of it is stored."""

from collections.abc import Callable, Iterable, Iterator

from sieve_filter.delivery.incoming import Store
from sieve_filter.errors import EncryptionError
from sieve_filter.keys.recipients import Recipients
from sieve_filter.mail import base64_writer
from sieve_filter.mail.protection import Protected
from sieve_filter.openssl import runner
from sieve_filter.openssl.runner import Recipient
from sieve_filter.policy.settings import OAEP, Settings
from sieve_filter.smime import certificate, envelope

Sink = Callable[[bytes], object]
Engine = Callable[[Iterable[bytes], Sink, Recipients], str]


def by_openssl(source: Iterable[bytes], sink: Sink, recipients: Recipients, settings: Settings) -> None:
    """The engine. Raises EncryptionError."""
    to = [
        Recipient(certificate.pem([one]), certificate.parse(one).algorithm == certificate.RSA)
        for one in recipients.certificates
    ]
    runner.encrypt(source, sink, to, settings.smime_cipher, oaep=settings.smime_padding == OAEP)


def encrypt(
    inside: Iterable[bytes],
    protected: Protected,
    recipients: Recipients,
    engine: Engine,
    store: Store,
    cipher: str,
    token: bytes,
) -> tuple[bytes, str]:
    """Have the engine encrypt `inside`, and put the body of an S/MIME message into `store`.

    Returns its header section, and what encrypted it.

    Raises EncryptionError where what comes out is not enveloped data with that cipher for exactly these certificates,
    or has not as many octets as all of `inside` needs.
    """
    source, octets = iter(inside), 0

    def counted() -> Iterator[bytes]:
        nonlocal octets
        for piece in source:
            octets += len(piece)
            yield piece

    walker = envelope.Walker()
    eol = protected.eol
    writer = base64_writer.Writer(lambda text: store.write(text if eol == b"\n" else text.replace(b"\n", eol)))

    def take(octets: bytes) -> None:
        walker.feed(octets)
        if walker.malformed:
            raise EncryptionError("what openssl wrote is not an encrypted message; check the openssl program")
        writer.feed(octets)

    by = engine(counted(), take, recipients)
    octets += sum(map(len, source))  # what it did not even take
    written = walker.finish()
    if written is None:
        raise EncryptionError(
            "openssl succeeded, but what it wrote is not an encrypted message; check the openssl program"
        )
    if written.cipher != cipher:
        raise EncryptionError("openssl took another cipher than it was asked to; check the openssl program")
    if sorted(written.recipients) != sorted(
        certificate.parse(one).issuer_and_serial for one in recipients.certificates
    ):
        raise EncryptionError("openssl encrypted to other certificates than it was asked to; check the openssl program")
    if written.size != envelope.size(cipher, octets):
        raise EncryptionError("what openssl encrypted is not all of the message; check the openssl program")
    writer.finish()
    return envelope.compose(protected, cipher, token), by
