"""`cryptomail mailbox restore` and `rekey`: the owner's own machine decrypts what is stored in the owner's mailbox."""

import argparse

from sieve_filter.cli import mailbox_change
from sieve_filter.cli.mailbox_change import Words
from sieve_filter.cli.site import Site
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.detection import classify
from sieve_filter.errors import UsageError
from sieve_filter.mail.message import split
from sieve_filter.mailbox import task
from sieve_filter.mailbox.task import Task

_ENCRYPTED = Words("encrypted", "as they are")
_RESTORED = Words("restored", "encrypted")


def restore(options: argparse.Namespace, _site: Site) -> int:
    """Store what cryptomail encrypted as it arrived, tell, and return an exit code; raises what kept it from it."""
    return _run(options, task.restoration(options.smime_key), _RESTORED)


def rekey(options: argparse.Namespace, site: Site) -> int:
    """Encrypt what cryptomail encrypted to other keys, tell, and return an exit code; raises what kept it from it."""
    if not options.key_file:
        raise UsageError("rekey needs --key-file: your key is not looked up anywhere")
    turn = mailbox_change.to_key(options.key_file, site.settings)
    trial = turn(Incoming(split(b"Subject: trial\r\n\r\ntrial\r\n"), True, ()))
    key_ids = classify.classify(split(b"".join(trial.pieces))).key_ids
    return _run(options, task.rekeying(turn, key_ids, options.smime_key), _ENCRYPTED)


def _run(options: argparse.Namespace, what: Task, words: Words) -> int:
    if not options.imap:
        raise UsageError(f"{options.action} needs --imap: the secret key is yours, and not the server's")
    return mailbox_change.finish(options, words, [(mailbox_change.own(options, what), ())])
