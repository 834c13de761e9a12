"""Takes secret keys out of owners' folders for keys, that came there without being looked at.

IMAPSieve, which answers what is saved there, does not see IMAP's REPLACE (RFC 8508), which Dovecot has from 2.4.1 on;
and a message that an owner's script files there is not looked at either. Nothing else is touched: a stranger's message
may be among these, and its public key must not be set up.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.deadline import Deadline
from sieve_filter.detection import secrets
from sieve_filter.dovecot import doveadm, imap
from sieve_filter.errors import CryptomailError
from sieve_filter.notify import notices, post
from sieve_filter.system import pool


class Swept(NamedTuple):
    """How many secret keys were taken away from that user, and why it is not known whether there are more, if so."""

    user: str
    removed: int
    error: CryptomailError | None


def sweep(users: Iterable[str], folder: str, warn: Callable[[str], object]) -> list[Swept]:
    """Look at the folder `folder` of each user, one after the other; one that takes too long is left for next time."""
    return [_sweep_one(user, folder, warn, limits.OWNER_SECONDS) for user in users]


def lately(users: Sequence[str], folder: str, warn: Callable[[str], object]) -> list[Swept]:
    """Look at the folders in which something was saved lately, as long as a check may take; say who was left out."""
    deadline = Deadline.after(limits.CHECKED_SECONDS)
    waiting = random.sample(users, len(users))  # so that at large sites it is not the same ones who are left out
    swept: list[Swept] = []
    while waiting and (seconds := deadline.remaining()):
        try:
            found, problem = doveadm.saved_lately(waiting[: limits.USERS_AT_ONCE], folder, limits.CHECKED_DAYS, seconds)
        except CryptomailError as error:
            warn(f"the folders {folder} were not looked at: {error}")
            return swept
        if problem:
            warn(f"not every folder {folder} was looked at: {problem}")
        swept += [_sweep_one(user, folder, warn, max(1, deadline.remaining())) for user in found]
        del waiting[: limits.USERS_AT_ONCE]
    if waiting:
        warn(f"the folders {folder} of {len(waiting)} users were not looked at: for that there is keys sweep --all")
    return swept


def after_save(user: str, folder: str, warn: Callable[[str], object], configuration: str) -> None:
    """Look at that user's folder, in which the user has just saved something; see `imap_session`."""
    swept = _sweep_one(user, folder, warn, limits.OWNER_SECONDS, configuration)
    if swept.error is not None:
        warn(f"what else is in the folder {folder} of {user!r} was not looked at: {swept.error}")


def _sweep_one(
    user: str,
    folder: str,
    warn: Callable[[str], object],
    seconds: float,
    configuration: str = "",
) -> Swept:
    try:
        with doveadm.imap_session(user, seconds, configuration) as (responses, commands):
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
    session.run(b"EXAMINE " + name)  # messages stay new for the owner's mail programs
    sizes = session.sizes()
    newest = sorted(sizes, reverse=True)[: limits.SWEPT_MESSAGES]
    secret = [uid for uid in newest if sizes[uid] <= limits.KEY_MAIL_OCTETS and _is_secret(session.message(uid))]
    if secret:
        session.run(b"SELECT " + name)
    for uid in secret:
        session.expunge(uid)  # before anything that can fail, such as an answer that the quota has no room for
        answer = notices.message(user, notices.refused_secret(), post.stamp(), None, notices.CONFIRMATION)
        session.run(b"APPEND " + name, answer)
    return len(secret)


def _is_secret(message: bytes) -> bool:
    """Whether there is a secret key in it. What looks has nobody's rights, because anybody may have written it."""

    def look() -> bool:
        return secrets.found(message)

    return pool.alone(pool.nobody(), look)
