"""Starts workers: one in the hands of Dovecot's master process, or several of our own that listen for themselves."""

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sieve_filter import descriptors, errors, worker
from sieve_filter.errors import UsageError
from sieve_filter.master import Shell, master
from sieve_filter.worker import Service

# Where Dovecot and systemd pass listening sockets on: from 3, systemd's first; Dovecot's come behind seven of its own.
_INHERITED = range(3, 64)
_BACKLOG = 128

_PAUSE_SECONDS = 0.1  # before a process is replaced: one that cannot live shall not keep the machine busy

_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


def under_dovecot(config_file: str, lmtp_socket: str, execute_socket: str, register: str = "") -> int:
    """What the `service` block in Dovecot's configuration starts. Returns an exit code."""
    service = Service(config_file, lmtp_socket, frozenset({execute_socket}), register)
    worker.serve(inherited(), service, master(os.environ))
    return os.EX_OK


def alone(listeners: Sequence[socket.socket], service: Service, processes: int) -> int:
    """Serve with so many processes, until SIGTERM or SIGINT; one that dies is started anew. Returns an exit code."""
    children: set[int] = set()
    stopping = False
    lifeline, ours = os.pipe()  # shows the children that this process has gone, however it went

    def serve() -> None:
        os.close(ours)
        worker.serve(listeners, service, Shell(lifeline))

    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # they are waited for, so that none comes at a bad moment
    while children or not stopping:
        while len(children) < processes and not stopping:
            children.add(_fork(serve))
        if signal.sigwait(_SIGNALS) != signal.SIGCHLD:
            stopping = True
            for child in children:
                os.kill(child, signal.SIGTERM)
        for child in _ended(children):
            children.discard(child)
            if not stopping:
                Shell().log("error", f"worker process {child} has ended; another takes its place")
                time.sleep(_PAUSE_SECONDS)
    return os.EX_OK


def _ended(children: Iterable[int]) -> list[int]:
    return [child for child in children if os.waitpid(child, os.WNOHANG) != (0, 0)]


def inherited() -> list[socket.socket]:
    """The listening sockets that this process was started with. Raises UsageError where there are none."""
    descriptors.keep()
    found: list[socket.socket] = []
    for descriptor in _INHERITED:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
        except OSError:
            continue
        one = socket.socket(fileno=descriptor)
        if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.append(one)
        else:
            one.detach()
    if not found:
        raise UsageError("no socket to listen on was passed on: use --listen, or start it from Dovecot or systemd")
    return found


def listen(path: str) -> socket.socket:
    """A new socket at `path` that only this user can connect to. Raises UsageError where that cannot be."""
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        if _is_dead_socket(path):
            Path(path).unlink()
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listener


def _is_dead_socket(path: str) -> bool:
    """Whether a process that has ended left its socket there."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):  # a file of another kind would refuse connections too
            return False
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(os.EX_OK)
    except Exception as error:
        Shell().log("error", str(errors.known(error)))
    finally:
        os._exit(os.EX_SOFTWARE)
