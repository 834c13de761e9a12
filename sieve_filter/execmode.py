"""One message through one process: standard input, environment and options in; standard output and exit code out."""

import argparse
import os
import re
import resource
import select
import signal
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from sieve_filter import config, gpg, keyring, owner
from sieve_filter.config import PASS, Settings
from sieve_filter.delivery import Delivery, deliver
from sieve_filter.errors import (
    ConfigError,
    CryptomailError,
    DeliveryError,
    FileError,
    NoKeyError,
    RefusedError,
    TimedOutError,
    TooLargeError,
    UnusableKeyError,
    UsageError,
)
from sieve_filter.hcp import POLICIES
from sieve_filter.keyring import Recipients
from sieve_filter.message import Message, split

# What of a Message-ID goes into a log line: what RFC 5322 section 3.6.4 allows, and no more than a line takes.
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,200}>")


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=100)  # asking the terminal would load shutil, at each delivery


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as every other error is reported, instead of printing the usage and exiting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that a Sieve script may give: none of them reaches beyond the caller's own mail and keys."""
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FPR|ADDRESS",
        help="encrypt to this key from the owner's keyrings, and no other; exact match; may be repeated",
    )
    parser.add_argument("--require", action="store_true", help="fail when the owner has no key")
    parser.add_argument("--header-policy", choices=list(POLICIES), help="which header fields stay readable")
    parser.add_argument("--config", metavar="FILE", help="settings to use instead of the installed ones")


def run(
    options: argparse.Namespace,
    environment: Mapping[str, str],
    config_file: str,
    finish: Callable[[Delivery], bytes],
    trusted_owners: Container[int] | None = None,
) -> int:
    """Encrypt the message on standard input, and write what `finish` makes of it to standard output.

    Returns the exit code: 0 only if all was written. `config_file` is the installed configuration, used where
    `options` name none; `trusted_owners` is for `config.load`. Nothing is written before the whole result stands.
    """
    message = split(b"")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file, Python's or gpg's, would hold the message
    try:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _give_up)
        signal.alarm(Settings().time_limit)
        settings = _settings(options.config, config_file, trusted_owners)
        signal.alarm(settings.time_limit)
        message = split(_read())
        output = finish(_encrypt_for_owner(message, options, environment, settings))
        signal.alarm(0)
        write(output)
    except CryptomailError as error:
        return report(error, f"message {_message_id(message)} for {environment.get('USER', 'nobody')!r}: ")
    return os.EX_OK


def pass_on(delivery: Delivery) -> bytes:
    """What `filter` writes: the message, encrypted or as it was."""
    return delivery.output


def seal(socket_path: str, environment: Mapping[str, str]) -> Callable[[Delivery], bytes]:
    """What `seal` writes: `sealed` once it has delivered the encrypted message, `pass` where there is nothing to do."""
    from sieve_filter import lmtp  # filter has no use for it, and pays at each delivery

    def check() -> None:
        if _nobody_reads(1):  # it was killed: the sender knows of a failure, and will send the message again
            raise DeliveryError("Dovecot's delivery process has gone")

    def finish(delivery: Delivery) -> bytes:
        if not delivery.encrypted:
            return b"pass"
        lmtp.send(socket_path, lmtp.envelope(environment), lmtp.without_trace(delivery.output), check)
        return b"sealed"

    return finish


def guarded(work: Callable[[], int]) -> int:
    """Do `work` and return its exit code; where it fails, report that in one line and return the error's code."""
    try:
        return work()
    except CryptomailError as error:
        return report(error)
    except MemoryError:
        return report(RefusedError("there is not enough memory"))
    except Exception as error:
        return report(unforeseen(error))


def unforeseen(error: BaseException) -> CryptomailError:
    """What is told of an error that nobody thought of: its place only, for its text may quote the message."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else "?"
    return CryptomailError(f"internal error: {type(error).__name__} at {place}; please report it")


def report(error: CryptomailError, subject: str = "") -> int:
    """Write the one line about `error` to standard error. Returns its exit code."""
    suffix = "; nothing was written, try again later" if isinstance(error, RefusedError) else ""
    line = f"cryptomail: {subject}{error}{suffix}"
    printable = "".join(char if char.isprintable() else "?" for char in line)
    print(printable.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    return error.code


def _settings(named: str | None, installed: str, trusted_owners: Container[int] | None) -> Settings:
    try:
        return config.load(named or installed, trusted_owners)
    except FileNotFoundError:
        if named:
            raise ConfigError(f"there is no file {named}") from None
        return Settings()


def _encrypt_for_owner(
    message: Message, options: argparse.Namespace, environment: Mapping[str, str], settings: Settings
) -> Delivery:
    wanted = [keyring.parse_wanted(one) for one in options.key]
    whose = owner.identify(environment, settings.aliases, settings.recipient_delimiter)

    def find() -> Recipients | None:
        try:
            recipients = keyring.find(whose, settings.keyrings, wanted)
        except UnusableKeyError:
            if settings.unusable_key == PASS and not (wanted or options.require):
                return None
            raise
        if recipients is None and (options.require or settings.no_key != PASS):
            raise NoKeyError(f"{whose.user} has no key; set one up in {settings.keyrings.owner[0]}")
        return recipients

    if settings.size_limit and len(message.raw) > settings.size_limit:
        if settings.too_large == PASS and not options.require:
            return Delivery(message.raw, False, "it is larger than size_limit")
        raise TooLargeError(f"{len(message.raw)} octets are more than size_limit, {settings.size_limit}")
    policy = POLICIES[options.header_policy or settings.header_policy]
    boundary = b"_cryptomail_" + os.urandom(16).hex().encode("ascii")
    return deliver(message, policy, find, _encrypt, boundary)


def _encrypt(data: bytes, recipients: Recipients) -> bytes:
    armored = bytearray()
    gpg.encrypt([data], armored.extend, recipients.homes, recipients.fingerprints)
    return bytes(armored)


def _nobody_reads(descriptor: int) -> bool:
    """Whether the other end of this pipe or socket is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return bool(poll.poll(0))


def _give_up(number: int, _frame: FrameType | None) -> NoReturn:
    if number == signal.SIGALRM:
        raise TimedOutError("it took longer than time_limit")
    # Death by a signal would make Pigeonhole store the original (it counts as a script error, not as a failure).
    raise TimedOutError(f"stopped by {signal.Signals(number).name}")


def _read() -> bytes:
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise FileError(f"cannot read standard input: {error.strerror}") from error


def write(data: bytes) -> None:
    """Write all of `data` to standard output. Raises FileError."""
    try:
        rest = memoryview(data)
        while rest:  # not by sys.stdout: what it could not write it would try again at exit, and end with a traceback
            rest = rest[os.write(1, rest) :]
    except OSError as error:
        raise FileError(f"cannot write to standard output: {error.strerror}") from error


def _message_id(message: Message) -> str:
    found = [match for field in message.named(b"message-id") if (match := _MESSAGE_ID.search(field.value))]
    return found[0][0].decode("ascii") if found else "without Message-ID"
