"""The command `cryptomail keys`: its actions and options; and what takes keys away and notes who had some."""

import argparse
import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from sieve_filter.cli.keys_export import export
from sieve_filter.cli.keys_import import import_keys
from sieve_filter.cli.keys_status import check, list_keys, show, test
from sieve_filter.cli.site import Failure, Rest, Site, as_owner, finish, in_chunks, names, owners
from sieve_filter.delivery import inventory, pipeline
from sieve_filter.enrolment import answer, service, sweep
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import (
    CryptomailError,
    PlaceError,
    RefusedKeyError,
    UnknownUserError,
    UsageError,
)
from sieve_filter.keys import status as keyreport
from sieve_filter.notify import post
from sieve_filter.notify.post import Post
from sieve_filter.owners import directory, register
from sieve_filter.owners.owner import Owner
from sieve_filter.system import pool, stdio
from sieve_filter.system.pool import Identity

_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")


def add_to(parser: argparse.ArgumentParser, defaults: Post) -> Any:
    """Add what may follow `cryptomail keys`; `defaults` are the ways to deliver notices.

    Returns argparse's collection of actions, for others to add theirs.
    """
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    action = add_action(actions, "import", "set up keys", import_keys)
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
    add_action(actions, "list", "list keys", list_keys)
    add_action(actions, "show", "tell all about one owner's keys", show, everybody=False)
    action = add_action(actions, "remove", "take a key out of an owner's keyring", _remove, everybody=False)
    action.add_argument("fingerprint", metavar="FINGERPRINT", help="the full fingerprint")
    post.add_options(action, defaults)
    add_action(actions, "off", "have mail stored in clear for an owner whose keys are gone", _off, everybody=False)
    add_action(actions, "note", "note whose mail is encrypted, so that it waits where their keyrings are gone", _note)
    action = add_action(actions, "export", "write an owner's keys, or a Web Key Directory of everybody's", export)
    action.add_argument("--wkd", metavar="DIR", help="with --all: write a Web Key Directory there")
    action = add_action(
        actions, "test", "say whether mail would be encrypted now, and to which keys", test, everybody=False
    )
    action.add_argument(
        "--send", action="store_true", help="send the owner a message that shows whether mail is encrypted"
    )
    post.add_options(action, defaults)
    action = add_action(actions, "check", "find keys that are expired, about to, weak or unreadable", check)
    action.add_argument("--warn-days", type=_days, default=30, metavar="DAYS", help="how soon is soon (default: 30)")
    action.add_argument("--prometheus", action="store_true", help="write Prometheus' text format")
    action.add_argument(
        "--quantum", action="store_true", help="name owners whose mail a quantum computer could read, too"
    )
    action.add_argument(
        "--notify", action="store_true", help="tell owners whose keys expire within 30 days, 7 days, one day; each once"
    )
    post.add_options(action, defaults)
    action = add_action(
        actions, "sweep", "take secret keys out of owners' folders for keys, and what they asked to be removed", _sweep
    )
    action.set_defaults(folder=defaults.folder, socket=defaults.socket_path, sendmail=defaults.sendmail_path)
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


def _sweep(options: argparse.Namespace, site: Site) -> int:
    if not options.folder:
        raise UsageError("there is no folder for keys: this was installed with an empty KEY_FOLDER")
    rest = Rest()
    everybody = list(owners(names(options, site), options, site, rest))
    swept = sweep.sweep([whose.user for _, whose in everybody], options.folder, stdio.warn)
    work = functools.partial(answer.remove_overdue, desk=Desk(site.settings, post.chosen(options), stdio.warn))
    overdue = 0
    for whose, removed in pool.each(in_chunks(everybody, lambda _: 1), work):
        if isinstance(removed, CryptomailError):
            rest.failures.append(Failure(whose.user, removed))
        else:
            overdue += removed
    if options.json:
        stdio.tell(json.dumps([{"user": one.user, "removed": one.removed} for one in swept if one.error is None]))
    else:
        count = keyreport.counted(sum(one.removed for one in swept), "message")
        stdio.tell(f"{count} with a secret key removed from the folders {options.folder} of {len(swept)} users")
        if overdue:
            stdio.tell(f"{keyreport.counted(overdue, 'key')} removed, as their owners had asked")
    return finish([*rest.failures, *(Failure(one.user, one.error) for one in swept if one.error is not None)])


def _remove(options: argparse.Namespace, site: Site) -> int:
    fingerprint = options.fingerprint.replace(" ", "").upper().removeprefix("0X")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise UsageError(f"{options.fingerprint!r} is not a full fingerprint (40 or 64 hexadecimal digits)")
    whose = site.owner(options.user)
    desk = Desk(site.settings, post.chosen(options), stdio.warn)
    gone = as_owner(whose, functools.partial(service.remove, fingerprint, whose, desk))
    os.sync()
    rest = f"{gone.left} left" if gone.left else "no key is left there: keys test says what becomes of mail now"
    stdio.tell(f"removed {fingerprint} from {gone.place}; {rest}")
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
