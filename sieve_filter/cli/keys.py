"""The command `cryptomail keys`: sets up, shows, checks and removes owners' keys, one or thousands."""

import argparse
import functools
import json
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sieve_filter import errors, limits
from sieve_filter.cli import wiring
from sieve_filter.delivery import inventory, pipeline
from sieve_filter.discovery import refresh
from sieve_filter.dovecot.doveadm import Account
from sieve_filter.enrolment import service, sweep
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import (
    ConfigError,
    CryptomailError,
    FileError,
    NoKeyError,
    PlaceError,
    RefusedKeyError,
    ServiceError,
    UnknownUserError,
    UsageError,
)
from sieve_filter.gpg import temporary_home
from sieve_filter.keys import changes
from sieve_filter.keys import status as keyreport
from sieve_filter.keys.changes import REFUSED, Order, Outcome, Verdicts
from sieve_filter.keys.status import OwnerState
from sieve_filter.notify import post, reminders
from sieve_filter.notify.post import Post
from sieve_filter.openpgp import blocks, certificate, wkd
from sieve_filter.openpgp.certificate import Certificate, Reading
from sieve_filter.owners import directory, owner, register
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Settings
from sieve_filter.system import pool, stdio
from sieve_filter.system.pool import Identity

_STATUSES = (changes.IMPORTED, changes.RENEWED, changes.UNCHANGED, REFUSED)
_RARE = (
    changes.REVOKED,
    refresh.KEPT,
    refresh.DIFFERENT,
    refresh.REMOVED,
    refresh.FAILED,
)  # counted where there are some
_SUFFIXES = (".asc", ".pgp", ".gpg", ".key")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_VET_AT_ONCE = 1 + (os.cpu_count() or 1)  # one of them always waits for its keys to be put into place
_PUT_AT_ONCE = 2 * (os.cpu_count() or 1)  # that is to wait for the disk, half of the time
_LARGE = 100_000  # octets of a certificate
_WHOLE, _SPARE = "key", "addresses"  # columns of tables: which is never wrapped, and which a narrow one does without
_ROWS = 50  # what a person still reads on a terminal


Advance = Callable[[int], None]  # it is told how much more is done


class Site(NamedTuple):
    """The administrator's settings and where homes are; `home` where one was named."""

    settings: Settings
    template: str | None
    home: str | None

    def accounts(self, users: Sequence[str]) -> Iterator[tuple[str, Account | CryptomailError]]:
        """The account of each of these users, or why there is none."""
        if self.home:
            return ((user, Account(user, None, None, self.home)) for user in users)
        return directory.find_each(users, self.template)

    def owner_of(self, account: Account | CryptomailError) -> Owner:
        """The owner who has that account. Raises UsageError, or why there is none."""
        if isinstance(account, CryptomailError):
            raise account
        return owner.identify({"USER": account.user, "HOME": account.home}, self.settings.aliases, "")

    def owner(self, user: str) -> Owner:
        """The owner `user`. Raises UsageError, UnknownUserError."""
        ((_, account),) = self.accounts([user])
        return self.owner_of(account)

    def keyring(self, whose: Owner) -> str:
        """The GnuPG home that keys of `whose` are put into. Raises UsageError where it would be others' too."""
        return service.place(self.settings, whose)


