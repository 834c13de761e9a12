"""Gives a message back as it was before the filter."""

import re

from sieve_filter.gpg import runner
from sieve_filter.mail import protection
from sieve_filter.mail.message import split

_ARMOR = re.compile(rb"^-----BEGIN PGP MESSAGE-----.*?^-----END PGP MESSAGE-----", re.DOTALL | re.MULTILINE)


def decrypt(raw: bytes) -> bytes | None:
    """The message that the filter turned into `raw`, byte for byte; None where `raw` did not come from the filter.

    Raises DecryptionError where the caller's gpg cannot decrypt it.
    """
    message = split(raw)
    armor = _ARMOR.search(message.body) if protection.marked(message) else None
    if armor is None:
        return None
    return protection.restore(runner.decrypt(armor[0]))
