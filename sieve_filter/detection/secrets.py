"""Tells whether there is a secret key in a message, OpenPGP's or a certificate's, however it is encoded. Pure."""

from sieve_filter.mail import unwrap
from sieve_filter.openpgp import secret_key
from sieve_filter.smime import private_key


def found(data: bytes) -> bool:
    """Whether there is a secret key in `data`, plain, or encoded in ways that anybody can undo."""
    return any(secret_key.found(one) or private_key.found(one) for one in unwrap.layers(data))