def add_to(parser: argparse.ArgumentParser, defaults: Post) -> Any:
    """Add what may follow `cryptomail keys`; `defaults` are the ways to deliver notices.

    Out: argparse's collection of actions, for others to add theirs.
    """
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    action = add_action(actions, "import", "set up keys", _import)
    action.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help="certificates; with --all, a folder of USER.asc files; - for standard input",
    )
    action.add_argument(
        "--foreign", action="store_true", help="take keys without an address of the owner's, such as a recovery key"
    )
    post.add_choice(action, defaults)
    add_action(actions, "list", "list keys", _list)
    add_action(actions, "show", "tell all about one owner's keys", _show, everybody=False)
    action = add_action(actions, "remove", "take a key out of an owner's keyring", _remove, everybody=False)
    action.add_argument("fingerprint", metavar="FINGERPRINT", help="the full fingerprint")
    post.add_options(action, defaults)
    add_action(actions, "off", "have mail stored in clear for an owner whose keys are gone", _off, everybody=False)
    add_action(actions, "note", "note whose mail is encrypted, so that it waits where their keyrings are gone", _note)
    action = add_action(actions, "export", "write an owner's keys, or a Web Key Directory of everybody's", _export)
    action.add_argument("--wkd", metavar="DIR", help="with --all: write a Web Key Directory there")
    action = add_action(
        actions, "test", "say whether mail would be encrypted now, and to which keys", _test, everybody=False
    )
    action.add_argument("--send", action="store_true", help="send the owner a message that is encrypted to them")
    post.add_options(action, defaults)
    action = add_action(actions, "check", "find keys that are expired, about to, weak or unreadable", _check)
    action.add_argument("--warn-days", type=_days, default=30, metavar="DAYS", help="how soon is soon (default: 30)")
    action.add_argument("--prometheus", action="store_true", help="write Prometheus' text format")
    action.add_argument(
        "--notify", action="store_true", help="tell owners whose keys expire within 30 days, 7 days, one day; each once"
    )
    post.add_options(action, defaults)
    action = add_action(actions, "sweep", "take secret keys out of owners' folders for keys", _sweep)
    action.set_defaults(folder=defaults.folder)
    return actions


def _days(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return int(text)


def add_action(
    actions: Any,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace, Site], int],
    everybody: bool = True,
) -> argparse.ArgumentParser:
    """Add an action. `everybody` says whether it has --all."""
    action: argparse.ArgumentParser = actions.add_parser(name, help=text)
    action.add_argument("--user", metavar="NAME", help="the mailbox owner, as Dovecot names them")
    if everybody:
        action.add_argument("--all", action="store_true", help="all owners")
    action.add_argument("--home", metavar="DIRECTORY", help="with --user: the owner's home directory")
    action.add_argument("--home-template", metavar="PATH", help="where homes are, with %%u, %%n, %%d filled in")
    action.add_argument("--config", metavar="FILE", help="settings to use instead of the installed ones")
    if name not in ("export", "remove", "off", "note"):
        action.add_argument("--json", action="store_true", help="write JSON")
    action.set_defaults(run=functools.partial(_run, run), action=name)
    return action


def _run(action: Callable[[argparse.Namespace, Site], int], options: argparse.Namespace, config_file: str) -> int:
    pool.stop_on_signals()
    everybody = getattr(options, "all", None)
    if bool(options.user) == bool(everybody):
        choice = "name --user, or --all" if hasattr(options, "all") else "name --user"
        raise UsageError(f"{choice}; see cryptomail keys {options.action} --help")
    if options.home and everybody:
        raise UsageError("--home is one owner's: with --all use --home-template")
    if options.home_template is not None:
        directory.check(options.home_template)
    settings = pipeline.settings(options.config, config_file, None, options.register)
    return action(options, Site(settings, options.home_template, options.home))


def _import(options: argparse.Namespace, site: Site) -> int:
    if options.user:
        if not options.files:
            raise UsageError("keys import --user: name a FILE, or - for standard input")
        given = _certificates_of_files(options.files)
        whose = site.owner(options.user)
        everything = Given(lambda _: iter([(whose, given)]), len(given), [])
    else:
        if len(options.files) != 1:
            raise UsageError("--all takes one folder, or - for standard input; see cryptomail keys import --help")
        if options.foreign and options.files == ["-"]:
            raise UsageError("--foreign goes with --user, or a folder: of a stream, each key goes to its own addresses")
        everything = _orders_of_everybody(options.files[0], site)
    outcomes = everything.refused
    with progress(everything.steps, options.json) as advance:
        orders = everything.orders(advance)
        enrol_orders(orders, site, options, outcomes, advance, not everything.by_address, options.foreign)
    return tell_outcomes(outcomes, options.json)


