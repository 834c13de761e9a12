"""The command `cryptomail`: its subcommands, and what each reads and writes."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sieve_filter import __version__
from sieve_filter.errors import FileError
from sieve_filter.notify import post
from sieve_filter.notify.post import Post
from sieve_filter.policy import arguments as sieve_options
from sieve_filter.programs import once
from sieve_filter.system import stdio

CONFIG_FILE = "/etc/cryptomail/config.toml"
_ENVELOPE = ("user", "home", "recipient", "sender")
SOCKET = "/run/dovecot/lmtp-sealed"
SENDMAIL = "/usr/sbin/sendmail"
FOLDER = "OpenPGP"
METRICS = "/var/lib/cryptomail/metrics"


def main(
    config_file: str = CONFIG_FILE,
    socket_path: str = SOCKET,
    sendmail_path: str = SENDMAIL,
    folder: str = FOLDER,
    register: str = "",
    dovecot_conf: str = "",
    metrics_socket: str = METRICS,
    argv: Sequence[str] | None = None,
) -> int:
    """Run the subcommand that `argv` names: by default, what the process was given behind the program's name.

    `register` is a directory of `register`, the others are post.Post's. `dovecot_conf` is the main configuration file
    of the Dovecot that this is installed into, if it is; on `metrics_socket` its workers show their counts.
    Returns an exit code of sysexits(3); of `keys check`, `doctor` and `mailbox audit`, one of Nagios' plugins.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)

    def work() -> int:
        parser = _parser(arguments, Post(socket_path, sendmail_path, folder), metrics_socket)
        installed = argparse.Namespace(register=register, dovecot_conf=dovecot_conf)
        options = parser.parse_args(arguments, installed)
        code: int = options.run(options, config_file)
        return code

    if arguments[:2] == ["keys", "check"]:
        from sieve_filter.cli import keys_status  # it loads more than a filter has time for

        return keys_status.guarded_check(work, arguments)
    if arguments[:1] == ["doctor"]:
        from sieve_filter.cli import doctor

        return doctor.guarded(work, arguments)
    if arguments[:2] == ["mailbox", "audit"]:
        from sieve_filter.cli import mailbox_audit

        return mailbox_audit.guarded(work, arguments)
    return stdio.guarded(work)


def _parser(arguments: Sequence[str], defaults: Post, metrics_socket: str) -> argparse.ArgumentParser:
    parser = sieve_options.Parser(prog="cryptomail", description="Encrypts mail at delivery.")
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is, and what encrypts")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("filter", help="encrypt the message on standard input")
    _add_options(command)
    command.set_defaults(run=_filter)

    command = commands.add_parser("seal", help="encrypt the message on standard input, and deliver it to Dovecot")
    _add_options(command)
    command.add_argument(
        "--socket", default=defaults.socket_path, metavar="PATH", help="the LMTP service to deliver to"
    )
    command.set_defaults(run=_seal)

    command = commands.add_parser("worker", help="filter and seal for those who connect to a socket, as Dovecot does")
    command.add_argument("--listen", action="append", default=[], metavar="PATH", help="filter on this socket")
    command.add_argument("--listen-execute", action="append", default=[], metavar="PATH", help="seal on this socket")
    command.add_argument("--listen-metrics", metavar="PATH", help="show on this socket what was done, in numbers")
    command.add_argument(
        "--socket", default=defaults.socket_path, metavar="PATH", help="the LMTP service to deliver to"
    )
    command.add_argument(
        "--processes", type=_count, default=os.cpu_count(), metavar="N", help="how many are kept ready to serve"
    )
    command.set_defaults(run=_worker)

    command = commands.add_parser("enroll", help="set up the keys in the message on standard input, and answer it")
    for name in ("user", "home"):
        command.add_argument(f"--{name}", help=f"use this instead of {name.upper()} from the environment")
    post.add_options(command, defaults)
    command.set_defaults(run=_enroll)

    command = commands.add_parser("inspect", help="say what kind of message a file holds")
    command.add_argument("--json", action="store_true", help="write JSON instead of text")
    command.add_argument("file", metavar="FILE", help="a message, or - for standard input")
    command.set_defaults(run=_inspect)

    command = commands.add_parser("decrypt", help="give back the message as it arrived")
    command.add_argument(
        "--smime-key", metavar="FILE", help="the secret key of an S/MIME certificate (default: what gpgsm has)"
    )
    command.set_defaults(run=_decrypt)

    command = commands.add_parser("keys", help="set up, show and check owners' keys")
    if arguments[:1] == ["keys"]:  # it loads more than a filter has time for
        from sieve_filter.cli import keys, keys_fetch

        keys_fetch.add_to(keys.add_to(command, defaults), defaults)

    command = commands.add_parser("doctor", help="say whether mail is encrypted, and what may keep it from being")
    if arguments[:1] == ["doctor"]:
        from sieve_filter.cli import doctor

        doctor.add_to(command, defaults)

    command = commands.add_parser("metrics", help="say in numbers what the workers have done, for Prometheus")
    if arguments[:1] == ["metrics"]:
        from sieve_filter.cli import metrics  # Prometheus' client library takes long to load

        metrics.add_to(command, metrics_socket)

    command = commands.add_parser("mailbox", help="look after mail that is stored already")
    if arguments[:1] == ["mailbox"]:
        from sieve_filter.cli import mailbox

        mailbox.add_to(command, defaults.folder)

    command = commands.add_parser("web", help="serve the page on which owners look after their keys")
    if arguments[:1] == ["web"]:
        from sieve_filter.cli import web

        web.add_to(command, defaults.folder)

    command = commands.add_parser("settings", help="say what counts for an owner, and choose what owners may")
    if arguments[:1] == ["settings"]:
        from sieve_filter.cli import settings

        settings.add_to(command)

    command = commands.add_parser("sieve-script", help="write your Sieve script with your key in it, and upload it")
    if arguments[:1] == ["sieve-script"]:
        from sieve_filter.cli import sieve_script

        sieve_script.add_to(command)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import platform  # filter has no use for these

        from sieve_filter.gpg import runner
        from sieve_filter.sequoia import engine

        engines = {"GnuPG": runner.version(), "PySequoia": engine.version()}
        there = "".join(f", {name} {version or 'is not there'}" for name, version in engines.items())
        stdio.tell(f"cryptomail {__version__}{there}, Python {platform.python_version()}")
        parser.exit()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _add_options(command: argparse.ArgumentParser) -> None:
    sieve_options.add_options(command)
    for name in _ENVELOPE:
        command.add_argument(f"--{name}", help=f"use this instead of {name.upper()} from the environment")


