"""The command `cryptomail mailbox`: its actions and options; and who looks at which mailbox, with whose rights."""

import argparse
import functools
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date
from typing import NamedTuple, TypeVar

from sieve_filter import limits
from sieve_filter.cli import passwords
from sieve_filter.cli.site import Rest, Site, owners
from sieve_filter.delivery import pipeline
from sieve_filter.dovecot import doveadm, imap
from sieve_filter.errors import CryptomailError, UsageError
from sieve_filter.mailbox import remote
from sieve_filter.openpgp import checksum
from sieve_filter.owners import directory
from sieve_filter.owners.owner import Owner
from sieve_filter.system import pool
from sieve_filter.system.pool import Identity

_R = TypeVar("_R")


class Job(NamedTuple):
    """A mailbox on this server: its owner, the descriptors of an IMAP session of theirs, and where the index of their
    INBOX is; empty where Dovecot does not say. `parent` is the process that wants to know.
    """

    owner: Owner
    responses: int
    commands: int
    indexes: str
    parent: int


def add_to(parser: argparse.ArgumentParser, key_folder: str) -> None:
    """Add what may follow `cryptomail mailbox`; `key_folder` is that in which owners save keys."""
    from sieve_filter.cli import mailbox_audit, mailbox_encrypt, mailbox_restore

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    action = actions.add_parser("audit", help="say what can still be read, of mail that is stored already")
    _add_options(action)
    action.add_argument("--prometheus", action="store_true", help="write Prometheus' text format")
    action.set_defaults(run=functools.partial(_run, mailbox_audit.run), action="audit")

    action = actions.add_parser("encrypt", help="encrypt mail that is stored in clear")
    _add_options(action)
    _add_changes(action, key_folder)
    action.add_argument("--key-file", metavar="FILE", help="with --imap: your public key or certificate")
    action.add_argument("--saved", action="store_true", help="only in the folders of the setting saved_folders")
    action.set_defaults(run=functools.partial(_run, mailbox_encrypt.run), action="encrypt")

    action = actions.add_parser("restore", help="store what was encrypted as it arrived, in clear, by your own gpg")
    _add_own(action)
    _add_changes(action, key_folder)
    _add_secret(action)
    action.set_defaults(run=functools.partial(_run, mailbox_restore.restore), action="restore")

    action = actions.add_parser("rekey", help="encrypt what was encrypted to other keys, by your own gpg")
    _add_own(action)
    _add_changes(action, key_folder)
    _add_secret(action)
    action.add_argument("--key-file", metavar="FILE", help="your new public key or certificate")
    action.set_defaults(run=functools.partial(_run, mailbox_restore.rekey), action="rekey")


def _add_changes(action: argparse.ArgumentParser, key_folder: str) -> None:
    action.add_argument("--before", type=_day, metavar="DATE", help="only what came before that day: 2026-01-31")
    action.add_argument("--dry-run", action="store_true", help="say how many messages it is about, and change nothing")
    action.set_defaults(key_folder=key_folder)


def _add_secret(action: argparse.ArgumentParser) -> None:
    action.add_argument("--smime-key", metavar="FILE", help="your certificate's secret key (default: what gpgsm has)")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, as 2026-01-31") from None


def _add_options(action: argparse.ArgumentParser) -> None:
    action.add_argument("--user", metavar="NAME", help="the mailbox owner, as Dovecot names them")
    action.add_argument("--all", action="store_true", help="all owners")
    action.add_argument("--home", metavar="DIRECTORY", help="with --user: the owner's home directory")
    action.add_argument("--home-template", metavar="PATH", help="where homes are, with %%u, %%n, %%d filled in")
    _add_own(action)


def _add_own(action: argparse.ArgumentParser) -> None:
    action.add_argument("--config", metavar="FILE", help="settings to use instead of the installed ones")
    action.add_argument("--imap", metavar="URL", help="your own mailbox: imaps://ann%%40example.org@mail.example.org")
    action.add_argument("--password-file", metavar="FILE", help="with --imap: its first line is the password")
    action.add_argument("--ca-file", metavar="FILE", help="with --imap: trust these certificates (PEM), no others")
    action.add_argument("--folder", action="append", default=[], metavar="NAME", help="look at this folder only")
    action.add_argument("--json", action="store_true", help="write JSON")


def _run(action: Callable[[argparse.Namespace, Site], int], options: argparse.Namespace, config_file: str) -> int:
    pool.stop_on_signals()
    checksum.load()
    server_too = {"user": None, "all": False, "home": None, "home_template": None}
    vars(options).update(server_too | vars(options))  # restore and rekey have no such options
    if sum(map(bool, (options.user, options.all, options.imap))) != 1:
        raise UsageError(f"name --user, --all or --imap; see cryptomail mailbox {options.action} --help")
    if options.home and not options.user:
        raise UsageError("--home is one owner's: with --all use --home-template")
    for name in ("password_file", "ca_file"):
        if getattr(options, name) and not options.imap:
            raise UsageError(f"--{name.replace('_', '-')} goes with --imap")
    if options.home_template is not None:
        directory.check(options.home_template)
    settings = pipeline.settings(options.config, config_file, None, options.register)
    return action(options, Site(settings, options.home_template, options.home))


@contextmanager
def own_session(options: argparse.Namespace) -> Iterator[tuple[str, imap.Session]]:
    """The user that --imap names, and a session of theirs. Raises CryptomailError."""
    server = remote.parse(options.imap)
    password = passwords.ask(server.user, options.password_file)
    with remote.login(server, password, options.ca_file) as session:
        yield server.user, session


def configuration_of(options: argparse.Namespace) -> str:
    """The configuration file of the Dovecot that this is installed into; empty where there is none."""
    return options.dovecot_conf if os.path.exists(options.dovecot_conf) else ""  # noqa: PTH110


def session_of(job: Job) -> imap.Session:
    """The session of a job, in the process that does it. Raises ServiceError."""
    responses, commands = os.fdopen(job.responses, "rb"), os.fdopen(job.commands, "wb")
    return imap.Session(responses, commands, limits.IMAP_LITERAL_OCTETS)


def on_this_server(
    asked: Sequence[str],
    options: argparse.Namespace,
    site: Site,
    rest: Rest,
    work: Callable[[Job], _R],
    advance: Callable[[int], None],
) -> Generator[tuple[str, _R | CryptomailError]]:
    """Have `work` done for each owner among those users, in a process with that owner's rights. Yields their names, and
    what it returned or raised, as they get done. Of whom it is not done, `rest` tells.
    """
    sessions: dict[str, ExitStack] = {}
    configuration = configuration_of(options)

    def jobs() -> Iterable[tuple[Identity, Sequence[Job]]]:
        for identity, whose in owners(asked, options, site, rest, advance):
            stack = sessions[whose.user] = ExitStack()
            session = doveadm.imap_session(whose.user, limits.MAILBOX_SECONDS, configuration)
            responses, commands = stack.enter_context(session)
            index = doveadm.index_directory(whose.user, configuration)
            yield identity, [Job(whose, responses.fileno(), commands.fileno(), index, os.getpid())]

    def keeping(job: Job) -> tuple[int, int]:
        return job.responses, job.commands

    try:
        for job, result in pool.each(jobs(), work, limits.MAILBOX_SECONDS, keeping=keeping):
            sessions.pop(job.owner.user).close()
            advance(1)
            yield job.owner.user, result
    finally:
        for stack in sessions.values():
            stack.close()
