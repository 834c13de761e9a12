"""The process that Dovecot connects to. It takes connections and hands each to a process that serves it.

It never reads a message. It keeps its own copy of each connection until the answer is out: where a process dies in the
middle, or does not answer in time, somebody is left to take in the rest of the request and to say "no". Dovecot's lmtp
panics where that is missing (docs/developer/dovecot-lmtp-panic.md).

It counts what the processes report of each request, and shows that on sockets of its own.

For the user whom this process runs as there are lasting workers. For other users, which only root can act for, each
connection gets a process of its own, forked from this one: it holds nothing of anybody else's mail.
"""

import gc
import os
import resource
import select
import signal
import socket
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from sieve_filter import errors
from sieve_filter.deadline import Deadline
from sieve_filter.dovecot.master import Master
from sieve_filter.programs import counts, preload, worker
from sieve_filter.programs.counts import Counts, Report, Shown
from sieve_filter.programs.worker import Service
from sieve_filter.system import descriptors, logfields, transfer

_BACKLOG = 4096  # connections that the kernel keeps; Linux allows no more by default (net.core.somaxconn)
_MOST_PROCESSES = 64
_EACH_AT_ONCE = 4  # processes that act for one user, where there are several users
_EACH_OPEN = 132  # connections of one user: more than LMTP has processes, by default 100
_SPARE_DESCRIPTORS = 64 + 2 * _MOST_PROCESSES

_TICK_SECONDS = 0.5  # how often deadlines are looked at
_GROW_SECONDS = 0.02  # a connection waits so long for a worker that is nearly done, before there is another one
_PAUSE_SECONDS = 0.1  # before a process is replaced: one that cannot live shall not keep the machine busy
_REFUSE_SECONDS = 10  # for what a client still has to send
# Parts of the time for an answer.
_FOR_LAST_WORDS = 0.05
_TO_SERVE = 0.25  # what is begun with less of it may be stored and refused, and so come twice


class _Request(NamedTuple):
    """A connection, whose it is, when it came, and until when it must have an answer."""

    connection: socket.socket
    user: int
    came: Deadline
    deadline: Deadline


class _Process:
    """A child: over `channel` it says what it has done. `request` is what it serves now, or only `refuses`."""

    def __init__(
        self,
        channel: socket.socket | None,
        request: _Request | None,
        *,
        lasting: bool = False,
        refuses: bool = False,
    ) -> None:
        self.channel = channel
        self.lasting = lasting
        self.request = request
        self.refuses = refuses
        self.late = False


