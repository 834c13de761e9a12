"""A process that answers Dovecot's script protocol on sockets: `filter` and `seal` without starting a program.

It serves one connection at a time. Dovecot starts as many of them as are needed, so that a message which is large, slow
or fatal is nobody else's trouble.
"""

import os
import pwd
import resource
import select
import signal
import smtplib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn, cast

from sieve_filter import errors, job, lmtp, options, owner, register, scriptprotocol
from sieve_filter.delivery import Delivery
from sieve_filter.engine import Engines
from sieve_filter.errors import DeliveryError, TimedOutError, UsageError
from sieve_filter.master import Master
from sieve_filter.scriptprotocol import ProtocolError, Request
from sieve_filter.timelimit import at_most

_PIECE = 65536
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
_HEAD_SECONDS = 5  # for what Dovecot sends at once, before it is known which settings hold
_LAST_WORD_SECONDS = 1


Connected = Callable[[], smtplib.LMTP]


class Service(NamedTuple):
    """What a worker serves: on `execute_sockets` it delivers over `lmtp_socket`, on others it filters; `register` is a
    directory of `register`.
    """

    config_file: str
    lmtp_socket: str
    execute_sockets: frozenset[str]
    register: str = ""


def serve(listeners: Sequence[socket.socket], service: Service, master: Master) -> None:
    """Answer connections until SIGTERM, SIGINT or the end of the master; what is in hand is finished."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold mail in clear; gpg inherits this
    signal.signal(signal.SIGALRM, _too_late)
    worker = _Worker(service, master)
    waiting = {listener.fileno(): listener for listener in listeners}
    poll = select.epoll()
    for listener in listeners:
        listener.setblocking(False)
        poll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)  # a connection wakes one idle worker, not all
    if master.descriptor is not None:
        poll.register(master.descriptor, select.EPOLLIN)
    with poll, _told_to_stop() as stop:
        poll.register(stop, select.EPOLLIN)
        master.available(True)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if not waiting.keys() >= set(ready):
                return
            for descriptor in ready:
                with suppress(BlockingIOError):  # another worker was faster
                    connection, _ = waiting[descriptor].accept()
                    master.available(False)
                    with connection:
                        worker.answer(connection)
                    if not master.available(True):
                        return


@contextmanager
def _told_to_stop() -> Iterator[int]:
    """A descriptor that becomes readable when SIGTERM or SIGINT comes."""
    reader, writer = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(writer, b"."))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # `workers` starts this process with signals held back
    yield reader
    os.close(reader)
    os.close(writer)


class _Worker:
    def __init__(self, service: Service, master: Master) -> None:
        self._service = service
        self._log = master.log
        self._engines = Engines(lambda text: self._log("warning", errors.printable(text)), lasting=True)
        self._trusted_owners = frozenset({0, Path(__file__).stat().st_uid})

    def answer(self, connection: socket.socket) -> None:
        """Answer one request; whatever happens, this process goes on, and no answer is "yes" by mistake."""
        user, group = _peer(connection)
        if os.geteuid() != 0 or user == 0:
            self._try(connection, lambda _: partial(lmtp.connect, self._service.lmtp_socket))
            return
        # Each mailbox belongs to a system user: a process of its own, which can do no more than that user.
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        try:
            self._try(connection, partial(self._become, user, group))
        finally:
            os._exit(os.EX_OK)

    def _become(self, user: int, group: int, request: Request | None) -> Connected:
        """Be that user from here on. Out: how to deliver `request`, if it is to be sealed; only root can connect there.

        Raises UsageError where the request is not for the user's own mailbox.
        """
        server = None
        if request is not None:
            settings = job.settings(None, self._service.config_file, self._trusted_owners)
            _check_own_mailbox(user, request.environment, settings.recipient_delimiter)
            server = lmtp.connect(self._service.lmtp_socket)
        try:
            groups = os.getgrouplist(pwd.getpwuid(user).pw_name, group)
        except KeyError:
            groups = [group]
        register.make(self._service.register, user, group)
        os.setgroups(groups)
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        return lambda: cast(smtplib.LMTP, server)

    def _try(self, connection: socket.socket, prepare: Callable[[Request | None], Connected]) -> None:
        progress = _Progress()
        try:
            with at_most(_HEAD_SECONDS):
                self._answer(connection, progress, prepare)
        except Exception as error:
            gone = isinstance(error, ConnectionError | TimeoutError)
            known = DeliveryError(lmtp.GONE) if gone else errors.known(error)
            self._log("error", errors.printable(errors.line(known, progress.subject)))
            _refuse(connection)

    def _answer(
        self, connection: socket.socket, progress: "_Progress", prepare: Callable[[Request | None], Connected]
    ) -> None:
        started = time.monotonic()
        _check_peer(connection)
        request, beginning = _read_head(connection)
        progress.user = request.environment.get("USER", "nobody")
        seals = connection.getsockname() in self._service.execute_sockets
        if seals and request.arguments[:1] != ("seal",):
            raise UsageError("the only command here is: seal")
        connected = prepare(request if seals else None)
        chosen = options.parse(request.arguments[1:] if seals else request.arguments)
        settings = job.settings(chosen.config, self._service.config_file, self._trusted_owners, self._service.register)
        signal.alarm(settings.time_limit)
        incoming = job.receive_message(progress.received(beginning, connection), settings)
        progress.message_id = job.message_id(incoming.message)
        delivery = job.encrypt_for_owner(incoming, chosen, request.environment, settings, self._engines)
        delivery = delivery._replace(output=progress.stored(delivery.output))
        output = delivery.output
        if seals:
            output = lmtp.seal(delivery, connected, request.environment, lambda: lmtp.check_caller(connection.fileno()))
        answer = bytearray()  # each piece that is sent wakes the client up
        for piece in output:
            if len(answer) + len(piece) > _PIECE:
                connection.sendall(answer)
                answer.clear()
            answer += piece
        signal.alarm(0)  # what is done is done: a "no" behind the "yes" would make it a failure
        connection.settimeout(_LAST_WORD_SECONDS)
        connection.sendall(answer + scriptprotocol.SUCCESS)
        milliseconds = (time.monotonic() - started) * 1000
        self._log("info", errors.printable(progress.summary(delivery, milliseconds)))


class _Progress:
    """What the log says of a request, as far as it is known."""

    def __init__(self) -> None:
        self.user = "nobody"
        self.message_id = "without Message-ID"
        self._octets_in = self._octets_out = 0

    @property
    def subject(self) -> str:
        return f"message {self.message_id} for {self.user!r}: "

    def received(self, beginning: bytes, connection: socket.socket) -> Iterator[bytes]:
        """The message, in pieces."""
        for piece in chain([beginning], iter(lambda: connection.recv(_PIECE), b"")):
            self._octets_in += len(piece)
            yield piece

    def stored(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, counted."""
        for piece in pieces:
            self._octets_out += len(piece)
            yield piece

    def summary(self, delivery: Delivery, milliseconds: float) -> str:
        verdict = f"encrypted to {' '.join(delivery.fingerprints)}" if delivery.encrypted else "left alone"
        sizes = f"{self._octets_in} octets in, {self._octets_out} out"
        return f"{self.subject}{verdict}: {delivery.reason}; {sizes}, {milliseconds:.1f} ms"


