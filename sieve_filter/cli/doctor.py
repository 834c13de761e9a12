"""`cryptomail doctor`: is it on, and will it stay on?"""

import argparse
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from sieve_filter import errors
from sieve_filter.delivery import pipeline
from sieve_filter.doctor import examine
from sieve_filter.doctor.examine import Installed
from sieve_filter.doctor.finding import Finding, worst
from sieve_filter.errors import CryptomailError, FileError, UsageError
from sieve_filter.keys.status import CRITICAL, NAMES, OK, UNKNOWN, WARNING
from sieve_filter.notify.post import Post
from sieve_filter.owners import register
from sieve_filter.system import pool, stdio


def add_to(parser: argparse.ArgumentParser, defaults: Post) -> None:
    """Add what may follow `cryptomail doctor`; `defaults` are the ways to deliver."""
    parser.add_argument("--json", action="store_true", help="write JSON instead of text")
    parser.add_argument(
        "--dovecot-conf", default=argparse.SUPPRESS, metavar="FILE", help="Dovecot's main configuration file"
    )
    parser.add_argument("--probe", metavar="USER", help="send that owner a message, see how it is stored, remove it")
    parser.set_defaults(run=functools.partial(_run, defaults))


def _run(defaults: Post, options: argparse.Namespace, path: str) -> int:
    pool.stop_on_signals()
    if not options.dovecot_conf:
        raise UsageError("this was not installed into a Dovecot: name --dovecot-conf FILE")
    where = Installed(options.dovecot_conf, path, defaults.socket_path, defaults.folder, options.register)
    found = [*examine.examine(where), *_keys(options, path)]
    if options.probe:
        found += _probed(options, path, defaults)
    return _tell(found, options.json)


def _keys(options: argparse.Namespace, path: str) -> Iterator[Finding]:
    """How many owners have keys in trouble, among those whose mail is noted to be encrypted."""
    try:
        if not (asked := sorted(register.everybody(options.register)) if options.register else []):
            return
        from sieve_filter.cli import keys_status  # it loads more than all the rest
        from sieve_filter.cli.site import Rest, Site

        site = Site(pipeline.settings(None, path, None, options.register), None, None)
        quiet = argparse.Namespace(json=True, user=None, all=False)
        states = keys_status.states_of(quiet, site, Rest(), asked)
    except CryptomailError as error:
        yield Finding(
            UNKNOWN, f"owners' keys were not looked at: {error}", "it is not known", "cryptomail keys check --all"
        )
        return
    for state, why in (
        (CRITICAL, "their mail waits, or is stored in clear"),
        (UNKNOWN, "it is not known what becomes of their mail"),
        (WARNING, "a key expires soon, or is weak"),
    ):
        if troubled := [one.user for one in states if one.state == state]:
            whose = f"{troubled[0]}" + (f" and {len(troubled) - 1} more" if len(troubled) > 1 else "")
            yield Finding(state, f"keys of {whose} are in trouble", why, "cryptomail keys check --all")


def _probed(options: argparse.Namespace, path: str, defaults: Post) -> Iterator[Finding]:
    """What is wrong with what becomes of a message."""
    from sieve_filter.cli import doctor_probe  # likewise

    try:
        settings = pipeline.settings(None, path, None, options.register)
    except CryptomailError as error:
        yield Finding(UNKNOWN, f"no probe was sent: {error}", "it would show nothing", "cryptomail doctor")
        return
    yield from doctor_probe.probed(options.probe, options, settings, defaults)


def guarded(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Do `work`, which is `doctor`: a monitor knows four exit codes only, and reads standard output."""
    try:
        return work()
    except Exception as error:
        why = str(errors.known(error))
    with suppress(FileError):  # nobody reads it
        return _tell(
            [Finding(UNKNOWN, why, "nothing more was looked at", "cryptomail doctor --help")], "--json" in arguments
        )
    return UNKNOWN


def _tell(found: Sequence[Finding], as_json: bool) -> int:
    """Write what was found, the worst first. Returns the exit code."""
    state = worst(found)
    found = sorted(dict.fromkeys(found), key=lambda one: -one.state if one.state != UNKNOWN else -1.5)
    if as_json:
        findings = [one._asdict() | {"state": NAMES[one.state]} for one in found]
        stdio.tell(json.dumps({"state": NAMES[state], "findings": findings}, indent=2))
        return state
    summary = "nothing is wrong" if state == OK else f"{len(found)} finding{'s' if len(found) > 1 else ''}"
    lines = [f"{NAMES[one.state]}: {one.what}; {one.why}; run: {one.command}" for one in found]
    stdio.tell("\n".join([f"cryptomail doctor {NAMES[state]}: {summary}", *lines]))
    return state
