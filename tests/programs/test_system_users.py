"""A worker where each mailbox belongs to a system user: it acts as whoever asks, and for nobody else."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.keys import Owner
from sieve_filter.programs.counts import Shown
from sieve_filter.system import transfer
from tests.faults.table import LONG
from tests.support import system_users
from tests.support.filtered import decrypt
from tests.support.lmtp import MESSAGE, Fake, fake
from tests.support.server import ALICE, Server
from tests.support.system_users import request_of
from tests.support.workers import CLIENT, children, until

# Two system users that every Debian has; they stand for people. One kills whatever runs in his name, so that no other
# test may have processes of these two.
THIS, OTHER = "lp", "uucp"


class Host(NamedTuple):
    """A running worker: where it filters, where it seals, and the home of THIS, who has Alice's key."""

    filter: Path
    execute: Path
    home: Path
    lmtp: Fake
    log: Path
    worker: "subprocess.Popen[bytes]"

    def ask(self, uid: int, path: Path, environment: dict[str, str], *arguments: str) -> bytes:
        """What a process of that user is answered."""
        lines = [f"env_{name}={value}" for name, value in environment.items()]
        head = "\n".join(["VERSION\tscript\t4\t0", *lines, "-", *arguments, "", ""]).encode()
        command = [sys.executable, "-c", CLIENT, str(path)]
        interpreter = ["/usr/bin/python3", *command[1:]]  # one that this user can reach
        return subprocess.run(
            interpreter, input=head + MESSAGE, user=uid, group=uid, extra_groups=[], check=True, stdout=subprocess.PIPE
        ).stdout


@pytest.fixture
def host(alice: Owner, request: pytest.FixtureRequest) -> Iterator[Host]:
    """A worker; before it starts, the Python that the parameter is runs, if there is one."""
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
        fetched = getattr(request, "param", "pass")
        code = f"{fetched}\nimport sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
        listen = ["--listen", str(paths[0]), "--listen-execute", str(paths[1])]
        listen += ["--listen-metrics", str(directory / "metrics")]
        options = [*listen, "--socket", lmtp.path, "--processes", "2"]
        worker = subprocess.Popen([sys.executable, "-c", code, "worker", *options], stderr=log)
        for path in paths:
            while not path.exists():
                time.sleep(0.02)
            path.chmod(0o666)
        Path(lmtp.path).parent.chmod(0o700)
        yield Host(*paths, home, lmtp, directory / "log", worker)
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


# What a user can do to those who act for him, and to others' mail: docs/developer/threat-model.md.


@contextmanager
def attack(host: Host, what: str) -> Iterator[None]:
    try:
        with system_users.attack(THIS, signal.Signals[what], str(host.filter), request_of(THIS, str(host.home))):
            yield
    finally:
        for process in children(host.worker.pid):  # what he left stopped would end in its own time
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.mark.parametrize("what", ["SIGSTOP", "SIGKILL"])
def test_a_user_who_stops_kills_and_holds_whatever_he_can_does_not_hold_up_others(what: str, host: Host) -> None:
    others_are_served(host, what, 300 if LONG in os.environ else 10)


@pytest.mark.parametrize("host", ["from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 4"], indirect=True)
def test_nor_does_he_when_all_that_he_asked_for_is_late(host: Host) -> None:
    others_are_served(host, "SIGSTOP", 12)


def others_are_served(host: Host, what: str, seconds: int) -> None:
    """For so long, each message of another user's, while one attacks, and the supervisor stays small."""
    home = host.home.with_name(OTHER)
    home.mkdir()
    os.chown(home, uid(OTHER), -1)
    answers, slowest = [], 0.0
    end = time.monotonic() + seconds
    with attack(host, what):
        time.sleep(1)
        while time.monotonic() < end:
            started = time.monotonic()
            answers.append(host.ask(uid(OTHER), host.filter, {"USER": OTHER, "HOME": str(home)}))
            slowest = max(slowest, time.monotonic() - started)
            assert len(children(host.worker.pid)) <= 8
            assert len(list(Path(f"/proc/{host.worker.pid}/fd").iterdir())) < 200
    assert [answer for answer in answers if answer != MESSAGE + b"+\n"] == []
    assert slowest < 5