def enrol_orders(
    orders: Iterable[tuple[Owner, tuple[Certificate, ...]]],
    site: Site,
    options: argparse.Namespace,
    outcomes: list[Outcome],
    advance: Advance,
    named: bool,
    foreign: bool = False,
) -> None:
    """Set up certificates, and add what became of them to `outcomes`; tell owners, unless `options` say not to.

    They are vetted many at a time, whosever they are, and by nobody; then each user's are put into place by that user.
    """
    temporary_home.sweep()
    places: dict[str, str] = {}
    nobody = pool.nobody()
    given = ((nobody, one) for one in _orders(orders, site, places, outcomes, named, foreign))
    vetting = pool.each(
        ((identity, [batch]) for identity, batch in in_chunks(given, lambda one: _weight(one[1]))),
        functools.partial(_vet, minimum_bits=site.settings.keyrings.minimum_bits),
        limits.VETTING_SECONDS,
        _VET_AT_ONCE,
    )
    desk = desk_of(options, site)
    put = functools.partial(service.set_up, desk=desk) if desk else functools.partial(_set_up, site=site)
    changed = False
    with closing(vetting):
        for batch, verdicts in vetting:
            if isinstance(verdicts, CryptomailError):
                for _, (_, order) in batch:
                    outcomes += _refused(order, verdicts)
                continue
            vetted = ((identity, (*one, its)) for (identity, one), its in zip(batch, verdicts, strict=True))
            for (_, order, _), told in pool.each(in_chunks(vetted, _weight), put, at_once=_PUT_AT_ONCE):
                done = _refused(order, told) if isinstance(told, CryptomailError) else told
                outcomes += done
                changed = changed or any(
                    one.status in (changes.IMPORTED, changes.RENEWED, changes.REVOKED) for one in done
                )
                advance(len(done))
    if changed and not desk and not options.no_notify:
        stdio.warn(f"owners were not told of it, for {post.NO_WAY}; --no-notify says that nobody shall be")
    os.sync()  # one for all: a keyring that is said to be there has to be there after a power failure, too


def desk_of(options: argparse.Namespace, site: Site) -> Desk | None:
    """What owners are told with; None where they are not to be told, or there is no way to."""
    where = post.chosen(options)
    return Desk(site.settings, where, stdio.warn) if post.ways(where) and not options.no_notify else None


def _vet(batch: Sequence[tuple[Identity, tuple[Owner, Order]]], minimum_bits: int) -> list[Verdicts]:
    """The verdicts on the order of each owner."""
    return changes.vet([order for _, (_, order) in batch], minimum_bits)


def _set_up(vetted: tuple[Owner, Order, Verdicts], site: Site) -> list[Outcome]:
    """Do an order, and tell nobody."""
    outcomes = changes.put([vetted[1:]], site.settings.keyrings.minimum_bits)
    service.note_enrolled(outcomes, site.settings, stdio.warn)
    return outcomes


def _refused(order: Order, error: CryptomailError) -> list[Outcome]:
    """What became of all certificates of an order that could not be done."""
    return [Outcome(order.user, order.keyring, one.fingerprint, REFUSED, str(error)) for one in order.certificates]


def _certificates_of_files(names: Sequence[str]) -> tuple[Certificate, ...]:
    """The certificates in all of these files. Raises RefusedKeyError unless each can be read whole."""
    certificates: list[Certificate] = []
    for name in names:
        reading = _read(name, limits.CERTIFICATE_FILE_OCTETS)
        if problem := _problem(reading):
            raise RefusedKeyError(f"{'standard input' if name == '-' else name}: {problem}; nothing was imported")
        certificates += reading.certificates
    return tuple(certificates)


