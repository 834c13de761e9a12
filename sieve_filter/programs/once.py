"""One message through one process: standard input, environment and options in; standard output and exit code out."""

import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from types import FrameType
from typing import NoReturn

from sieve_filter import errors
from sieve_filter.deadline import Deadline
from sieve_filter.delivery import pipeline
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.errors import CryptomailError, TimedOutError
from sieve_filter.policy.settings import Options, Settings
from sieve_filter.system import logfields, signals, stdio

_READ_OUT_SECONDS = 10


def run(
    options: Options,
    environment: Mapping[str, str],
    config_file: str,
    finish: Callable[[Delivery], Iterable[bytes]],
    trusted_owners: frozenset[int] | None = None,
    register: str = "",
    watch: Callable[[Incoming], Incoming] = lambda incoming: incoming,
) -> int:
    """Read a message from standard input, and write what `finish` makes of its delivery to standard output.

    `trusted_owners`: see `config_file.load`; `register`: a directory of `register`; `watch` sees the message before all
    else. Returns an exit code of sysexits(3). Where it is not EX_OK, one line on standard error says why, and what was
    written, if anything, is not to be used.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the message in clear; gpg inherits this
    beginning = pipeline.Beginning()
    pieces = beginning.passing(stdio.read())

    def warn(text: str, **fields: str) -> None:
        user = environment.get("USER", "nobody")
        stdio.warn(logfields.line(**fields, user=user, message_id=beginning.message_id, msg=text))

    try:
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _give_up)
        begun = Deadline.after(0)
        signals.alarm(begun.later(Settings().time_limit))
        settings = pipeline.settings(options.config, config_file, trusted_owners, register)
        signals.alarm(begun.later(settings.time_limit))
        incoming = watch(pipeline.receive_message(pieces, settings))
        delivery = pipeline.encrypt_for_owner(incoming, options, environment, settings, Engines(warn, lasting=False))
        for piece in finish(delivery):
            stdio.write(piece)
        signals.alarm(None)
    except CryptomailError as error:
        _read_out(chain(pieces, beginning.passing(stdio.read())))  # the first may have been broken off
        warn(errors.line(error), verdict="refused", reason=errors.name(type(error)))
        return error.code
    return os.EX_OK


def _read_out(pieces: Iterator[bytes]) -> None:
    """Take in the rest of the message: Dovecot's lmtp panics where a program ends before."""
    with suppress(CryptomailError), signals.at_most(_READ_OUT_SECONDS):
        for _ in pieces:
            pass


def pass_on(delivery: Delivery) -> Iterable[bytes]:
    """What `filter` writes: the message, encrypted or as it was."""
    return delivery.pieces


def seal(
    socket_path: str, environment: Mapping[str, str], dovecot_conf: str = ""
) -> tuple[Callable[[Delivery], Iterable[bytes]], Callable[[Incoming], Incoming]]:
    """What `seal` writes: `sealed` once it has delivered the encrypted message, `pass` where there is nothing to do.

    Returns also what has to see the message before. `dovecot_conf`: see `again`.
    """
    from sieve_filter.delivery import sealing  # filter has no use for them, and pays at each delivery
    from sieve_filter.delivery.again import Attempt
    from sieve_filter.dovecot import lmtp

    def warn(text: str) -> None:
        stdio.warn(logfields.line(user=environment.get("USER", "nobody"), msg=text))

    attempt = Attempt(environment.get("USER", ""), lmtp.envelope(environment).recipient, dovecot_conf, warn)
    answer_by = Deadline.after(lmtp.ANSWER_SECONDS)

    def check() -> None:
        sealing.check_caller(1)
        signals.alarm(None)  # from here on, Dovecot may store the message: there is no giving up

    def finish(delivery: Delivery) -> Iterable[bytes]:
        return sealing.seal(delivery, lambda: lmtp.connect(socket_path), environment, check, answer_by, attempt)

    return finish, attempt.watching


def _give_up(number: int, _frame: FrameType | None) -> NoReturn:
    if number == signal.SIGALRM:
        raise TimedOutError("it took longer than time_limit")
    # Death by a signal would make Pigeonhole store the original (it counts as a script error, not as a failure).
    raise TimedOutError(f"stopped by {signal.Signals(number).name}")
