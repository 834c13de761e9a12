"""A worker that answers at once, with a message that was encrypted before: what Dovecot allows at most.

    standin.py ANSWER EXECUTE_SOCKET LMTP_SOCKET

Dovecot starts it in our worker's place, with that one's sockets. It runs in an installation's environment. ANSWER is a
file with the encrypted message; it is looked at for each message, and read where it has changed.
"""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from typing import NamedTuple, NoReturn

from sieve_filter.delivery import sealing
from sieve_filter.dovecot import lmtp, script_protocol
from sieve_filter.dovecot.master import master
from sieve_filter.programs.listeners import inherited

_PROCESSES = 4  # for each socket
_PIECE = 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
_libc = ctypes.CDLL(None)


class Answer(NamedTuple):
    """What is sent: to the filter's client, and to the service that stores what is sealed."""

    version: int
    filtered: bytes
    sealed: bytes

    @classmethod
    def read(cls, path: Path) -> "Answer":
        message = path.read_bytes()
        sealed = sealing.without_trace(message).replace(b"\n.", b"\n..") + b".\r\n"
        return cls(path.stat().st_mtime_ns, message + script_protocol.SUCCESS, sealed)


def main(answer: str, execute_socket: str, lmtp_socket: str) -> None:
    _libc.prctl(_PR_SET_NAME, b"worker")  # as which `cpu` knows it, and its children
    for listener in inherited():
        for _ in range(_PROCESSES):
            if os.fork() == 0:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                listener.setblocking(True)
                _serve(listener, Path(answer), lmtp_socket if listener.getsockname() == execute_socket else None)
    master(os.environ).available()
    signal.pause()


def _serve(listener: socket.socket, path: Path, lmtp_socket: str | None) -> NoReturn:
    answer = Answer(0, b"", b"")
    while True:
        connection, _ = listener.accept()
        with connection:
            received = _received(connection)
            if path.stat().st_mtime_ns != answer.version:
                answer = Answer.read(path)
            if lmtp_socket is None:
                connection.sendall(answer.filtered)
            else:
                _deliver(lmtp_socket, _recipient(received), answer.sealed)
                connection.sendall(b"sealed" + script_protocol.SUCCESS)


def _received(connection: socket.socket) -> bytes:
    """The first piece of what the client sends; the rest is taken in."""
    first = connection.recv(_PIECE)
    while connection.recv(_PIECE):
        pass
    return first


def _recipient(received: bytes) -> str:
    head, _, _ = received.partition(b"\n\n")
    return lmtp.envelope(script_protocol.parse(head).environment).recipient


def _deliver(lmtp_socket: str, recipient: str, message: bytes) -> None:
    """In as many steps as ours takes; an answer that is not the expected one ends this process, and the message."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(lmtp_socket)
        replies = server.makefile("rb")
        _expect(replies.readline(), b"220")
        server.sendall(b"LHLO localhost\r\n")
        while (line := replies.readline())[3:4] == b"-":
            pass
        _expect(line, b"250")
        server.sendall(f"MAIL FROM:<sender@example.com> BODY=8BITMIME\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            _expect(replies.readline(), code)
        server.sendall(message)
        _expect(replies.readline(), b"250")
        server.sendall(b"QUIT\r\n")


def _expect(line: bytes, code: bytes) -> None:
    if not line.startswith(code):
        sys.exit(f"the service that stores what is sealed says {line!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
