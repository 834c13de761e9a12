"""What a process of the supervisor's does: answer a request of Dovecot's script protocol, with `filter` or `seal`.

A lasting worker serves one connection after the other for the user as whom it runs. A process of one connection acts
for another user, whom it becomes before it reads the message.
"""

import array
import ctypes
import os
import pwd
import resource
import signal
import smtplib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn, cast

from sieve_filter import errors
from sieve_filter.deadline import Deadline
from sieve_filter.delivery import pipeline, sealing
from sieve_filter.delivery.again import Attempt
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.engines import Engines
from sieve_filter.dovecot import lmtp, script_protocol
from sieve_filter.dovecot.script_protocol import ProtocolError, Request
from sieve_filter.errors import CryptomailError, DeliveryError, TimedOutError, UncertainError, UsageError
from sieve_filter.keys import find
from sieve_filter.owners import owner, register
from sieve_filter.policy import arguments
from sieve_filter.programs import counts
from sieve_filter.programs.counts import Outcome, Report
from sieve_filter.system import logfields, privileges, signals

NO = script_protocol.FAILURE
DONE, LAST = b".", b"!"  # what a process says of a connection that is done, before a report; with the latter it ends
WORD = 1 + counts.SIZE  # octets of that

# Who may own the settings. Asked once: an upgrade of the package takes this file away.
_TRUSTED_OWNERS = frozenset({0, Path(__file__).stat().st_uid})
_PIECE = 65536
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid

# What the administrator may want to change where the wrong one asks.
_WHOSE = "make install MAIL_USER=NAME says who owns all mail, MAIL_USER= that system users own their own"
_DEADLINE = struct.Struct("=d")
_HEAD_SECONDS = 5  # for what Dovecot sends at once, before it is known which settings hold
_LAST_WORD_SECONDS = 1
_TO_STORE = 0.05  # of the time for an answer: what Dovecot is given to store a message
_GROWN_KILOBYTES = 250_000
_PR_SET_DUMPABLE = 4
_libc = ctypes.CDLL(None)


Connected = Callable[[], smtplib.LMTP]
Log = Callable[[str, str], object]


class Service(NamedTuple):
    """What is served: on `execute_sockets` it delivers over `lmtp_socket`, on `metrics_sockets` the supervisor shows
    its counts, on others it filters. `register` is a directory of `register`. A client has its answer after
    `answer_seconds` at the latest. `dovecot_conf`: see `again`.
    """

    config_file: str
    lmtp_socket: str
    execute_sockets: frozenset[str]
    register: str = ""
    answer_seconds: float = lmtp.ANSWER_SECONDS
    dovecot_conf: str = ""
    metrics_sockets: frozenset[str] = frozenset()


def work(channel: socket.socket, service: Service, log: Log) -> None:
    """Serve the connections that come over `channel`, until it ends; say there when each is done.

    Ends earlier where a message has made the process large: the memory would not come back.
    """
    _take_signals()
    worker = _Worker(service, log)
    while (taken := _take(channel)) is not None:
        connection, deadline = taken
        with connection:
            report = worker.answer(connection, deadline, lambda _: partial(lmtp.connect, service.lmtp_socket))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > _GROWN_KILOBYTES
        try:
            channel.send((LAST if grown else DONE) + counts.pack(report))
        except BrokenPipeError:  # the supervisor has gone; this connection has had its answer
            return
        if grown:
            return


def hand_over(channel: socket.socket, connection: socket.socket, deadline: Deadline) -> None:
    """Give a worker a connection, and the deadline for its answer: the monotonic clock is the same in all processes."""
    descriptor = array.array("i", [connection.fileno()])
    channel.sendmsg([_DEADLINE.pack(*deadline)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)])


def _take(channel: socket.socket) -> tuple[socket.socket, Deadline] | None:
    data, passed, _, _ = socket.recv_fds(channel, _DEADLINE.size, 1)
    if not passed:
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, passed[0])
    connection.set_inheritable(False)  # recv_fds() of Python 3.11 takes MSG_CMSG_CLOEXEC, and forgets it
    return connection, Deadline(*_DEADLINE.unpack(data))


def act_for(channel: socket.socket, connection: socket.socket, deadline: Deadline, service: Service, log: Log) -> None:
    """Serve one connection of a system user's, with that user's rights: as root no more than has to be is done.

    Says over `channel` when it is done.
    """
    _take_signals()
    user, group = peer(connection)
    worker = _Worker(service, log)

    def prepare(request: Request | None) -> Connected:
        try:
            # What only root can do for the user; nothing of the message has been read.
            register.make(service.register, user, group)
            server = worker.connect_for(user, request) if request is not None else None
        finally:
            _become(user, group)
        return lambda: cast(smtplib.LMTP, server)

    report = worker.answer(connection, deadline, prepare)
    with suppress(BrokenPipeError):
        channel.send(LAST + counts.pack(report))