def _read_head(connection: socket.socket) -> tuple[Request, bytes]:
    """The request, and the octets of the message that came with it. Raises UsageError."""
    received = b""
    try:
        while (parts := scriptprotocol.split_head(received)) is None:
            piece = connection.recv(_PIECE)
            if not piece:
                raise ProtocolError("the client hung up in the head")
            received += piece
        head, beginning = parts
        return scriptprotocol.parse(head), beginning
    except ProtocolError as error:
        raise UsageError(f"this is for Dovecot's script protocol: {error}") from error


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The user and group that the client runs as."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, user, group = _CREDENTIALS.unpack(credentials)
    return user, group


def _check_peer(connection: socket.socket) -> None:
    """Raise UsageError unless this process may act for the client: it is root, or one and the same user."""
    user, _ = _peer(connection)
    if os.geteuid() != 0 and user not in (0, os.geteuid()):
        raise UsageError(f"user {user} may not ask: this serves user {os.geteuid()}")


def _refuse(connection: socket.socket) -> None:
    """Say "no", after the rest of what the client has to send: it might not listen before."""
    with suppress(OSError, TimedOutError), at_most(_LAST_WORD_SECONDS):
        while connection.recv(_PIECE):
            pass
    with suppress(OSError):
        connection.settimeout(_LAST_WORD_SECONDS)
        connection.sendall(scriptprotocol.FAILURE)


def _check_own_mailbox(user: int, environment: Mapping[str, str], recipient_delimiter: str) -> None:
    """Raise UsageError unless the mailbox in `environment` is that system user's: anybody can connect and claim it."""
    whose = owner.identify(environment, {}, recipient_delimiter)
    recipient = owner.without_detail(lmtp.envelope(environment).recipient, recipient_delimiter).lower()
    try:
        account = pwd.getpwnam(whose.user.partition("@")[0]).pw_uid
    except KeyError:
        account = None
    if account != user or recipient not in whose.addresses | {whose.user.lower()}:
        raise UsageError(f"user {user} may not deliver to {recipient!r}")


def _too_late(_number: int, _frame: FrameType | None) -> NoReturn:
    raise TimedOutError("it took longer than time_limit")
