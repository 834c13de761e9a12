"""Owners at their own machines, who look after their mailboxes over IMAP, and connections that break."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from tests.e2e.conftest import Person


class Owner:
    """Somebody at their own machine, with gpg, a password in a file, and a public key in another."""

    def __init__(self, person: "Person", directory: Path) -> None:
        self.person = person
        self.address = person.address  # whose mailbox it is
        self.port = person.lab.imap[1]
        self.directory = directory
        self.password = directory / "password"
        self.password.write_text(person.lab.password + "\n")
        self.key = directory / "key.asc"

    def start(self, action: str, *arguments: str) -> "subprocess.Popen[str]":
        code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
        url = f"imap://{quote(self.address, safe='')}@127.0.0.1:{self.port}"
        command = [sys.executable, "-c", code, "mailbox", action, "--imap", url]
        command += ["--password-file", str(self.password), *arguments]
        environment = {"XDG_STATE_HOME": str(self.directory / "state"), "PATH": os.environ["PATH"]}
        environment["GNUPGHOME"] = str(self.person.gpg.home)
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
        )

    def run(self, action: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(action, *arguments)
        said, complained = process.communicate(timeout=300)
        return process.returncode, said, complained

    def encrypt(self, *arguments: str) -> tuple[int, str, str]:
        return self.run("encrypt", "--key-file", str(self.key), *arguments)


@contextlib.contextmanager
def breaking(port: int, chance: random.Random, octets: int) -> Iterator[int]:
    """A way to the server on which each connection breaks after some octets, in either direction. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on(source: socket.socket, target: socket.socket, left: int) -> None:
            with contextlib.suppress(OSError):
                while left > 0 and (piece := source.recv(min(left, 10_000))):
                    target.sendall(piece)
                    left -= len(piece)
            for one in (source, target):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    with near, socket.create_connection(("127.0.0.1", port)) as far:
                        ways = [(near, far), (far, near)]
                        threads = [
                            threading.Thread(target=pass_on, args=(*way, chance.randrange(500, octets))) for way in ways
                        ]
                        for thread in threads:
                            thread.start()
                        for thread in threads:
                            thread.join()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)


@contextlib.contextmanager
def through(port: int, at: int) -> Iterator[None]:
    """The same way, and nothing breaks any more."""
    program = (
        "import socket, sys, threading\n"
        "def go(a, b):\n"
        "    while piece := a.recv(65536):\n"
        "        b.sendall(piece)\n"
        "    b.shutdown(socket.SHUT_WR)\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print(flush=True)\n"
        "near, _ = listener.accept()\n"
        "far = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "threading.Thread(target=go, args=(near, far), daemon=True).start()\n"
        "go(far, near)\n"
    )
    command = [sys.executable, "-c", program, str(at), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()
