"""Gives a message back as it was before the filter."""

import re

from sieve_filter.gpg import runner
from sieve_filter.mail import mime, protection
from sieve_filter.mail.message import Message, split

_ARMOR = re.compile(rb"^-----BEGIN PGP MESSAGE-----.*?^-----END PGP MESSAGE-----", re.DOTALL | re.MULTILINE)
_SMIME = b"application/pkcs7-mime"


def decrypt(raw: bytes, smime_key: str | None = None) -> bytes | None:
    """The message that the filter turned into `raw`, byte for byte; None where `raw` did not come from the filter.

    What is S/MIME is decrypted with the secret key in the file `smime_key`, else by the caller's gpgsm. Raises
    DecryptionError where it cannot be.
    """
    message = split(raw)
    if not protection.marked(message):
        return None
    if (enveloped := _enveloped(message)) is not None:
        from sieve_filter.openssl import runner as openssl

        return protection.restore(openssl.decrypt(enveloped, smime_key))
    armor = _ARMOR.search(message.body)
    return protection.restore(runner.decrypt(armor[0])) if armor is not None else None


def _enveloped(message: Message) -> bytes | None:
    """The body of an S/MIME message, decoded; None where it is none."""
    fields = message.named(b"content-type")
    content = mime.content_type(fields[0].value) if fields else None
    return mime.decode(message.body, b"base64") if content is not None and content.media_type == _SMIME else None
