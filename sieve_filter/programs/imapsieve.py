"""What Pigeonhole starts for a message that its owner saved over IMAP; and the command `enroll` for people.

No script but the administrator's IMAPSieve script can reach it, for it lies in a directory of programs that Dovecot's
IMAP processes alone look into. So it takes no argument, and acts for the owner in the environment and no other.
"""

import os
import resource
import sys
from collections.abc import Mapping

from sieve_filter import limits
from sieve_filter.deadline import Deadline
from sieve_filter.delivery import pipeline
from sieve_filter.enrolment import answer, sweep
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import RefusedKeyError, UsageError
from sieve_filter.notify.post import Post
from sieve_filter.owners import owner
from sieve_filter.system import pool, privileges, signals, stdio
from sieve_filter.system.afterwards import afterwards

# What a delivery sets, and IMAPSieve does not.
_ENVELOPE = ("SENDER", "RECIPIENT", "ORIG_RECIPIENT")


def enroll_main(
    config_file: str, socket_path: str, sendmail_path: str, folder: str, register: str = "", dovecot_conf: str = ""
) -> int:
    """`filter "cryptomail-enroll"`: the saved message in, the one to keep in its place out. Returns an exit code.

    What else lies in the folder is looked at afterwards, in an IMAP session of the Dovecot with that configuration.
    """
    post = Post(socket_path, sendmail_path, folder)
    return stdio.guarded(lambda: _program(config_file, post, register, dovecot_conf))


def run(environment: Mapping[str, str], config_file: str, post: Post, register: str, dovecot_conf: str = "") -> int:
    """Read a message from standard input, do what it asks for, and write the answer. Returns an exit code.

    Where there is a configuration of Dovecot's, its folder is looked at afterwards. Raises CryptomailError where that
    cannot be; nothing was written then.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file may hold a secret key
    os.umask(0o077)
    pool.stop_on_signals()
    settings = pipeline.settings(None, config_file, None, register)
    whose = owner.identify(environment, settings.aliases)
    if dovecot_conf and post.folder:
        afterwards(whose.home, lambda: sweep.after_save(whose.user, post.folder, stdio.warn, dovecot_conf))
    signals.alarm(Deadline.after(limits.KEY_MAIL_SECONDS))
    raw = _read()
    stdio.write(answer.answer(raw, whose, Desk(settings, post, stdio.warn)))
    signals.alarm(None)
    return os.EX_OK


def _program(config_file: str, post: Post, register: str, dovecot_conf: str) -> int:
    privileges.drop()
    if sys.argv[1:]:
        raise UsageError("cryptomail-enroll takes no arguments")
    if given := [name for name in _ENVELOPE if os.environ.get(name)]:
        # A key that arrives is a stranger's: only what owners save themselves counts.
        raise UsageError(f"{given[0]} is set: cryptomail-enroll is for messages that are saved over IMAP")
    return run(os.environ, config_file, post, register, dovecot_conf)


def _read() -> bytes:
    """The message. Raises RefusedKeyError for one that is too large, all of which was read."""
    taken = bytearray()
    size = 0
    for piece in stdio.read():
        size += len(piece)
        if size <= limits.KEY_MAIL_OCTETS:
            taken += piece
    if size > limits.KEY_MAIL_OCTETS:
        raise RefusedKeyError(
            f"a message to set up a key may have {limits.KEY_MAIL_OCTETS} octets; it is left as it is"
        )
    return bytes(taken)
