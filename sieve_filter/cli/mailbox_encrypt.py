"""`cryptomail mailbox encrypt`: encrypts what is stored in clear, on this server or in one's own mailbox."""

import argparse
import base64
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from sieve_filter.cli import files
from sieve_filter.cli.mailbox import Job, configuration_of, on_this_server, own_session, session_of
from sieve_filter.cli.site import Rest, Site, as_owner
from sieve_filter.cli.site import names as site_names
from sieve_filter.cli.terminal import progress
from sieve_filter.delivery import pipeline
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.dovecot import doveadm
from sieve_filter.errors import (
    CryptomailError,
    LeftError,
    QuotaError,
    RefusedKeyError,
    StoppedError,
    UnknownUserError,
    UsageError,
)
from sieve_filter.keys import find, script_key
from sieve_filter.keys.decision import StoreClear, Wait, decide
from sieve_filter.keys.status import counted
from sieve_filter.mailbox import journal, residue
from sieve_filter.mailbox.encrypt import Encryption, Filter, Outcome, Wish
from sieve_filter.mailbox.residue import Files
from sieve_filter.mailbox.throttle import Throttle
from sieve_filter.openpgp import certificate
from sieve_filter.policy.settings import Options, Settings
from sieve_filter.system import stdio

_JOURNAL = ".cryptomail-mailbox"  # in the owner's home, beside the keyring


def run(options: argparse.Namespace, site: Site) -> int:
    """Encrypt, tell, and return an exit code; raises what kept it from encrypting all."""
    if bool(options.imap) != bool(options.key_file):
        raise UsageError("--imap and --key-file go together: your key is not looked up anywhere")
    wish = Wish(tuple(options.folder), options.before, options.key_folder, options.dry_run)
    if options.imap:
        return _finish(options, [(_own(options, wish, site.settings), ())], [])
    return _everybody(options, wish, site)


def _own(options: argparse.Namespace, wish: Wish, settings: Settings) -> Outcome:
    turn = _to_key(options.key_file, settings)
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "cryptomail")
    name = f"mailbox-{sha256(options.imap.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"
    throttle = Throttle(on=True)
    with journal.opened(str(state / name)) as noted, own_session(options) as (user, session):
        encryption = Encryption(session, noted, turn, wish, throttle.pause)
        return encryption.run(user, functools.partial(progress, quiet=options.json))


def _everybody(options: argparse.Namespace, wish: Wish, site: Site) -> int:
    rest = Rest()
    failures: list[tuple[str, CryptomailError]] = []
    outcomes: list[tuple[Outcome, tuple[str, ...]]] = []
    work = functools.partial(_encrypt, wish=wish, settings=site.settings, quiet=options.json or options.all)
    asked = site_names(options, site)
    with progress(2 * len(asked), options.json or not options.all) as advance:
        for user, result in on_this_server(asked, options, site, rest, work, advance):
            if isinstance(result, CryptomailError):
                failures.append((user, result))
            else:
                outcome = result._replace(user=user)  # whatever the process says
                outcomes.append((outcome, _clean(outcome, options, site)))
    failures += [(one.user, one.error) for one in rest.failures]
    return _finish(options, sorted(outcomes), failures)


def _encrypt(job: Job, wish: Wish, settings: Settings, quiet: bool) -> Outcome:
    """The encryption of one mailbox, by its owner."""
    found = pipeline.find_keys(job.owner, settings)
    decision = decide(found, pipeline.rules(settings, Options()), int(time.time()))
    if isinstance(decision, Wait):
        raise decision.error
    if isinstance(decision, StoreClear):
        return Outcome(job.owner.user, 0, (), (), unkeyed=True)
    engines = Engines(_once(), lasting=True)
    environment = {"USER": job.owner.user, "HOME": job.owner.home}

    def turn(incoming: Incoming) -> Delivery:
        return pipeline.encrypt_for_owner(incoming, Options(), environment, settings, engines)

    def between() -> None:
        if os.getppid() != job.parent:  # nobody else would end this
            raise StoppedError("the command was killed")

    with journal.opened(f"{job.owner.home}/{_JOURNAL}") as noted:
        encryption = Encryption(session_of(job), noted, turn, wish, between)
        return encryption.run(job.owner.user, functools.partial(progress, quiet=quiet))