def _environment(options: argparse.Namespace) -> dict[str, str]:
    given = {name.upper(): getattr(options, name, None) for name in _ENVELOPE}
    return dict(os.environ) | {name: value for name, value in given.items() if value is not None}


def _filter(options: argparse.Namespace, config_file: str) -> int:
    chosen, environment = sieve_options.chosen(options), _environment(options)
    return once.run(chosen, environment, config_file, once.pass_on, register=options.register)


def _seal(options: argparse.Namespace, config_file: str) -> int:
    chosen, environment = sieve_options.chosen(options), _environment(options)
    finish, watch = once.seal(options.socket, environment)
    return once.run(chosen, environment, config_file, finish, register=options.register, watch=watch)


def _worker(options: argparse.Namespace, config_file: str) -> int:
    from sieve_filter.programs import listeners as workers
    from sieve_filter.programs import worker

    shown = [options.listen_metrics] if options.listen_metrics else []
    listeners = [workers.listen(path) for path in (*options.listen, *options.listen_execute)] or workers.inherited()
    listeners += map(workers.listen, shown)
    service = worker.Service(config_file, options.socket, frozenset(options.listen_execute), options.register)
    service = service._replace(metrics_sockets=frozenset(shown))
    return workers.alone(listeners, service, options.processes)


def _enroll(options: argparse.Namespace, config_file: str) -> int:
    from sieve_filter.programs import imapsieve  # it loads more than a filter has time for

    return imapsieve.run(_environment(options), config_file, post.chosen(options), options.register)


def _inspect(options: argparse.Namespace, _config_file: str) -> int:
    from sieve_filter.cli import inspect  # mail-parser takes longer to load than a message to filter

    read = inspect.inspect(_read(options.file))
    text = inspect.as_json(read) if options.json else inspect.as_text(read)
    stdio.write(text.encode("utf-8", "backslashreplace") + b"\n")
    return os.EX_OK


def _decrypt(options: argparse.Namespace, _config_file: str) -> int:
    from sieve_filter.delivery import restore

    raw = _read("-")
    original = restore.decrypt(raw, options.smime_key)
    if original is None:
        print("cryptomail: this message was not encrypted by cryptomail; it is written unchanged", file=sys.stderr)
    stdio.write(raw if original is None else original)
    return os.EX_OK


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror}") from error