def _problem(reading: Reading) -> str:
    if reading.secret:
        return "it holds a SECRET key, which must never be on a mail server: give the public one (gpg --export)"
    return "; ".join(reading.problems)


class Given(NamedTuple):
    """What is to be imported: the certificates by owner, in how many steps, and what of it nobody can have.

    Where owners have to be looked up, each is a step, of which `orders` tells what it is called with. `by_address` says
    that nobody named the owners but the certificates themselves.
    """

    orders: Callable[[Advance], Iterator[tuple[Owner, tuple[Certificate, ...]]]]
    steps: int
    refused: list[Outcome]
    by_address: bool = False


def _orders_of_everybody(source: str, site: Site) -> Given:
    """Whose certificates the folder, or standard input, has."""
    if source == "-":
        return _orders_of_stream(site)
    try:
        files = sorted(path for path in Path(source).iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror}") from error
    if not files:
        raise UsageError(f"{source} has no file named USER.asc, USER.pgp, USER.gpg or USER.key")
    refused: list[Outcome] = []

    def orders(advance: Advance) -> Iterator[tuple[Owner, tuple[Certificate, ...]]]:
        for path, (_, account) in zip(files, site.accounts([path.stem for path in files]), strict=True):
            advance(1)
            try:
                whose = site.owner_of(account)
                reading = _read(str(path), limits.CERTIFICATE_FILE_OCTETS, named=False)
                if problem := _problem(reading):
                    raise RefusedKeyError(problem)
            except CryptomailError as error:
                refused.append(Outcome(path.stem, str(path), "", REFUSED, str(error)))
                advance(1)
            else:
                yield whose, reading.certificates

    return Given(orders, 2 * len(files), refused)


def _orders_of_stream(site: Site) -> Given:
    reading = _read("-", limits.CERTIFICATE_STREAM_OCTETS)
    if reading.secret:
        raise RefusedKeyError(f"standard input: {_problem(reading)}; nothing was imported")
    refused = [Outcome("", "", "", REFUSED, problem) for problem in reading.problems]
    users: dict[str, list[Certificate]] = {}
    for one in reading.certificates:
        if one.problem:
            refused.append(Outcome(" ".join(sorted(one.addresses)), "", one.fingerprint, REFUSED, one.problem))
        elif not one.addresses:
            refused.append(Outcome("", "", one.fingerprint, REFUSED, "no user ID of it has an address"))
        for address in () if one.problem else sorted(one.addresses):
            users.setdefault(address, []).append(one)

    def orders(advance: Advance) -> Iterator[tuple[Owner, tuple[Certificate, ...]]]:
        strangers: dict[Certificate, Outcome] = {}
        theirs: set[Certificate] = set()
        for user, account in site.accounts(list(users)):
            advance(1)
            certificates = users[user]
            try:
                whose = site.owner_of(account)
                # A stranger's address must not make a directory: only who is there already is a user.
                if site.template is not None and not Path(whose.home).is_dir():
                    raise UnknownUserError(f"there is no such user: {whose.home} is not a directory")
            except (CryptomailError, OSError) as error:
                strangers |= {one: Outcome(user, "", one.fingerprint, REFUSED, str(error)) for one in certificates}
                advance(len(certificates))
            else:
                theirs.update(certificates)
                yield whose, tuple(certificates)
        # People have other addresses too: what counts is that one of a certificate's is a user's.
        refused.extend(outcome for one, outcome in strangers.items() if one not in theirs)

    return Given(orders, len(users) + sum(map(len, users.values())), refused, by_address=True)