def _to_key(name: str, settings: Settings) -> Filter:
    """What encrypts to the public keys in that file. Raises RefusedKeyError, NoKeyError, FileError."""
    reading = certificate.read(files.read(name))
    if reading.secret:
        raise RefusedKeyError(f"there is a SECRET key in {name}, which must never leave you: give the public one")
    problems = [*reading.problems, *(one.problem for one in reading.certificates if one.problem)]
    if problems or not reading.certificates:
        raise RefusedKeyError(f"{name}: {problems[0] if problems else 'no key is in it'}")
    packets = b"".join(one.packets for one in reading.certificates)
    found = find.find_in_file(script_key.keyring([base64.b64encode(packets).decode()]))
    engines = Engines(_once(), lasting=True)

    def turn(incoming: Incoming) -> Delivery:
        return pipeline.encrypt_incoming_to(incoming, found, settings, engines)

    return turn


def _once() -> Callable[[str], None]:
    """Warns of what befell some message, and of the same with no other."""
    said: set[str] = set()

    def warn(text: str) -> None:
        what = text.partition(": ")[2] or text
        if what not in said:
            said.add(what)
            stdio.warn(text)

    return warn


def _clean(outcome: Outcome, options: argparse.Namespace, site: Site) -> tuple[str, ...]:
    """Take away what the server keeps of clear text that was replaced. Returns what stays, in words."""
    if options.dry_run or not outcome.folders:
        return ()
    configuration = configuration_of(options)
    try:
        doveadm.purge(outcome.user, outcome.folders, configuration)
    except UnknownUserError as error:
        stdio.warn(str(error))
    whose = site.owner(outcome.user)
    directories = [one for one in (whose.home, doveadm.index_directory(whose.user, configuration)) if one]

    def look() -> Files:
        return residue.files(directories)

    caches = as_owner(whose, look)._replace(mdbox=False)  # it has just been purged
    return (*residue.words(caches), *residue.everywhere(configuration))


def _finish(
    options: argparse.Namespace,
    outcomes: Sequence[tuple[Outcome, tuple[str, ...]]],
    failures: Sequence[tuple[str, CryptomailError]],
) -> int:
    """Tell what was done. Raises LeftError, QuotaError or what befell a user where that is not all."""
    if options.json:
        stdio.tell(json.dumps({"users": [_object(*one) for one in outcomes]}, indent=2))
    else:
        for outcome, stays in outcomes:
            stdio.tell("\n".join(_lines(outcome, stays, options.dry_run)))
    for user, error in failures if len(failures) > 1 else ():
        stdio.warn(f"{user}: {error}")
    if failures:
        user, error = failures[0]
        many = f"the mailboxes of {len(failures)} users are not finished"
        raise type(error)(f"{user}: {error}" if len(failures) == 1 else many)
    if full := [one.user for one, _ in outcomes if one.over_quota]:
        raise QuotaError(f"{full[0]}: the quota has no room for more encrypted mail: raise it, and run this again")
    if left := sum(count for one, _ in outcomes for _, count in one.left):
        raise LeftError(f"{counted(left, 'message')} left in clear: see the report")
    return os.EX_OK


def _lines(outcome: Outcome, stays: Sequence[str], dry_run: bool) -> list[str]:
    if outcome.unkeyed:
        return [f"{outcome.user}: has no key, all is left as it is"]
    done = f"{counted(outcome.encrypted, 'message')} {'would be encrypted' if dry_run else 'encrypted'}"
    said = [f"{outcome.user}: {done}"]
    said += [f"{outcome.user}: {counted(count, 'message')} left in clear: {why}" for why, count in outcome.left]
    return said + [f"{outcome.user}: residue: {text}" for text in stays]


def _object(outcome: Outcome, stays: Sequence[str]) -> dict[str, object]:
    return {
        "user": outcome.user,
        "encrypted": outcome.encrypted,
        "left": [{"reason": why, "messages": count} for why, count in outcome.left],
        "over_quota": outcome.over_quota,
        "has_key": not outcome.unkeyed,
        "residue": list(stays),
    }
