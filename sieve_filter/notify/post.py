"""Delivers the server's own notices to mailbox owners: over the private LMTP service, else as other mail comes.

LMTP comes first: Dovecot then has the notice in the mailbox, or says why not, before anybody is told that it is there;
it goes through no queue and no spam filter; and the service runs no script of ours, so that a notice that was encrypted
to one key stays as it is. Only the user who owns all mail can connect to it. Elsewhere there is sendmail, else the LMTP
service for all mail: both encrypt a notice in clear, as they do other mail.

A test message takes another way, the one of all mail: it is to show what becomes of that.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sieve_filter.deadline import Deadline
from sieve_filter.errors import DeliveryError
from sieve_filter.notify.notices import Stamp

if TYPE_CHECKING:
    import smtplib

_ORDINARY = "lmtp"  # as Dovecot names the socket of its LMTP service, which is beside the private one
NO_WAY = "there is neither an LMTP service nor a sendmail program"


class Post(NamedTuple):
    """The ways to deliver: the LMTP service's socket, and the sendmail program; and the way back: the folder in which
    owners save what they want done with their keys. Each is empty where there is none.
    """

    socket_path: str
    sendmail_path: str
    folder: str


def add_options(parser: argparse.ArgumentParser, defaults: Post) -> None:
    """The options of commands that deliver notices."""
    parser.add_argument("--socket", default=defaults.socket_path, metavar="PATH", help="the LMTP service for notices")
    parser.add_argument("--sendmail", default=defaults.sendmail_path, metavar="PATH", help="the program for notices")
    parser.set_defaults(folder=defaults.folder)


def add_choice(parser: argparse.ArgumentParser, defaults: Post) -> None:
    """The same for commands that can do without notices."""
    add_options(parser, defaults)
    parser.add_argument("--no-notify", action="store_true", help="send owners neither test messages nor notices")


def chosen(options: argparse.Namespace) -> Post:
    """What `add_options` made of a command line.

    Loads what sending takes: the owner, as whom it is done, perhaps cannot read the files of this program.
    """
    from sieve_filter.dovecot import lmtp  # noqa: F401
    from sieve_filter.notify import sendmail  # noqa: F401

    return Post(options.socket, options.sendmail, options.folder)


def deliver(post: Post, user: str, message: bytes) -> None:
    """Deliver `message` to `user`, with the null sender, by the first way that there is. Raises DeliveryError."""
    failure = DeliveryError(NO_WAY)
    for way in ways(post):
        try:
            way(post, user, message)
            return
        except DeliveryError as error:
            failure = error
    raise failure


def ways(post: Post) -> list[Callable[[Post, str, bytes], None]]:
    """The ways that there are, best first; each is a function that delivers as `deliver` does."""
    found: list[Callable[[Post, str, bytes], None]] = []
    if post.socket_path and Path(post.socket_path).is_socket():
        found.append(_over_lmtp)
    if post.sendmail_path and Path(post.sendmail_path).exists():
        found.append(by_sendmail)
    if post.socket_path and _ordinary(post).is_socket():
        found.append(_over_ordinary_lmtp)
    return found


def as_other_mail(post: Post, user: str, message: bytes) -> bool:
    """Hand `message` in for `user` as other mail is: to Dovecot's ordinary LMTP service, else with sendmail.

    What is encrypted as it arrives, this is too. Returns whether there is such a way. Raises DeliveryError where it
    does not take the message.
    """
    if post.socket_path and (server := _connected(_ordinary(post))):
        _hand_over(lambda: server, user, message)
        return True
    if post.sendmail_path and Path(post.sendmail_path).exists():
        by_sendmail(post, user, message)
        return True
    return False


def _ordinary(post: Post) -> Path:
    """The socket of the LMTP service for all mail."""
    return Path(post.socket_path).with_name(_ORDINARY)


def _connected(ordinary: Path) -> "smtplib.LMTP | None":
    """A connection to the LMTP service for all mail; None where there is none, or it is not for this user."""
    from sieve_filter.dovecot import lmtp  # likewise

    try:
        return lmtp.connect(str(ordinary))
    except DeliveryError:
        return None


def by_sendmail(post: Post, user: str, message: bytes) -> None:
    """Send `message` to `user` like any other mail, through the queue and the filter. Raises DeliveryError."""
    from sieve_filter.notify import sendmail  # likewise

    if not post.sendmail_path:
        raise DeliveryError("there is no sendmail program")
    sendmail.send(post.sendmail_path, user, message)


def _over_lmtp(post: Post, user: str, message: bytes) -> None:
    _send(post.socket_path, user, message)


def _over_ordinary_lmtp(post: Post, user: str, message: bytes) -> None:
    _send(str(_ordinary(post)), user, message)


def _send(socket_path: str, user: str, message: bytes) -> None:
    from sieve_filter.dovecot import lmtp  # slow to load, and few commands deliver anything

    _hand_over(lambda: lmtp.connect(socket_path), user, message)


def _hand_over(connected: "Callable[[], smtplib.LMTP]", user: str, message: bytes) -> None:
    from sieve_filter.dovecot import lmtp  # likewise

    lmtp.send(connected, lmtp.Envelope("", user, user), [message], lambda: None, Deadline.after(lmtp.ANSWER_SECONDS))


def stamp() -> Stamp:
    """The stamp of a message that is made now."""
    return Stamp(int(time.time()), os.urandom(16).hex())
