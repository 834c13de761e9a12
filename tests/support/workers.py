"""A real `cryptomail worker`, and a client that speaks to it as Dovecot does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.keys import Owner
from tests.support.filtered import CANARY, decrypt
from tests.support.server import ALICE, Server

# Speaks the script protocol to the socket that its first argument names: standard input there, the answer here.
CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.sendall(sys.stdin.buffer.read())
    client.shutdown(socket.SHUT_WR)
    while piece := client.recv(65536):
        sys.stdout.buffer.write(piece)
"""

_ESCAPES = {b"\x01": b"\x011", b"\x00": b"\x010", b"\t": b"\x01t", b"\r": b"\x01r", b"\n": b"\x01n"}


def escaped(text: bytes) -> bytes:
    """`text` as Dovecot writes it into a line of the script protocol."""
    return b"".join(_ESCAPES.get(bytes([octet]), bytes([octet])) for octet in text)


def head(environment: Mapping[bytes, bytes], *arguments: bytes) -> bytes:
    """The head of a request, as Dovecot sends it."""
    variables = [b"env_" + escaped(name) + b"=" + escaped(value) for name, value in environment.items()]
    lines = [b"VERSION\tscript\t4\t0", *variables, b"-", *map(escaped, arguments)]
    return b"".join(line + b"\n" for line in lines) + b"\n"


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class Worker:
    """The running program: `filter_path` and `execute_path` are its sockets, `lmtp_path` is where it delivers."""

    def __init__(self, server: Server, directory: Path, *options: str, processes: int = 2, fetched: str = "") -> None:
        self.server = server
        self.filter_path = str(directory / "filter")
        self.execute_path = str(directory / "execute")
        self.lmtp_path = str(directory / "lmtp")
        self._log = directory / "log"
        listen = ["--listen", self.filter_path, "--listen-execute", self.execute_path, "--socket", self.lmtp_path]
        with self._log.open("wb") as log:
            options = (*listen, "--processes", str(processes), *options)
            self.process = start(server, *options, stderr=log.fileno(), fetched=fetched)
        until(lambda: _answers(self.filter_path) and _answers(self.execute_path))
        until(lambda: len(self.children) == processes)

    @property
    def log(self) -> list[str]:
        """What it said, without those who only looked whether it is there."""
        return [line for line in self._log.read_text().splitlines() if "hung up in the head" not in line]

    @property
    def children(self) -> list[int]:
        return children(self.process.pid)

    def request(self, *arguments: str, **environment: str) -> bytes:
        """The head of Alice's request."""
        named = {"USER": ALICE, "HOME": str(self.server.home)} | environment
        return head(
            {os.fsencode(name): os.fsencode(value) for name, value in named.items()}, *map(os.fsencode, arguments)
        )

    def filter(self, message: bytes, *arguments: str, **environment: str) -> bytes:
        """What comes back for a message on the socket that filters."""
        return ask(self.filter_path, self.request(*arguments, **environment) + message)

    def execute(self, message: bytes, *arguments: str, **environment: str) -> bytes:
        """What comes back for a message on the socket that seals."""
        return ask(self.execute_path, self.request(*arguments, **environment) + message)


def start(server: Server, *options: str, stderr: int, fetched: str = "", **others: object) -> "subprocess.Popen[bytes]":
    """Start `cryptomail worker`; `fetched` is Python that runs before it."""
    code = f"{fetched}\nimport sys; from sieve_filter.cli.main import main; sys.exit(main({str(server.config)!r}))"
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", code, "worker", *options]
    return subprocess.Popen(command, stderr=stderr, env=environment, **others)  # type: ignore[call-overload,no-any-return]


@contextmanager
def running(server: Server, directory: Path, *options: str, processes: int = 2, fetched: str = "") -> Iterator[Worker]:
    """A worker, until the block ends; it then stops when it is told to, and says that all is well."""
    worker = Worker(server, directory, *options, processes=processes, fetched=fetched)
    try:
        yield worker
    finally:
        worker.process.send_signal(signal.SIGTERM)
        try:
            status = worker.process.wait(20)
        finally:
            worker.process.kill()
    assert status == 0
    assert "Traceback" not in "\n".join(worker.log)


@contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(30)
        yield connection


def answer(connection: socket.socket) -> bytes:
    """All that comes back, until the other side closes."""
    pieces = []
    with suppress(ConnectionResetError):  # it closed without having read everything
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def ask(path: str, request: bytes) -> bytes:
    """Send all of a request, and take the answer."""
    with connected(path) as connection:
        with suppress(BrokenPipeError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        return answer(connection)


def children(pid: int) -> list[int]:
    """The processes that a process has started, and that have not ended or not been waited for."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


MESSAGE = (
    b"From: b@example.com\r\nSubject: "
    + CANARY
    + b"\r\nMessage-ID: <1@example.com>\r\n\r\nMeet me. "
    + CANARY
    + b"\r\n"
)


def opened(output: bytes, alice: Owner) -> bytes:
    """The message in what came back, which must be a success and encrypted."""
    assert output.endswith(b"+\n")
    assert CANARY not in output.partition(b"\r\n\r\n")[2]
    return decrypt(output[:-2], alice)
