"""Takes secret keys out of owners' folders for keys, that came there without being looked at.

IMAPSieve, which answers what is saved there, does not see IMAP's REPLACE (RFC 8508), which Dovecot has from 2.4.1 on;
and a message that an owner's script files there is not looked at either. Nothing else is touched: a stranger's message
may be among these, and its public key must not be set up.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.dovecot import doveadm, imap
from sieve_filter.errors import CryptomailError
from sieve_filter.notify import notices, post
from sieve_filter.openpgp import secret_key
from sieve_filter.system import pool


class Swept(NamedTuple):
    """How many secret keys were taken away from that user, and why it is not known whether there are more, if so."""

    user: str
    removed: int
    error: CryptomailError | None


def sweep(users: Iterable[str], folder: str, warn: Callable[[str], object]) -> list[Swept]:
    """Look at the folder `folder` of each user, one after the other; one that takes too long is left for next time."""
    return [_sweep_one(user, folder, warn) for user in users]


def _sweep_one(user: str, folder: str, warn: Callable[[str], object]) -> Swept:
    try:
        with doveadm.imap_session(user, limits.OWNER_SECONDS) as (responses, commands):
            removed = _remove(imap.Session(responses, commands, limits.KEY_MAIL_OCTETS), user, folder)
    except CryptomailError as error:
        return Swept(user, 0, error)
    if removed:
        warn(f"{user!r} had saved a SECRET key in the folder {folder}: it was taken away ({removed} messages)")
    return Swept(user, removed, None)


def _remove(session: imap.Session, user: str, folder: str) -> int:
    """Take each message with a secret key out of that folder, and put an answer there. Returns how many there were."""
    name = imap.mailbox(session.prefix() + folder)
    if not session.exists(name):
        return 0
    session.run(b"SELECT " + name)
    sizes = session.sizes()
    newest = sorted(sizes, reverse=True)[: limits.SWEPT_MESSAGES]
    secret = [uid for uid in newest if sizes[uid] <= limits.KEY_MAIL_OCTETS and _is_secret(session.message(uid))]
    for uid in secret:
        session.expunge(uid)  # before anything that can fail, such as an answer that the quota has no room for
        answer = notices.message(user, notices.refused_secret(), post.stamp(), None, notices.CONFIRMATION)
        session.run(b"APPEND " + name, answer)
    return len(secret)


def _is_secret(message: bytes) -> bool:
    """Whether there is a secret key in it. What looks has nobody's rights, because anybody may have written it."""

    def look() -> bool:
        return secret_key.found(message)

    return pool.alone(pool.nobody(), look)
