"""A worker where each mailbox belongs to a system user: it acts as whoever asks, and for nobody else."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.keys import Owner
from tests.program.conftest import ALICE, Server
from tests.program.test_filter import decrypt
from tests.program.test_seal import MESSAGE, Fake, fake

# Two system users that every Debian has; they stand for people.
THIS, OTHER = "games", "news"

# Speaks the script protocol to the socket that its first argument names: standard input there, the answer here.
_CLIENT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    client.sendall(sys.stdin.buffer.read())
    client.shutdown(socket.SHUT_WR)
    while piece := client.recv(65536):
        sys.stdout.buffer.write(piece)
"""


class Host(NamedTuple):
    """A running worker: where it filters, where it seals, and the home of THIS, who has Alice's key."""

    filter: Path
    execute: Path
    home: Path
    lmtp: Fake
    log: Path

    def ask(self, uid: int, path: Path, environment: dict[str, str], *arguments: str) -> bytes:
        """What a process of that user is answered."""
        lines = [f"env_{name}={value}" for name, value in environment.items()]
        head = "\n".join(["VERSION\tscript\t4\t0", *lines, "-", *arguments, "", ""]).encode()
        command = [sys.executable, "-c", _CLIENT, str(path)]
        interpreter = ["/usr/bin/python3", *command[1:]]  # one that this user can reach
        return subprocess.run(
            interpreter, input=head + MESSAGE, user=uid, group=uid, extra_groups=[], check=True, stdout=subprocess.PIPE
        ).stdout


@pytest.fixture
def host(alice: Owner) -> Iterator[Host]:
    if os.getuid() != 0:
        pytest.fail("only root can act for other users: run this as root")
    directory = Path(tempfile.mkdtemp(prefix="users-", dir="/tmp"))
    directory.chmod(0o755)
    home = directory / THIS
    home.mkdir()
    Server(home).give(alice.public(ALICE))
    account = pwd.getpwnam(THIS)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
        path.chmod(0o700)
    with fake() as lmtp, (directory / "log").open("wb") as log:
        paths = directory / "filter", directory / "execute"
        code = "import sys; from sieve_filter.cli import main; sys.exit(main('/nonexistent'))"
        listen = ["--listen", str(paths[0]), "--listen-execute", str(paths[1])]
        options = [*listen, "--socket", lmtp.path, "--processes", "2"]
        worker = subprocess.Popen([sys.executable, "-c", code, "worker", *options], stderr=log)
        for path in paths:
            while not path.exists():
                time.sleep(0.02)
            path.chmod(0o666)
        Path(lmtp.path).parent.chmod(0o700)
        yield Host(*paths, home, lmtp, directory / "log")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0
    shutil.rmtree(directory)


def uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def test_user_is_served_with_that_user_s_own_keyring(host: Host, alice: Owner) -> None:
    answer = host.ask(uid(THIS), host.filter, {"USER": THIS, "HOME": str(host.home)})
    assert answer.endswith(b"+\n")
    assert decrypt(answer[:-2], alice) == MESSAGE


def test_nobody_reaches_another_user_s_keyring(host: Host) -> None:
    answer = host.ask(uid(OTHER), host.filter, {"USER": THIS, "HOME": str(host.home)})
    assert answer == b"-\n"
    assert b"cannot look into" in host.log.read_bytes()


def test_user_seals_for_the_own_mailbox(host: Host, alice: Owner) -> None:
    environment = {"USER": THIS, "HOME": str(host.home), "RECIPIENT": f"{THIS}+x@example.org"}
    assert host.ask(uid(THIS), host.execute, environment, "seal") == b"sealed+\n"
    assert host.lmtp.said[2] == f"RCPT TO:<{THIS}+x@example.org>".encode()
    assert decrypt(host.lmtp.taken, alice) == MESSAGE


@pytest.mark.parametrize(
    ("asker", "environment"),
    [
        (OTHER, {"USER": THIS, "RECIPIENT": f"{THIS}@example.org"}),
        (THIS, {"USER": THIS, "RECIPIENT": f"{OTHER}@example.org"}),
        (THIS, {"USER": OTHER, "RECIPIENT": f"{OTHER}@example.org"}),
        (THIS, {"USER": "no-such-user", "RECIPIENT": f"{THIS}@example.org"}),
        (THIS, {"USER": f"{THIS}@example.org", "RECIPIENT": f"{THIS}.x@example.org"}),
    ],
)
def test_nobody_seals_for_another_mailbox(asker: str, environment: dict[str, str], host: Host) -> None:
    answer = host.ask(uid(asker), host.execute, {"HOME": str(host.home)} | environment, "seal")
    assert answer == b"-\n"
    assert not host.lmtp.said
    assert b"may not deliver" in host.log.read_bytes()
