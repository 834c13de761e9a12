"""What all changes of stored mail share: a task done with one's own mailbox, and the report of what was done."""

import argparse
import base64
import functools
import json
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from sieve_filter.cli import files
from sieve_filter.cli.mailbox import own_session
from sieve_filter.cli.terminal import progress
from sieve_filter.delivery import pipeline
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.errors import CryptomailError, LeftError, QuotaError, RefusedKeyError
from sieve_filter.keys import find, script_key, x509
from sieve_filter.keys.status import counted
from sieve_filter.mailbox import journal
from sieve_filter.mailbox.convert import Conversion, Outcome, Wish
from sieve_filter.mailbox.task import Filter, Task
from sieve_filter.mailbox.throttle import Throttle
from sieve_filter.openpgp import certificate
from sieve_filter.policy.settings import Settings
from sieve_filter.smime import certificate as smime
from sieve_filter.system import stdio


class Words(NamedTuple):
    """How it is told: what was done with a message (`encrypted`), and how those are that were left (`in clear`)."""

    done: str
    left: str


def wish(options: argparse.Namespace, saved: tuple[str, ...] = ()) -> Wish:
    """What the command line asks for; `saved` are the folders of the settings, where it asks for these."""
    return Wish(saved or tuple(options.folder), options.before, options.key_folder, options.dry_run, bool(saved))


def own(options: argparse.Namespace, task: Task) -> Outcome:
    """Do the task with the mailbox that --imap names. Raises CryptomailError."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "cryptomail")
    name = f"mailbox-{sha256(options.imap.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    throttle = Throttle(on=True)
    with journal.opened(str(state / name)) as noted, own_session(options) as (user, session):
        conversion = Conversion(session, noted, task, wish(options), throttle.pause)
        return conversion.run(user, functools.partial(progress, quiet=options.json))


def to_key(name: str, settings: Settings) -> Filter:
    """What encrypts to the public keys, or to the S/MIME certificates, in that file.

    Raises RefusedKeyError, NoKeyError, FileError.
    """
    data = files.read(name)
    reading = smime.read(data) if smime.holds(data) else certificate.read(data)
    if reading.secret:
        raise RefusedKeyError(f"there is a SECRET key in {name}, which must never leave you: give the public one")
    problems = [*reading.problems]
    if isinstance(reading, certificate.Reading):
        problems += [one.problem for one in reading.certificates if one.problem]
    if problems or not reading.certificates:
        raise RefusedKeyError(f"{name}: {problems[0] if problems else 'no key is in it'}")
    if isinstance(reading, certificate.Reading):
        packets = b"".join(one.packets for one in reading.certificates)
        found = find.find_in_file(script_key.keyring([base64.b64encode(packets).decode()]))
    else:
        found = x509.named(smime.without_issuers(reading.certificates))
    engines = Engines(stdio.once(), lasting=True)

    def turn(incoming: Incoming) -> Delivery:
        return pipeline.encrypt_incoming_to(incoming, found, settings, engines)

    return turn


def finish(
    options: argparse.Namespace,
    words: Words,
    outcomes: Sequence[tuple[Outcome, tuple[str, ...]]],
    failures: Sequence[tuple[str, CryptomailError]] = (),
) -> int:
    """Tell what was done, and of each mailbox what residue stays. Raises LeftError, QuotaError or what befell a user
    where that is not all.
    """
    if options.json:
        stdio.tell(json.dumps({"users": [_object(words, *one) for one in outcomes]}, indent=2))
    else:
        for outcome, stays in outcomes:
            stdio.tell("\n".join(_lines(words, outcome, stays, options.dry_run)))
    for user, error in failures if len(failures) > 1 else ():
        stdio.warn(f"{user}: {error}")
    if failures:
        user, error = failures[0]
        many = f"the mailboxes of {len(failures)} users are not finished"
        raise type(error)(f"{user}: {error}" if len(failures) == 1 else many)
    if full := [one.user for one, _ in outcomes if one.over_quota]:
        raise QuotaError(f"{full[0]}: the quota has no room for more {words.done} mail: raise it, and run this again")
    if left := sum(count for one, _ in outcomes for _, count in one.left):
        raise LeftError(f"{counted(left, 'message')} left {words.left}: see the report")
    return os.EX_OK


def _lines(words: Words, outcome: Outcome, stays: Sequence[str], dry_run: bool) -> list[str]:
    if outcome.unkeyed:
        return [f"{outcome.user}: has no key, all is left as it is"]
    done = f"{counted(outcome.replaced, 'message')} {'would be ' if dry_run else ''}{words.done}"
    said = [f"{outcome.user}: {done}"]
    said += [f"{outcome.user}: {counted(count, 'message')} left {words.left}: {why}" for why, count in outcome.left]
    return said + [f"{outcome.user}: residue: {text}" for text in stays]


def _object(words: Words, outcome: Outcome, stays: Sequence[str]) -> dict[str, object]:
    return {
        "user": outcome.user,
        words.done: outcome.replaced,
        "left": [{"reason": why, "messages": count} for why, count in outcome.left],
        "over_quota": outcome.over_quota,
        "has_key": not outcome.unkeyed,
        "residue": list(stays),
    }
