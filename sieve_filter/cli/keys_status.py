"""`cryptomail keys list`, `show`, `check` and `test`: how it is with owners' keys."""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from sieve_filter import errors
from sieve_filter.cli.site import Failure, Rest, Site, as_owner, finish, in_chunks, names, owners
from sieve_filter.cli.terminal import progress, table
from sieve_filter.delivery import inventory
from sieve_filter.doctor import wiring
from sieve_filter.enrolment import service, sweep
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import (
    ConfigError,
    CryptomailError,
    FileError,
    NoKeyError,
    UsageError,
)
from sieve_filter.keys import status as keyreport
from sieve_filter.keys.status import Check, OwnerState
from sieve_filter.notify import post, reminders
from sieve_filter.notify.post import Post
from sieve_filter.owners import register
from sieve_filter.system import pool, stdio
from sieve_filter.system.pool import Identity


def states_of(
    options: argparse.Namespace,
    site: Site,
    rest: Rest,
    asked: Sequence[str],
    warn_days: int = 30,
    homes: dict[str, str] | None = None,
) -> list[OwnerState]:
    """The states of the owners among those who are `asked` for, by name. Who cannot be looked at is added to `rest`.

    `homes` gets the homes of those who can.
    """
    states: list[OwnerState] = []
    work = functools.partial(inventory.look, settings=site.settings, warn_days=warn_days)
    with progress(2 * len(asked), bool(options.json or options.user)) as advance:
        for whose, state in pool.each(in_chunks(owners(asked, options, site, rest, advance), lambda _: 1), work):
            advance(1)
            if homes is not None:
                homes[whose.user] = whose.home
            if isinstance(state, CryptomailError):
                states.append(keyreport.unreadable(whose.user, str(state)))
                rest.failures.append(Failure(whose.user, state))
            else:
                states.append(state._replace(user=whose.user))  # whatever the process says
    # Whose home is not there may not be asked for at all, where homes are the directories that there are.
    noted = register.everybody(site.settings.register) - rest.passed_over
    lost = {one: "their home is not among those that there are" for one in noted if options.all}
    lost |= {one.user: str(one.error) for one in rest.failures if one.user in noted}
    there = {one.user for one in states}
    states += [keyreport.lost(user, why) for user, why in lost.items() if user not in there]
    there |= lost.keys()
    states += [keyreport.unknown(one.user, str(one.error)) for one in rest.failures if one.user not in there]
    return sorted(states, key=lambda one: one.user)


def list_keys(options: argparse.Namespace, site: Site) -> int:
    rest = Rest()
    states = states_of(options, site, rest, names(options, site))
    if options.json:
        stdio.tell(keyreport.as_json(states))
    elif options.all or not rest.failures:
        table(("user", "key", "addresses", "expires", "state"), keyreport.rows(states))
        failed = {one.user for one in rest.failures}
        for one in states:
            if one.notes and not one.keys and one.state and one.user not in failed:
                stdio.warn(f"{one.user}: {one.notes[0]}")
    return finish(rest.failures)


def show(options: argparse.Namespace, site: Site) -> int:
    rest = Rest()
    states = states_of(options, site, rest, names(options, site))
    if options.json:
        stdio.tell(keyreport.as_json(states))
    elif not rest.failures:
        stdio.tell("\n".join(keyreport.details(states[0])))
    return finish(rest.failures)


def check(options: argparse.Namespace, site: Site) -> int:
    if options.json and options.prometheus:
        raise UsageError("--json or --prometheus, not both")
    rest = Rest()
    homes: dict[str, str] = {}
    states = states_of(options, site, rest, names(options, site), options.warn_days, homes)
    if options.folder and site.home is None and site.template is None:
        states = _swept(states, homes, options)
    if options.notify:
        _notify(states, site, post.chosen(options))
    done = Check(states, len(rest.passed_over), wiring.look(options.dovecot_conf))
    if options.prometheus:
        stdio.tell(keyreport.as_prometheus(done))
    elif options.json:
        stdio.tell(keyreport.check_as_json(done))
    else:
        quantum = keyreport.quantum_lines(done) if options.quantum else []
        stdio.tell("\n".join([keyreport.summary(done), *keyreport.lines(done), *quantum]))
    return keyreport.worst(done)