def refuse(connection: socket.socket, seconds: int) -> None:
    """Say "no", after the rest of what the client has to send: Dovecot's lmtp panics where that is not taken."""
    _take_signals()
    _read_out(iter(lambda: connection.recv(_PIECE), b""), seconds)
    _end(connection, NO)


def peer(connection: socket.socket) -> tuple[int, int]:
    """The user and group that the client runs as."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, group = _CREDENTIALS.unpack(credentials)
    return user, group


def _take_signals() -> None:
    signal.signal(signal.SIGALRM, _too_late)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT):  # what is in hand is finished; the supervisor says when to end
        signal.signal(number, lambda *_: None)


def _become(user: int, group: int) -> None:
    """Be that user from here on, whom the kernel lets neither trace this process nor take descriptors out of it."""
    try:
        groups = os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        groups = [group]
    privileges.become(user, group, groups)
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError("prctl")


class _Worker:
    def __init__(self, service: Service, log: Log) -> None:
        self._service = service
        self._log = log
        self._engines = Engines(self._warn, lasting=True)
        self._trusted_owners = _TRUSTED_OWNERS
        self._subject: Callable[[], Mapping[str, str]] = dict

    def _warn(self, text: str) -> None:
        self._log("warning", logfields.line(**self._subject(), msg=text))

    def answer(
        self, connection: socket.socket, deadline: Deadline, prepare: Callable[[Request | None], Connected]
    ) -> Report:
        """Answer one request; whatever happens, this process goes on, and no answer is "yes" by mistake.

        `prepare` is called before the message is read, with the request if it is to be sealed. It returns how to
        deliver.
        """
        progress = _Progress(connection)
        self._subject = progress.subject
        try:
            with signals.at_most(_HEAD_SECONDS):
                outcome = self._answer(connection, deadline, progress, prepare)
        except Exception as error:
            _read_out(progress.received(), _LAST_WORD_SECONDS)
            gone = isinstance(error, ConnectionError | TimeoutError)
            known = progress.gone() if gone else errors.known(error)
            outcome = verdict, reason = counts.refusal(type(known))
            line = logfields.line(verdict=verdict, reason=reason, **progress.subject(), msg=errors.line(known))
            self._log("error", line)
            _end(connection, NO)
        return progress.report(outcome)

    def connect_for(self, user: int, request: Request) -> smtplib.LMTP:
        """Where to deliver the message for that system user, whose mailbox it must be. Raises UsageError."""
        settings = pipeline.settings(None, self._service.config_file, self._trusted_owners)
        _check_own_mailbox(user, request.environment, settings.recipient_delimiter)
        return lmtp.connect(self._service.lmtp_socket)

    def _attempt(self, request: Request) -> Attempt:
        to = lmtp.envelope(request.environment)
        user = request.environment.get("USER", "")
        return Attempt(user, to.recipient, self._service.dovecot_conf, self._warn)

    def _answer(
        self,
        connection: socket.socket,
        deadline: Deadline,
        progress: "_Progress",
        prepare: Callable[[Request | None], Connected],
    ) -> Outcome:
        begun = Deadline.after(0)
        _check_peer(connection)
        request, beginning = _read_head(connection)
        progress.head_was_read(request, beginning)
        seals = connection.getsockname() in self._service.execute_sockets
        if seals and request.arguments[:1] != ("seal",):
            raise UsageError("the only command here is: seal")
        connected = prepare(request if seals else None)
        chosen = arguments.parse(request.arguments[1:] if seals else request.arguments)
        settings = pipeline.settings(
            chosen.config, self._service.config_file, self._trusted_owners, self._service.register
        )
        signals.alarm(min(deadline, begun.later(settings.time_limit)))
        incoming = pipeline.receive_message(progress.received(), settings)
        if seals:
            attempt = self._attempt(request)
            incoming = attempt.watching(incoming)
        progress.message_id = pipeline.message_id(incoming.message)
        delivery = pipeline.encrypt_for_owner(incoming, chosen, request.environment, settings, self._engines)
        delivery = progress.counting(delivery)
        output: Iterable[bytes] = delivery.pieces
        if seals:

            def check() -> None:
                sealing.check_caller(connection.fileno())
                if deadline.later(-self._service.answer_seconds * _TO_STORE).is_over():
                    raise TimedOutError("too little time is left for Dovecot to store it")
                signals.alarm(None)  # from here on, Dovecot may store the message: there is no giving up

            progress.attempt = attempt
            output = sealing.seal(delivery, connected, request.environment, check, deadline, attempt)
        answer = bytearray()  # each piece that is sent wakes the client up
        for piece in output:
            if len(answer) + len(piece) > _PIECE:
                connection.sendall(answer)
                answer.clear()
            answer += piece
        progress.sealed = answer == b"sealed"
        signals.alarm(None)  # what is done is done: a "no" behind the "yes" would make it a failure
        connection.settimeout(_LAST_WORD_SECONDS)
        connection.sendall(answer + script_protocol.SUCCESS)
        connection.shutdown(socket.SHUT_WR)  # the supervisor has this connection too: closing it would end nothing
        self._log("info", progress.summary(delivery, (time.monotonic() - begun.moment) * 1000))
        return _outcome(delivery)


class _Progress:
    """What the log says of a request, as far as it is known."""

    def __init__(self, connection: socket.socket) -> None:
        self.sealed = False
        self.attempt: Attempt | None = None
        self.message_id = ""
        self._user = "nobody"
        self._connection = connection
        self._came_with_head = b""
        self._beginning = pipeline.Beginning()
        self._octets_in = self._octets_out = 0
        self._remembered = find.remembered()

    def subject(self) -> dict[str, str]:
        """What each line has that is about the message."""
        return {"user": self._user, "message_id": self.message_id or self._beginning.message_id}

    def head_was_read(self, request: Request, beginning: bytes) -> None:
        self._user = request.environment.get("USER", "nobody")
        self._came_with_head = beginning

    def received(self) -> Iterator[bytes]:
        """The message, in pieces; what has been read of it does not come again."""
        pieces = chain([self._came_with_head], iter(lambda: self._connection.recv(_PIECE), b""))
        self._came_with_head = b""
        for piece in self._beginning.passing(pieces):
            self._octets_in += len(piece)
            yield piece

    def gone(self) -> CryptomailError:
        """What to say where the client has gone."""
        if self.sealed:
            if self.attempt is not None:
                self.attempt.note()
            return UncertainError(f"{sealing.GONE} before it was told that the message is stored: it may come again")
        return DeliveryError(sealing.GONE)

    def counting(self, delivery: Delivery) -> Delivery:
        """The same, which counts what is taken of it."""
        self._octets_out = len(delivery.header)
        return delivery._replace(body=self._counted(delivery.body))

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self._octets_out += len(piece)
            yield piece

    def report(self, outcome: Outcome) -> Report:
        """What is counted of it."""
        return Report(outcome, self._cache, self._octets_in, self._octets_out)

    @cached_property
    def _cache(self) -> str:
        """Whether the owner's keyring was in memory; asked for when it has been looked for."""
        hits, misses = (now - before for now, before in zip(find.remembered(), self._remembered, strict=True))
        return counts.MISS if misses else counts.HIT if hits else ""

    def summary(self, delivery: Delivery, milliseconds: float) -> str:
        """The log's line for a message that was not refused."""
        verdict, detail = _outcome(delivery)
        how = {"engine": detail, "keys": ",".join(delivery.fingerprints)} if delivery.encrypted else {"reason": detail}
        cache = {"cache": self._cache} if self._cache else {}
        sizes = {"octets_in": self._octets_in, "octets_out": self._octets_out, "ms": f"{milliseconds:.1f}"}
        return logfields.line(verdict=verdict, **how, **self.subject(), **cache, **sizes, msg=delivery.reason)


