"""The command `cryptomail settings`: what counts for an owner and why, and what an owner chooses."""

import argparse
import functools
import json
import os

from sieve_filter.cli.site import Site, as_owner
from sieve_filter.delivery import pipeline
from sieve_filter.errors import PlaceError, RefusedKeyError
from sieve_filter.keys import beside, choices
from sieve_filter.owners import directory
from sieve_filter.owners.owner import Owner
from sieve_filter.policy import levels
from sieve_filter.policy.settings import Settings
from sieve_filter.system import pool, stdio

_BACK = levels.DEFAULT


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what may follow `cryptomail settings`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    show = actions.add_parser("show", help="say what counts for an owner, and which level each setting comes from")
    show.add_argument("--json", action="store_true", help="write JSON")
    choose = actions.add_parser("choose", help="choose for an owner what the administrator lets owners choose")
    choose.add_argument("name", choices=list(levels.CHOICES), metavar="NAME", help=", ".join(levels.CHOICES))
    choose.add_argument("value", metavar="VALUE", help=f"a value of that setting, or {_BACK}")
    for action, run in ((show, _show), (choose, _choose)):
        action.add_argument("--user", metavar="NAME", required=True, help="the mailbox owner, as Dovecot names them")
        action.add_argument("--home", metavar="DIRECTORY", help="the owner's home directory")
        action.add_argument("--home-template", metavar="PATH", help="where homes are, with %%u, %%n, %%d filled in")
        action.add_argument("--config", metavar="FILE", help="settings to use instead of the installed ones")
        action.set_defaults(run=run)


def _site(options: argparse.Namespace, config_file: str) -> Site:
    pool.stop_on_signals()
    if options.home_template is not None:
        directory.check(options.home_template)
    settings = pipeline.settings(options.config, config_file, None, options.register)
    return Site(settings, options.home_template, options.home)


def _show(options: argparse.Namespace, config_file: str) -> int:
    site = _site(options, config_file)
    whose = site.owner(options.user)
    rows = as_owner(whose, functools.partial(_rows, whose, site.settings))
    if options.json:
        stdio.tell(json.dumps({name: {"value": value, "level": level} for name, value, level in rows}, indent=2))
    else:
        for name, value, level in rows:
            stdio.tell(f"{name:<14} {value:<18} {level}")
    return os.EX_OK


def _rows(whose: Owner, settings: Settings) -> list[tuple[str, str, str]]:
    effective = pipeline.for_owner(whose, settings, stdio.warn)
    return [(name, getattr(effective.settings, name), level) for name, level in effective.levels.items()]


def _choose(options: argparse.Namespace, config_file: str) -> int:
    site = _site(options, config_file)
    if options.name not in site.settings.owners_may:
        raise RefusedKeyError(
            f"owners may not choose {options.name}: owners_may in the configuration says what they may"
        )
    if options.value not in (*levels.CHOICES[options.name], _BACK):
        raise RefusedKeyError(f"{options.name} must be one of {', '.join(levels.CHOICES[options.name])}, or {_BACK}")
    whose = site.owner(options.user)
    site.keyring(whose)  # which is not others' too
    as_owner(whose, functools.partial(_write, whose, site.settings, options.name, options.value))
    os.sync()
    return _show(argparse.Namespace(**vars(options), json=False), config_file)


def _write(whose: Owner, settings: Settings, name: str, value: str) -> int:
    """Runs as the user whose keys they are."""
    file = choices.path(whose, settings.keyrings)
    chosen = {**(choices.read(file) or {}), name: value}
    chosen = {one: value for one, value in chosen.items() if value != _BACK}
    try:
        beside.replace(file, choices.written(chosen))
    except OSError as error:
        raise PlaceError(f"cannot write {file}: {error.strerror}") from error
    return len(chosen)