def _swept(states: Sequence[OwnerState], homes: Mapping[str, str], options: argparse.Namespace) -> list[OwnerState]:
    """The states, with what was found in owners' folders for keys, secret keys in which are taken away."""
    folder = options.folder
    # Dovecot would make a home that is not there; it may only not be mounted.
    users = [user for user, home in homes.items() if os.path.isdir(home)]  # noqa: PTH112  # pathlib is slow
    swept = sweep.lately(users, folder, stdio.warn) if options.all else sweep.sweep(users, folder, stdio.warn)
    for one in swept:
        if one.error is not None:
            stdio.warn(f"the folder {folder} of {one.user!r} was not looked at: {one.error}")
    found = {one.user for one in swept if one.removed}
    note = f"saved a SECRET key in the folder {folder}: it was taken away, and must be replaced by a new key"
    return [
        one._replace(state=keyreport.CRITICAL, notes=(*one.notes, note)) if one.user in found else one for one in states
    ]


def guarded_check(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Do `work`, which is `keys check`: a monitor knows four exit codes only, and reads standard output.

    Where it fails, whatever the reason, it is told that nothing is known, in the form that `arguments` ask for.
    """
    try:
        return work()
    except Exception as error:
        failed = keyreport.failed(str(errors.known(error)))
    if "--prometheus" in arguments:
        text = keyreport.as_prometheus(failed)
    elif "--json" in arguments:
        text = keyreport.check_as_json(failed)
    else:
        text = keyreport.summary(failed)
    with suppress(FileError):  # nobody reads it
        stdio.tell(text)
    return keyreport.UNKNOWN


def _notify(states: Sequence[OwnerState], site: Site, where: Post) -> None:
    """Tell owners whose keys are about to expire; say on standard error who could not be told."""
    work = functools.partial(reminders.remind, where=where, now=int(time.time()))
    soon: list[tuple[Identity, tuple[OwnerState, str]]] = []
    for one in states:
        if any(key.used and reminders.due(key.expires, int(time.time()), ()) for key in one.keys):
            try:
                whose = site.owner(one.user)
                soon.append((pool.identity_of(whose.home, whose.uid), (one, whose.home)))
            except CryptomailError as error:
                stdio.warn(f"{one.user} was not told that a key expires: {error}")
    for (owner_state, _), done in pool.each(in_chunks(soon, lambda _: 1), work):
        if isinstance(done, CryptomailError):
            stdio.warn(f"{owner_state.user} was not told that a key expires: {done}")
            continue
        for told in done:
            if told.problem:
                stdio.warn(f"{told.user} was not told that key {told.fingerprint} expires: {told.problem}")


def test(options: argparse.Namespace, site: Site) -> int:
    whose = site.owner(options.user)
    fingerprints, _, why = as_owner(whose, functools.partial(inventory.try_out, whose, site.settings))
    wired = wiring.look(options.dovecot_conf)
    if fingerprints and wired.state == keyreport.CRITICAL:
        raise ConfigError(f"mail for {whose.user} is NOT encrypted: the keys are fine, but {wired.note}")
    if options.send:
        if not fingerprints:
            raise NoKeyError(f"{whose.user} has no key that mail is encrypted to")
        desk = Desk(site.settings, post.chosen(options), stdio.warn)
        as_owner(whose, functools.partial(service.send_trial, whose, desk))
    if options.json:
        stdio.tell(json.dumps({"user": whose.user, "encrypted": bool(fingerprints), "subkeys": list(fingerprints)}))
    elif fingerprints:
        stdio.tell(f"mail for {whose.user} is encrypted, to {', '.join(fingerprints)}")
    else:
        stdio.tell(f"mail for {whose.user} is NOT encrypted: {why}")
    if wired.note:
        stdio.warn(wired.note)
    return os.EX_OK
