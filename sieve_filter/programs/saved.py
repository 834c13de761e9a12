"""What Pigeonhole starts where an owner saves something over IMAP in a folder in which that is to be encrypted.

It says nothing of the message, and takes none. What it starts looks through those folders once the mail client has its
answer, and those of its next questions that name the UID.
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

from sieve_filter import limits
from sieve_filter.deadline import Deadline
from sieve_filter.delivery import pipeline
from sieve_filter.dovecot import doveadm, imap
from sieve_filter.errors import BusyError, CryptomailError, PlaceError, UsageError
from sieve_filter.keys.status import counted
from sieve_filter.mailbox import here
from sieve_filter.mailbox.convert import Outcome, Wish
from sieve_filter.owners import owner
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Settings
from sieve_filter.system import places, privileges, stdio
from sieve_filter.system.afterwards import detached

_SECONDS = 8  # longer than the script, saved.sieve, takes what is saved for one
_WAITED = 600  # for another who is at work on this mailbox; then the timer's run has to see to it
_PAUSE = 1
_TURN = ".cryptomail-saved"  # in the owner's home: whoever has locked it is about to look


def saved_main(config_file: str, folder: str, register: str = "", dovecot_conf: str = "") -> int:
    """`execute "cryptomail-saved"`, for the owner in the environment. Returns an exit code.

    `folder` is that for keys. What looks afterwards does so in an IMAP session of the Dovecot with that configuration.
    """
    return stdio.guarded(lambda: _program(config_file, folder, register, dovecot_conf))


def _program(config_file: str, folder: str, register: str, dovecot_conf: str) -> int:
    privileges.drop()
    if sys.argv[1:]:
        raise UsageError("cryptomail-saved takes no arguments")
    os.umask(0o077)
    settings = pipeline.settings(None, config_file, None, register)
    whose = owner.identify(os.environ, settings.aliases)
    if settings.saved_folders:
        detached(lambda: _look(whose, folder, settings, dovecot_conf))
    return os.EX_OK


def _look(whose: Owner, folder: str, settings: Settings, dovecot_conf: str) -> None:
    """Encrypt what is in clear in the folders; say in Dovecot's log what stays."""
    try:
        time.sleep(_SECONDS)
        with ExitStack() as stack:
            if stack.enter_context(_turn(whose.home)):
                outcome = _encrypt(whose, folder, settings, dovecot_conf, stack)
                if outcome.folders:
                    doveadm.purge(whose.user, outcome.folders, dovecot_conf)
                for why, count in outcome.left:
                    stdio.warn(f"{counted(count, 'message')} that {whose.user!r} saved stay in clear: {why}")
                if outcome.over_quota:
                    stdio.warn(f"what {whose.user!r} saved stays in clear: the quota has no room for more")
    except CryptomailError as error:
        stdio.warn(f"what {whose.user!r} saved was not encrypted: {error}")


def _encrypt(whose: Owner, folder: str, settings: Settings, dovecot_conf: str, turn: ExitStack) -> Outcome:
    """Encrypt it, when nobody else is at work on the mailbox. Whoever saves something from then on has `turn` again."""
    wish = Wish(settings.saved_folders, None, folder, if_there=True)
    until = Deadline.after(_WAITED)
    while True:
        with ExitStack() as stack:

            def begin() -> imap.Session:
                turn.close()
                way = doveadm.imap_session(whose.user, limits.MAILBOX_SECONDS, dovecot_conf)
                return imap.Session(*stack.enter_context(way), limits.IMAP_LITERAL_OCTETS)

            try:
                return here.encrypt(whose, begin, wish, settings, stdio.once(), lambda: None, _unseen)
            except BusyError:
                if until.is_over():
                    raise
        time.sleep(_PAUSE)


def _unseen(_total: int) -> nullcontext[Callable[[int], None]]:
    """A progress bar that nobody sees."""
    return nullcontext(lambda _: None)


@contextmanager
def _turn(home: str) -> Iterator[bool]:
    """Whether nobody else is about to look, as this one is until the block ends. Raises PlaceError."""
    try:
        with places.opened(home, follow=True) as directory:
            descriptor = places.open_file(_TURN, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, directory)
    except OSError as error:
        raise PlaceError(f"cannot use {home}/{_TURN}: {error.strerror or 'it is not a file'}") from error
    try:
        yield _is_first(descriptor)
    finally:
        os.close(descriptor)


def _is_first(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