def _outcome(delivery: Delivery) -> Outcome:
    """What became of the message, as it is counted and logged."""
    if delivery.left is not None:
        return counts.LEFT, delivery.left.value
    return counts.ENCRYPTED, delivery.engine


def _read_head(connection: socket.socket) -> tuple[Request, bytes]:
    """The request, and the octets of the message that came with it. Raises UsageError."""
    received = b""
    try:
        while (parts := script_protocol.split_head(received)) is None:
            piece = connection.recv(_PIECE)
            if not piece:
                raise ProtocolError("the client hung up in the head")
            received += piece
        head, beginning = parts
        return script_protocol.parse(head), beginning
    except ProtocolError as error:
        raise UsageError(f"this is for Dovecot's script protocol: {error}") from error


def _check_peer(connection: socket.socket) -> None:
    """Raise UsageError unless this process may act for the client: it is root, or one and the same user."""
    user, _ = peer(connection)
    if os.geteuid() != 0 and user not in (0, os.geteuid()):
        raise UsageError(f"user {user} may not ask: this serves user {os.geteuid()}; {_WHOSE}")


def _read_out(pieces: Iterator[bytes], seconds: int) -> None:
    """Take in the rest of what the client sends: it might not listen before."""
    with suppress(OSError, TimedOutError), signals.at_most(seconds):
        for _ in pieces:
            pass


def _end(connection: socket.socket, answer: bytes) -> None:
    """Send this, as the last."""
    with suppress(OSError):
        connection.settimeout(_LAST_WORD_SECONDS)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)


def _check_own_mailbox(user: int, environment: Mapping[str, str], recipient_delimiter: str) -> None:
    """Raise UsageError unless the mailbox in `environment` is that system user's: anybody can connect and claim it."""
    whose = owner.identify(environment, {})
    recipient = owner.without_detail(lmtp.envelope(environment).recipient, recipient_delimiter).lower()
    try:
        account = pwd.getpwnam(whose.user.partition("@")[0]).pw_uid
    except KeyError:
        account = None
    if account != user or not (whose.has(recipient) or recipient == whose.user.lower()):
        raise UsageError(f"user {user} may not deliver to {recipient!r}; {_WHOSE}")


def _too_late(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimedOutError("it took longer than time_limit")
