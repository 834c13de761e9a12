"""Starts the supervisor: in the hands of Dovecot's master process, or on sockets of our own, or of systemd."""

import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path

from sieve_filter.dovecot import lmtp
from sieve_filter.dovecot.master import master, shell
from sieve_filter.errors import UsageError
from sieve_filter.programs import supervisor
from sieve_filter.programs.worker import Service
from sieve_filter.system import descriptors

# Where Dovecot and systemd pass listening sockets on: from 3, systemd's first; Dovecot's come behind seven of its own.
_INHERITED = range(3, 64)

_READY = 4  # workers, for messages that come at once


def under_dovecot(
    config_file: str,
    lmtp_socket: str,
    execute_socket: str,
    register: str = "",
    answer_seconds: float = lmtp.ANSWER_SECONDS,
    dovecot_conf: str = "",
    metrics_socket: str = "",
) -> int:
    """What the `service` block in Dovecot's configuration starts. Returns an exit code.

    On `metrics_socket`, if Dovecot passes it on, it shows its counts. As root it starts a process for each message, and
    keeps none.
    """
    service = Service(
        config_file,
        lmtp_socket,
        frozenset({execute_socket}),
        register,
        answer_seconds,
        dovecot_conf,
        frozenset({metrics_socket}),
    )
    supervisor.serve(inherited(), service, master(os.environ), _READY if os.geteuid() else 0)
    return os.EX_OK


def alone(listeners: Sequence[socket.socket], service: Service, processes: int) -> int:
    """Serve with so many processes, until SIGTERM or SIGINT; one that dies is started anew. Returns an exit code."""
    descriptors.keep()
    supervisor.serve(listeners, service, shell(os.environ), processes)
    return os.EX_OK


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
        listener.listen()
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