@pytest.fixture
def acting(host: Host) -> Iterator[int]:
    """A process that acts for THIS, and waits for the rest of the message."""
    client = f"import socket, sys, time; c = socket.socket(socket.AF_UNIX); c.connect({str(host.filter)!r})"
    client += f"; c.send({request_of(THIS, str(host.home)).encode() + b'Subject: x'!r}); time.sleep(60)"
    command = ["/usr/bin/python3", "-I", "-c", client]
    asking = subprocess.Popen(command, user=uid(THIS), group=uid(THIS), extra_groups=[])

    def found() -> list[int]:
        return [one for one in children(host.worker.pid) if Path(f"/proc/{one}").stat().st_uid in (0, uid(THIS))]

    until(lambda: [one for one in found() if f"Uid:\t{uid(THIS)}\t" in Path(f"/proc/{one}/status").read_text()])
    time.sleep(0.3)
    [process] = [one for one in found() if f"Uid:\t{uid(THIS)}\t" in Path(f"/proc/{one}/status").read_text()]
    yield process
    asking.kill()
    asking.wait()


def test_process_that_acts_for_a_user_has_the_connection_its_channel_and_nothing_else(acting: int) -> None:
    links = {int(path.name): str(path.readlink()) for path in Path(f"/proc/{acting}/fd").iterdir()}
    assert len([name for number, name in links.items() if number > 2]) == 2
    assert next(name for number, name in links.items() if number > 2).startswith("socket:")


# Each says "refused" where the kernel refuses it.
_TRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
process, what = int(sys.argv[1]), sys.argv[2]
if what == "ptrace":
    done = libc.ptrace(16, process, None, None)  # PTRACE_ATTACH
elif what == "pidfd_getfd":
    done = libc.syscall(438, os.pidfd_open(process), 2, 0)
else:
    try:
        open(f"/proc/{process}/{what}", "rb").read(1)
        done = 0
    except OSError:
        done = -1
print("refused" if done < 0 else "done")
"""


@pytest.mark.parametrize("what", ["ptrace", "pidfd_getfd", "mem", "environ", "maps"])
def test_user_cannot_look_into_the_process_that_acts_for_him(what: str, acting: int) -> None:
    command = ["/usr/bin/python3", "-I", "-c", _TRACE, str(acting), what]
    done = subprocess.run(command, user=uid(THIS), group=uid(THIS), extra_groups=[], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"refused\n"


def test_user_who_kills_the_process_that_acts_for_him_is_refused(acting: int, host: Host) -> None:
    os.kill(acting, signal.SIGKILL)
    until(lambda: b"has ended (SIGKILL): its message is refused" in host.log.read_bytes())


def test_connections_of_one_user_beyond_a_limit_are_refused_at_once(host: Host) -> None:
    client = f"""
import socket
held = []
for _ in range(200):
    one = socket.socket(socket.AF_UNIX)
    one.connect({str(host.filter)!r})
    one.settimeout(3)
    held.append(one)
print(held[-1].recv(10))
"""
    command = ["/usr/bin/python3", "-I", "-c", client]
    done = subprocess.run(command, user=uid(THIS), group=uid(THIS), extra_groups=[], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"b'-\\n'\n"


_FORGED = {
    "what cannot be": "from sieve_filter.programs import counts; counts.pack = lambda _: b'\\xff' * counts.SIZE",
    "nothing": "from sieve_filter.programs import counts; counts.pack = lambda _: b''",
    "a thing fifty times": (
        "import os, socket; send = socket.socket.send; socket.socket.send = lambda self, data, *flags: "
        "[send(self, data, *flags) for _ in range(50 if os.geteuid() else 1)][0]"
    ),
}


@pytest.mark.parametrize(("host", "what"), [(_FORGED[what], what) for what in _FORGED], indirect=["host"])
def test_process_that_acts_for_an_owner_counts_for_one_message_whatever_it_reports(host: Host, what: str) -> None:
    environment = {"USER": THIS, "HOME": str(host.home)}
    for _ in range(2):
        assert host.ask(uid(THIS), host.filter, environment).endswith(b"+\n")
    until(lambda: sum(shown(host).values()) >= 2)
    assert shown(host) == ({"sequoia": 2} if what == "a thing fifty times" else {"process-died": 2})


def shown(host: Host) -> dict[str, int]:
    """The outcomes that the worker has counted."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(host.log.with_name("metrics")))
        frame = b"".join(iter(lambda: connection.recv(65536), b""))
    found = transfer.unpack(frame, Shown)
    assert isinstance(found, Shown)
    return {name: count for (_, name), count in found.outcomes.items() if count}


def test_nobody_else_can_look_at_the_numbers(host: Host) -> None:
    assert host.ask(uid(THIS), host.filter, {"USER": THIS, "HOME": str(host.home)}).endswith(b"+\n")
    client = f"import socket; socket.socket(socket.AF_UNIX).connect({str(host.log.with_name('metrics'))!r})"
    command = ["/usr/bin/python3", "-I", "-c", client]
    done = subprocess.run(command, user=uid(THIS), group=uid(THIS), extra_groups=[], stderr=subprocess.PIPE)
    assert b"PermissionError" in done.stderr