def _orders(
    given: Iterable[tuple[Owner, tuple[Certificate, ...]]],
    site: Site,
    places: dict[str, str],
    refused: list[Outcome],
    named: bool,
    foreign: bool,
) -> Iterator[tuple[Identity, tuple[Owner, Order]]]:
    for whose, certificates in given:
        keyring = site.keyring(whose)
        try:
            if places.setdefault(keyring, whose.user) != whose.user:
                raise RefusedKeyError(f"its keyring would be that of {places[keyring]}: mend keyrings.owner")
            identity = pool.identity_of(whose.home)
            register.make(site.settings.register, *identity)
        except CryptomailError as error:
            refused.extend(Outcome(whose.user, keyring, one.fingerprint, REFUSED, str(error)) for one in certificates)
        else:
            yield identity, (whose, service.order(whose, certificates, site.settings, named, foreign))


def _weight(one: tuple[Any, ...]) -> int:
    """How many certificates an order has, where a large one counts for more; it stands behind its owner."""
    return sum(1 + len(certificate.packets) // _LARGE for certificate in one[1].certificates)


def in_chunks(
    items: Iterable[tuple[Identity, Any]], weight: Callable[[Any], int]
) -> Iterator[tuple[Identity, Sequence[Any]]]:
    """Items of the same identity together, of that weight at most: what one process is given."""
    waiting: dict[Identity, list[Any]] = {}
    for identity, item in items:
        chunk = waiting.setdefault(identity, [])
        chunk.append(item)
        if sum(map(weight, chunk)) >= limits.CERTIFICATES_AT_ONCE:
            yield identity, waiting.pop(identity)
    yield from waiting.items()


def _part(number: int, outcomes: Sequence[Outcome]) -> str:
    return f"{number} of {keyreport.counted(len(outcomes), 'key')} {'was' if number == 1 else 'were'}"


def tell_outcomes(outcomes: list[Outcome], as_json: bool) -> int:
    """Write the report. Out: the exit code, where all is well; else raises what says how many are not."""
    if as_json:
        stdio.tell(json.dumps([one._asdict() for one in outcomes], indent=2))
    else:
        told = outcomes
        if sys.stdout.isatty() and len(told) > _ROWS:
            told = [one for one in outcomes if one.note]
        _table(("user", "what", "key", "why"), [(one.user, one.status, one.fingerprint, one.note) for one in told])
        counts = ", ".join(
            f"{sum(one.status == status for one in outcomes)} {status}"
            for status in (*_STATUSES, *(one for one in _RARE if any(outcome.status == one for outcome in outcomes)))
        )
        stdio.tell(counts)
    refused = sum(one.status == REFUSED for one in outcomes)
    if refused:
        raise RefusedKeyError(f"{_part(refused, outcomes)} refused: see the report")
    revoked = sum(one.status == changes.REVOKED for one in outcomes)
    if revoked:
        raise RefusedKeyError(f"{_part(revoked, outcomes)} revoked: see the report")
    different = sum(one.status == refresh.DIFFERENT for one in outcomes)
    if different:
        raise RefusedKeyError(f"{different} of {len(outcomes)} keys are other ones than before: see the report")
    failed = sum(one.status == refresh.FAILED for one in outcomes)
    if failed:
        raise ServiceError(f"{failed} of {len(outcomes)} users' keys could not be looked up: see the report")
    return os.EX_OK


class Failure(NamedTuple):
    """Whose keys cannot be looked at, and why."""

    user: str
    error: CryptomailError


@dataclass
class Rest:
    """Who is not looked at: of whom nothing can be told, and the names of accounts that are no owners'."""

    failures: list[Failure] = field(default_factory=list)
    passed_over: set[str] = field(default_factory=set)


def names(options: argparse.Namespace, site: Site) -> list[str]:
    """The users that are asked for. Raises UnknownUserError where Dovecot cannot tell."""
    return [options.user] if options.user else list(directory.everybody(site.template))


def owners(
    asked: Sequence[str], options: argparse.Namespace, site: Site, rest: Rest, advance: Advance = lambda _: None
) -> Iterator[tuple[Identity, Owner]]:
    """The owners among those users, each with whose rights their keyring is looked at; of others, `rest` tells.

    `advance` is called for each user who is found, and once more for each who is not looked at.
    """
    outsiders = None if options.user else directory.outsiders(site.settings.not_owners, site.template)
    for user, account in site.accounts(asked):
        advance(1)
        if outsiders is not None and outsiders.have(user, account):
            rest.passed_over.add(user)
            advance(1)
            continue
        try:
            whose = site.owner_of(account)
            identity = pool.identity_of(whose.home)
        except CryptomailError as error:
            rest.failures.append(Failure(user, error))
            advance(1)
        else:
            yield identity, whose


def _states(options: argparse.Namespace, site: Site, rest: Rest, warn_days: int = 30) -> list[OwnerState]:
    """The states of the owners that are asked for, by name. Who cannot be looked at is added to `rest` too."""
    states: list[OwnerState] = []
    work = functools.partial(inventory.look, settings=site.settings, warn_days=warn_days)
    asked = names(options, site)
    with progress(2 * len(asked), bool(options.json or options.user)) as advance:
        for whose, state in pool.each(in_chunks(owners(asked, options, site, rest, advance), lambda _: 1), work):
            advance(1)
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


def finish(failures: Sequence[Failure]) -> int:
    """The exit code, where nothing failed; else raises what is told last, after a line for each where there are more.

    The code is that of the first failure.
    """
    if not failures:
        return os.EX_OK
    if len(failures) == 1:
        raise type(failures[0].error)(f"{failures[0].user}: {failures[0].error}")
    for one in failures:
        stdio.warn(f"{one.user}: {one.error}")
    raise type(failures[0].error)(f"the keys of {len(failures)} users cannot be looked at")


def _list(options: argparse.Namespace, site: Site) -> int:
    rest = Rest()
    states = _states(options, site, rest)
    if options.json:
        stdio.tell(keyreport.as_json(states))
    elif options.all or not rest.failures:
        _table(("user", "key", "addresses", "expires", "state"), keyreport.rows(states))
        failed = {one.user for one in rest.failures}
        for one in states:
            if one.notes and not one.keys and one.state and one.user not in failed:
                stdio.warn(f"{one.user}: {one.notes[0]}")
    return finish(rest.failures)


def _show(options: argparse.Namespace, site: Site) -> int:
    rest = Rest()
    states = _states(options, site, rest)
    if options.json:
        stdio.tell(keyreport.as_json(states))
    elif not rest.failures:
        stdio.tell("\n".join(keyreport.details(states[0])))
    return finish(rest.failures)


def _check(options: argparse.Namespace, site: Site) -> int:
    if options.json and options.prometheus:
        raise UsageError("--json or --prometheus, not both")
    rest = Rest()
    states = _states(options, site, rest, options.warn_days)
    if options.user and options.folder and site.home is None and site.template is None:
        _sweep_before_check(options.user, options.folder)
    if options.notify:
        _notify(states, site, post.chosen(options))
    wired = wiring.look(options.dovecot_conf)
    if wired.state != keyreport.OK:
        states.append(OwnerState("(all)", "", wired.state, (wired.note,), ()))
    if options.prometheus:
        stdio.tell(keyreport.as_prometheus(states, len(rest.passed_over)))
    elif options.json:
        stdio.tell(keyreport.check_as_json(states, len(rest.passed_over)))
    else:
        stdio.tell("\n".join([keyreport.summary(states, len(rest.passed_over)), *keyreport.lines(states)]))
    return keyreport.worst(states)


def _sweep(options: argparse.Namespace, site: Site) -> int:
    if not options.folder:
        raise UsageError("there is no folder for keys: this was installed with an empty KEY_FOLDER")
    rest = Rest()
    users = [whose.user for _, whose in owners(names(options, site), options, site, rest)]
    swept = sweep.sweep(users, options.folder, stdio.warn)
    if options.json:
        stdio.tell(json.dumps([{"user": one.user, "removed": one.removed} for one in swept if one.error is None]))
    else:
        count = keyreport.counted(sum(one.removed for one in swept), "message")
        stdio.tell(f"{count} with a secret key removed from the folders {options.folder} of {len(swept)} users")
    return finish([*rest.failures, *(Failure(one.user, one.error) for one in swept if one.error is not None)])


def _sweep_before_check(user: str, folder: str) -> None:
    (swept,) = sweep.sweep([user], folder, stdio.warn)
    if swept.error is not None:
        stdio.warn(f"the folder {folder} of {user!r} was not looked at: {swept.error}")


def guarded_check(work: Callable[[], int]) -> int:
    """Do `work`, which is `keys check`: a monitor knows four exit codes only, and reads standard output.

    Where it fails, whatever the reason, it is told that nothing is known, in the form that the command line asks for.
    """
    try:
        return work()
    except Exception as error:
        failed = [keyreport.unknown("everybody", str(errors.known(error)))]
    if "--prometheus" in sys.argv:
        text = keyreport.as_prometheus(failed, 0)
    elif "--json" in sys.argv:
        text = keyreport.check_as_json(failed, 0)
    else:
        text = keyreport.cannot(failed[0])
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
                home = site.owner(one.user).home
                soon.append((pool.identity_of(home), (one, home)))
            except CryptomailError as error:
                stdio.warn(f"{one.user} was not told that a key expires: {error}")
    for (owner_state, _), done in pool.each(in_chunks(soon, lambda _: 1), work):
        if isinstance(done, CryptomailError):
            stdio.warn(f"{owner_state.user} was not told that a key expires: {done}")
            continue
        for told in done:
            if told.problem:
                stdio.warn(f"{told.user} was not told that key {told.fingerprint} expires: {told.problem}")


def _remove(options: argparse.Namespace, site: Site) -> int:
    fingerprint = options.fingerprint.replace(" ", "").upper().removeprefix("0X")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError(f"{options.fingerprint!r} is not a full fingerprint (40 or 64 hexadecimal digits)")
    whose = site.owner(options.user)
    keyring = site.keyring(whose)
    desk = Desk(site.settings, post.chosen(options), stdio.warn)
    left = as_owner(whose, functools.partial(service.remove, fingerprint, whose, desk))
    os.sync()
    rest = f"{left} left" if left else "no key is left: mail is stored as the setting no_key says"
    stdio.tell(f"removed {fingerprint} from {keyring}; {rest}")
    return os.EX_OK


def _note(options: argparse.Namespace, site: Site) -> int:
    rest = Rest()

    def noticed() -> Iterator[tuple[Identity, Owner]]:
        for identity, whose in owners(names(options, site), options, site, rest):
            register.make(site.settings.register, *identity)
            yield identity, whose

    if options.all and os.geteuid() == 0:
        register.mark_upgrade(site.settings.register)
    count = 0
    work = functools.partial(inventory.note, settings=site.settings)
    for whose, noted in pool.each(in_chunks(noticed(), lambda _: 1), work):
        if isinstance(noted, CryptomailError):
            rest.failures.append(Failure(whose.user, noted))
        else:
            count += noted
    os.sync()
    stdio.tell(f"noted that mail for {count} users is encrypted")
    return finish(rest.failures)


def _off(options: argparse.Namespace, site: Site) -> int:
    try:
        whose = site.owner(options.user)
        keys = as_owner(whose, functools.partial(inventory.look, whose, site.settings, 0)).keys
    except (UnknownUserError, PlaceError):
        keys = ()  # that is what this is for
    if keys:
        raise RefusedKeyError(f"{options.user} has a key: cryptomail keys remove takes it away, and turns this off")
    if register.forget(site.settings.register, options.user):
        stdio.tell(f"mail for {options.user} is stored as the setting no_key says from now on")
    else:
        stdio.tell(f"nothing was noted of {options.user}")
    return os.EX_OK


def _test(options: argparse.Namespace, site: Site) -> int:
    whose = site.owner(options.user)
    fingerprints, why = as_owner(whose, functools.partial(inventory.try_out, whose, site.settings))
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


def _export(options: argparse.Namespace, site: Site) -> int:
    if bool(options.all) != bool(options.wkd):
        raise UsageError("keys export: --wkd DIR goes with --all, and --user without it")
    keyrings = site.settings.keyrings
    if options.user:
        whose = site.owner(options.user)
        keys = as_owner(whose, functools.partial(inventory.export, whose, keyrings))
        if not keys:
            raise RefusedKeyError(f"{whose.user} has no key in {site.keyring(whose)}")
        stdio.write(blocks.armored(blocks.PUBLIC_KEY, b"".join(keys.values())))
        return os.EX_OK
    written = 0
    domains: set[str] = set()
    rest = Rest()
    work = functools.partial(inventory.export, keyrings=keyrings)
    for whose, found in pool.each(in_chunks(owners(names(options, site), options, site, rest), lambda _: 1), work):
        if isinstance(found, CryptomailError):
            rest.failures.append(Failure(whose.user, found))
            continue
        # Section 3.1 of the draft: a file holds keys with that address only.
        fits = [one for one in found.values() if whose.user.lower() in _addresses(one)]
        if fits and "@" in whose.user:
            _put(Path(options.wkd, wkd.key_path(whose.user)), b"".join(fits))
            domains.add(whose.user.rpartition("@")[2])
            written += 1
    for domain in domains:
        _put(Path(options.wkd, wkd.policy_path(domain)), wkd.POLICY)
    whose_keys = "1 user's keys" if written == 1 else f"{written} users' keys"
    stdio.tell(f"{whose_keys} written to {options.wkd}, for {keyreport.counted(len(domains), 'domain')}")
    return finish(rest.failures)


def _addresses(packets: bytes) -> frozenset[str]:
    return frozenset(address for one in certificate.read(packets).certificates for address in one.addresses)


def _put(path: Path, content: bytes) -> None:
    """Write a file that a web server shows to everybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


_T = TypeVar("_T")


def as_owner(whose: Owner, work: Callable[[], _T]) -> _T:
    """Do `work` in a process that has that owner's rights and no others."""
    return pool.alone(pool.identity_of(whose.home), work)


def _read(name: str, most: int, named: bool = True) -> Reading:
    """The certificates in a file, or in standard input; in a pipe only where that was `named`. Raises FileError."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with open(name, "rb", opener=None if named else _without_waiting) as file:
                data = file.read(most + 1)
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror}") from error
    if len(data) > most:
        raise RefusedKeyError(f"{name} is larger than {most} octets")
    return certificate.read(data)


def _without_waiting(path: str, flags: int) -> int:
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{path} is not a file")
    return descriptor


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; else lines with tabs between, for programs."""
    if not sys.stdout.isatty():
        if rows:
            stdio.tell("\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows))
        return
    from rich.console import Console  # takes longer to load than a message to filter
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    shown = [[stdio.for_terminal(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    if sum(widths) + 3 * (len(head) - 1) > console.width:  # mostly an owner's only address is the user name
        shown = [[cell for name, cell in zip(head, row, strict=True) if name != _SPARE] for row in shown]
    # A fingerprint is worth nothing in part: other columns are wrapped.
    columns = (Column(name, overflow="fold", no_wrap=name == _WHOLE) for name in shown[0])
    table = Table(*columns, show_edge=False, pad_edge=False)
    for row in shown[1:]:
        table.add_row(*map(Text, row))  # as text: square brackets in a user ID are no markup
    console.print(table)


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Advance]:
    """A progress bar on standard error, where that is a terminal. Its value is called with how many were done."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Without auto_refresh it has no thread, which a fork would leave halfway.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("working", total=total)
        yield lambda count: bar.update(task, advance=count, refresh=True)