def serve(listeners: Sequence[socket.socket], service: Service, master: Master, processes: int) -> None:
    """Serve connections until SIGTERM, SIGINT or the end of the master; what was accepted is finished.

    `processes` lasting workers are kept ready; there are more of them while all are busy.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold mail in clear; gpg inherits this
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    preload.load()
    for listener in listeners:
        listener.setblocking(False)
        listener.listen(_BACKLOG)
    with select.epoll() as poll, _wakened() as wakened:
        supervisor = _Supervisor(service, master, processes, poll, listeners, wakened)
        master.available()
        supervisor.run()


@contextmanager
def _wakened() -> Iterator[socket.socket]:
    """A socket on which each signal that this process gets is an octet, its number."""
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(-1)


class _Supervisor:
    def __init__(
        self,
        service: Service,
        master: Master,
        processes: int,
        poll: select.epoll,
        listeners: Sequence[socket.socket],
        wakened: socket.socket,
    ) -> None:
        self._as_root = os.geteuid() == 0
        self._service = service
        self._master = master
        self._log = master.log
        self._kept = min(processes, _MOST_PROCESSES)
        self._poll = poll
        self._wakened = wakened
        self._listeners = {listener.fileno(): listener for listener in listeners}
        self._showing = {one.fileno() for one in listeners if one.getsockname() in service.metrics_sockets}
        self._counts = Counts(int(time.time()))
        self._listening = False
        self._stopping = False
        self._processes: dict[int, _Process] = {}  # by process ID
        self._idle: list[int] = []  # lasting workers, the last used last: it comes first again
        self._channels: dict[int, int] = {}  # a channel's descriptor to its worker's process ID
        self._waiting: OrderedDict[int, deque[_Request]] = OrderedDict()  # by user; whose turn it is comes first
        self._open: Counter[int] = Counter()  # connections by user
        self._count_open = 0
        self._grows = False  # there will be another worker soon
        self._rest_until = 0.0
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most_open = max(1, (1_000_000 if limit == resource.RLIM_INFINITY else limit) - _SPARE_DESCRIPTORS)
        poll.register(wakened, select.EPOLLIN)
        if master.descriptor is not None:
            poll.register(master.descriptor, select.EPOLLIN)

    def run(self) -> None:
        looked = time.monotonic()
        gc.freeze()  # what is here now is shared with all children: nobody need look at it
        self._start()
        while not (self._stopping and not self._processes and not self._waiting):
            timeout = _PAUSE_SECONDS if self._rests() else _TICK_SECONDS if self._count_open else -1
            timeout = _GROW_SECONDS if self._grows else timeout
            self._grows = False
            for descriptor, _ in self._poll.poll(timeout):
                if descriptor in self._channels:
                    self._hear(self._channels[descriptor])
                elif descriptor in self._listeners:
                    self._accept(self._listeners[descriptor])
                elif descriptor == self._wakened.fileno():
                    self._take_signals()
                elif descriptor == self._master.descriptor:  # it has gone
                    self._stop()
            now = time.monotonic()
            if now - looked > _TICK_SECONDS:
                looked = now
                self._look_at_the_time(now)
            self._start()

    def _take_signals(self) -> None:
        numbers = self._wakened.recv(4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        while self._processes:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if not ended:
                break
            self._bury(ended, os.waitstatus_to_exitcode(status))

    def _stop(self) -> None:
        """Accept nothing more. Idle workers end at once, others when they are done."""
        self._stopping = True
        self._kept = 0
        self._listen(False)
        if self._master.descriptor is not None:
            with suppress(OSError):  # it was told before
                self._poll.unregister(self._master.descriptor)

    def _listen(self, wanted: bool) -> None:
        if wanted != self._listening:
            self._listening = wanted
            for descriptor in self._listeners:
                if wanted:
                    self._poll.register(descriptor, select.EPOLLIN)
                else:
                    self._poll.unregister(descriptor)

    # Connections

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # the machine has no descriptor left
            self._complain(f"cannot accept a connection: {error.strerror}")
            time.sleep(_PAUSE_SECONDS)
            return
        if listener.fileno() in self._showing:
            with connection:
                self._show(connection)
            return
        came = Deadline.after(0)
        user, _ = worker.peer(connection)
        if self._is_another(user) and self._open[user] >= _EACH_OPEN:
            with connection:
                _say_no(connection)
            self._count(came, Report(counts.TOO_MANY))
            return
        self._open[user] += 1
        self._count_open += 1
        request = _Request(connection, user, came, came.later(self._service.answer_seconds))
        self._waiting.setdefault(user, deque()).append(request)

    def _show(self, connection: socket.socket) -> None:
        """Send all counts. Nobody is waited for: that much goes into a fresh connection."""
        with suppress(OSError):
            connection.send(transfer.pack(self._counts.shown(), Shown), socket.MSG_DONTWAIT)

    def _count(self, came: Deadline, report: Report) -> None:
        """Count a request that came then, and has its answer now."""
        self._counts.add(report, time.monotonic() - came.moment)

    def _close(self, request: _Request) -> None:
        request.connection.close()
        self._count_open -= 1
        self._open[request.user] -= 1
        if not self._open[request.user]:
            del self._open[request.user]

    def _is_another(self, user: int) -> bool:
        """Whether only root, as which this runs, can act for that user."""
        return self._as_root and user != 0

    # Processes

    def _start(self) -> None:
        """Give work to those who can do it; have as many processes as are needed, and no more."""
        try:
            if self._waiting:
                self._distribute()
            while len(self._channels) < self._kept and not self._rests():
                self._fork_worker()
        except OSError as error:
            self._complain(f"cannot start a process: {error.strerror}")
            self._rest()
        while len(self._idle) > self._kept:
            self._dismiss(self._idle[-1])
        self._listen(not self._stopping and self._count_open < self._most_open)

    def _distribute(self) -> None:
        for user in list(self._waiting):
            requests = self._waiting[user]
            while requests and self._serve(requests[0]):
                requests.popleft()
            if requests:
                self._waiting.move_to_end(user)
            else:
                del self._waiting[user]

    def _serve(self, request: _Request) -> bool:
        """Returns whether there is a process for it now."""
        if self._is_too_late(request):
            return False
        if self._is_another(request.user):
            if self._has_enough(request.user) or len(self._processes) >= _MOST_PROCESSES or self._rests():
                return False
            self._fork_for(request)
            return True
        if not self._idle:
            self._grows = len(self._channels) < _MOST_PROCESSES and not self._rests()
            waited = request.deadline.later(_GROW_SECONDS - self._service.answer_seconds).is_over()
            if not self._grows or not waited:
                return False
            self._fork_worker()
        process = self._processes[self._idle.pop()]
        process.request = request
        if process.channel is not None:
            with suppress(OSError):  # it has just died, and is buried next
                worker.hand_over(process.channel, request.connection, self._their_deadline(request))
        return True

    def _has_enough(self, user: int) -> bool:
        """Whether as many processes as may be are at work for one user of several."""
        theirs = (one.request is not None and one.request.user == user for one in self._processes.values())
        return self._is_another(user) and sum(theirs) >= _EACH_AT_ONCE

    def _is_too_late(self, request: _Request) -> bool:
        """Whether too little is left of the time for an answer to begin with it."""
        return request.deadline.later(-self._service.answer_seconds * _TO_SERVE).is_over()

    def _their_deadline(self, request: _Request) -> Deadline:
        """When a process must have given up, so that it can still say why."""
        return request.deadline.later(-self._service.answer_seconds * _FOR_LAST_WORDS)

    def _fork_for(self, request: _Request) -> None:
        """Start a process that serves this request, as the user who asks. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection, deadline = request.connection, self._their_deadline(request)
        with theirs:
            try:
                work = lambda: worker.act_for(theirs, connection, deadline, self._service, self._log)  # noqa: E731
                self._fork((theirs.fileno(), connection.fileno()), work, _Process(ours, request))
            except OSError:
                ours.close()
                raise

    def _fork_worker(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                work = lambda: worker.work(theirs, self._service, self._log)  # noqa: E731
                child = self._fork((theirs.fileno(),), work, _Process(ours, None, lasting=True))
            except OSError:
                ours.close()
                raise
        self._poll.register(ours, select.EPOLLIN)
        self._channels[ours.fileno()] = child
        self._idle.append(child)

    def _fork(self, kept: Sequence[int], work: Callable[[], None], process: _Process) -> int:
        """Start a process that does `work`, and has no descriptors but `kept`. Returns its ID. Raises OSError."""
        child = os.fork()
        if child:
            self._processes[child] = process
            return child
        try:
            signal.set_wakeup_fd(-1)
            descriptors.close_all_but(*kept)
            work()
            os._exit(os.EX_OK)
        except Exception as error:
            self._complain(str(errors.known(error)))
        finally:
            os._exit(os.EX_SOFTWARE)

    def _dismiss(self, child: int) -> None:
        """Have a worker end: it sees that its channel does."""
        process = self._processes[child]
        if process.channel is not None:
            if process.lasting:
                self._poll.unregister(process.channel)
                del self._channels[process.channel.fileno()]
            process.channel.close()
            process.channel = None
        if child in self._idle:
            self._idle.remove(child)

    def _hear(self, child: int) -> None:
        """A process says that it has answered; or it has died, as waitpid will tell."""
        process = self._processes[child]
        if process.channel is None:
            return
        try:
            said = process.channel.recv(worker.WORD, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said and process.request is not None:
            self._count(process.request.came, _report(said[1:]))
            self._close(process.request)
            process.request = None
            if process.lasting:
                self._idle.append(child)
        if said[:1] != worker.DONE:
            self._dismiss(child)

    def _bury(self, child: int, code: int) -> None:
        """A process has ended; where that was in the middle of its work, its client gets an answer all the same."""
        self._hear(child)  # its last word
        self._dismiss(child)
        process = self._processes.pop(child)
        how = "was killed, because it did not answer in time" if process.late else f"has ended ({_how(code)})"
        if process.request is None:
            if code and process.lasting:
                self._complain(f"worker process {child} {how}; another takes its place")
                self._rest()
        elif process.refuses and code and not process.late:
            self._refuse(process.request)  # it was killed before it had read all
        elif process.refuses:
            self._close(process.request)
        else:
            self._count(process.request.came, Report(counts.LATE if process.late else counts.DIED))
            self._complain(
                f"process {child}, at work for user {process.request.user}, {how}: its message is refused, and will "
                "come again; it may have been stored"
            )
            self._refuse(process.request)

    def _look_at_the_time(self, now: float) -> None:
        for user, requests in list(self._waiting.items()):
            while requests and self._is_too_late(requests[0]):
                self._complain(f"a message waited too long for a process, and is refused: user {user}")
                request = requests.popleft()
                self._count(request.came, Report(counts.WAITED))
                if self._has_enough(user):  # others need what there is
                    _say_no(request.connection)
                    self._close(request)
                else:
                    self._refuse(request)
            if not requests:
                del self._waiting[user]
        for child, process in self._processes.items():
            if process.request is not None and process.request.deadline.is_over():
                process.late = True
                os.kill(child, signal.SIGKILL)  # stopped or not

    def _refuse(self, request: _Request) -> None:
        """Have a process take in the rest of what the client sends, and say "no"."""
        request = request._replace(deadline=Deadline.after(2 * _REFUSE_SECONDS))
        try:
            self._fork(
                (request.connection.fileno(),),
                lambda: worker.refuse(request.connection, _REFUSE_SECONDS),
                _Process(None, request, refuses=True),
            )
        except OSError as error:
            self._complain(f"cannot start a process: {error.strerror}")
            self._close(request)

    def _rests(self) -> bool:
        return time.monotonic() < self._rest_until

    def _rest(self) -> None:
        self._rest_until = time.monotonic() + _PAUSE_SECONDS

    def _complain(self, text: str) -> None:
        self._log("error", logfields.line(msg=text))


def _report(octets: bytes) -> Report:
    """What a process says of a request; of one that says what cannot be, that it has died."""
    try:
        return counts.unpack(octets)
    except ValueError:
        return Report(counts.DIED)


def _say_no(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.send(worker.NO, socket.MSG_DONTWAIT)


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
