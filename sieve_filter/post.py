"""Delivers the server's own notices to mailbox owners: over the private LMTP service, else with sendmail.

LMTP comes first: Dovecot then has the notice in the mailbox, or says why not, before anybody is told that it is there;
it goes through no queue and no spam filter; and the service runs no script of ours, so that a notice that was encrypted
to one key stays as it is. Only the user who owns all mail can connect to it. Elsewhere there is sendmail.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sieve_filter import lmtp, sendmail
from sieve_filter.errors import DeliveryError
from sieve_filter.lmtp import Envelope


class Post(NamedTuple):
    """The ways to deliver: the LMTP service's socket, and the sendmail program; each empty where there is none."""

    socket_path: str
    sendmail_path: str


def deliver(post: Post, user: str, message: bytes) -> None:
    """Deliver `message` to `user`, with the null sender, by the first way that there is. Raises DeliveryError."""
    ways: list[Callable[[], None]] = []
    if post.socket_path and Path(post.socket_path).is_socket():
        ways.append(lambda: _over_lmtp(post.socket_path, user, message))
    if post.sendmail_path and Path(post.sendmail_path).exists():
        ways.append(lambda: sendmail.send(post.sendmail_path, user, message))
    failure = DeliveryError("there is neither the service lmtp-sealed nor a sendmail program")
    for way in ways:
        try:
            way()
            return
        except DeliveryError as error:
            failure = error
    raise failure


def _over_lmtp(socket_path: str, user: str, message: bytes) -> None:
    server = lmtp.connect(socket_path)
    lmtp.send(server, Envelope("", user, user), [message], lambda: None)
