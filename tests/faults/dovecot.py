"""Changes a running lab for the time of a test: its files, its settings, its program; and puts all back."""

import json
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lab.client import Lab
from lab.server import START_SECONDS, STOP_SECONDS

# The lab's modes: in one a worker does the work, in another a program that is started for each message, and in the
# third a worker that acts for system users, each of whom owns a mailbox.
WORKER, PROGRAM, USERS = "sealed", "executed", "users"
NAMES = {WORKER: "worker", PROGRAM: "program", USERS: "users"}

# Who gets the mail in the third, and who attacks. Both Dovecots run at the same time: no test may kill what another's
# user runs.
OWNER = {"2.3": "list", "2.4": "backup"}
STRANGER = {"2.3": "irc", "2.4": "proxy"}

# What each version calls a setting.
SETTINGS = {
    "2.3": {
        "exec timeout": "plugin {\n  sieve_execute_exec_timeout = 2s\n}\n",
        "cpu limit": "plugin {\n  sieve_max_cpu_time = 1s\n}\n",
        "quota": (
            "protocol lmtp {\n  mail_plugins = quota sieve\n}\n"
            "plugin {\n  quota = maildir:User quota\n  quota_rule = *:storage=20K\n  quota_grace = 0\n}\n"
        ),
    },
    "2.4": {
        "exec timeout": "sieve_execute_exec_timeout = 2s\n",
        "cpu limit": "sieve_max_cpu_time = 1s\n",
        "quota": (
            'mail_plugins {\n  quota = yes\n}\nquota "User quota" {\n  storage_size = 20K\n  storage_grace = 0\n}\n'
        ),
    },
}


def mode(lab: Lab) -> str:
    return str(json.loads((lab.directory / "lab.json").read_text())["mode"])


def program(lab: Lab) -> Path:
    """The file that the global script calls, or that Dovecot starts as a worker."""
    installed = lab.filter.parent.parent
    return installed / "execute-bin" / lab.filter.name if mode(lab) == PROGRAM else installed / "worker"


def config_file(lab: Lab) -> Path:
    return lab.directory / "etc/cryptomail/config.toml"


def workshop(lab: Lab) -> Path:
    """A directory for what the tests put into the lab; its processes can read it."""
    directory = lab.directory / "faults"
    directory.mkdir(mode=0o755, exist_ok=True)
    return directory


@contextmanager
def programs(lab: Lab) -> Iterator[Path]:
    """A directory for programs that fail."""
    directory = workshop(lab) / "programs"
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def belongs_to_the_mail_user(lab: Lab, path: Path) -> None:
    if os.getuid() == 0:
        os.chown(path, lab.mail_uid, pwd.getpwuid(lab.mail_uid).pw_gid)


@contextmanager
def replaced(lab: Lab, file: Path, content: str | bytes | None, mode: int | None = None) -> Iterator[None]:
    """The file with another content, another mode, or, with neither, not there."""
    kept = workshop(lab) / f"{file.name}.{time.monotonic_ns()}.kept"  # it may be replaced once more meanwhile
    shutil.copy2(file, kept)
    status = file.stat()
    try:
        if content is None and mode is None:
            file.unlink()
        elif content is not None:
            file.unlink()  # a program that runs cannot be written to
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            file.chmod(status.st_mode & 0o7777)
            os.chown(file, status.st_uid, status.st_gid)
        if mode is not None:
            file.chmod(mode)
        yield
    finally:
        file.unlink(missing_ok=True)
        shutil.copy2(kept, file)
        os.chown(file, status.st_uid, status.st_gid)
        kept.unlink()


@contextmanager
def wrapped(lab: Lab, shell: str) -> Iterator[None]:
    """The program behind a shell script, in which $PROGRAM is the true one.

    With -p, or else dash would take on the real user ID, which under Dovecot 2.4 is root's.
    """
    original = workshop(lab) / "cryptomail"
    shutil.copy2(program(lab), original)
    script = f"#!/bin/sh -p\nPROGRAM={shlex.quote(lab.inside(original))}\n{shell}\n"
    with changed(lab), replaced(lab, program(lab), script):
        renew_workers(lab)
        yield


@contextmanager
def changed(lab: Lab) -> Iterator[None]:
    """Workers are started anew afterwards: with the program that they ought to be."""
    try:
        yield
    finally:
        renew_workers(lab)


def renew_workers(lab: Lab) -> None:
    """Have Dovecot start its workers anew; for that it starts LMTP anew too. Waits until the old ones have ended."""
    if mode(lab) != PROGRAM:
        old = processes(lab, "lmtp", "worker")
        configuration = lab.inside(lab.directory / "dovecot.conf")
        subprocess.run(lab.command("/usr/bin/doveadm", "-c", configuration, "reload"), check=True)
        _wait(lambda: not old & processes(lab, "lmtp", "worker"), STOP_SECONDS)


def processes(lab: Lab, *names: str) -> set[int]:
    """Those of Dovecot's processes that have one of these names."""
    master = (lab.directory / "run" / "master.pid").read_text().strip()
    found = set()
    for child in Path(f"/proc/{master}/task/{master}/children").read_text().split():
        with suppress(OSError):  # it has ended
            if Path(f"/proc/{child}/comm").read_text().strip() in names:
                found.add(int(child))
    return found


@contextmanager
def configured(lab: Lab, settings: str) -> Iterator[None]:
    """Dovecot with these settings too."""
    file = lab.directory / "dovecot.conf"
    with restarting(lab), replaced(lab, file, f"{file.read_text()}\n{settings}"):
        restart(lab)
        yield


@contextmanager
def restarting(lab: Lab) -> Iterator[None]:
    """Restart Dovecot afterwards: it runs with what it was told before, or holds off after a crash."""
    try:
        yield
    finally:
        restart(lab)


def restart(lab: Lab) -> None:
    """Stop Dovecot if it runs, start it, and wait until it answers."""
    configuration = lab.inside(lab.directory / "dovecot.conf")
    pid_file = lab.directory / "run" / "master.pid"
    subprocess.run(lab.command("/usr/bin/doveadm", "-c", configuration, "stop"), stderr=subprocess.DEVNULL)
    _wait(lambda: not pid_file.exists(), STOP_SECONDS)
    with (lab.directory / "log" / "start.log").open("ab") as output:
        command = lab.command("/usr/sbin/dovecot", "-c", configuration)

        def starts() -> bool:
            return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output).returncode == 0

        _wait(starts, START_SECONDS)  # processes of the old one, which still deliver, may hold its port
    _wait(lambda: pid_file.exists() and _answers(lab), START_SECONDS)


def _answers(lab: Lab) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(lab.lmtp) == 0


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "Dovecot did not do it in time"
        time.sleep(0.02)


@contextmanager
def small_disk(lab: Lab, directory: Path, size: str) -> Iterator[None]:
    """A memory file system of that size in the place of the directory, which may be full or read-only soon."""
    if os.getuid() != 0:
        pytest.fail("only root can mount a small file system: run this as root")
    for new in (directory.parent, directory):
        if not new.exists():
            new.mkdir(mode=0o700)
            belongs_to_the_mail_user(lab, new)
    options = f"size={size},mode=700,uid={lab.mail_uid},gid={pwd.getpwuid(lab.mail_uid).pw_gid}"
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", directory], check=True)


def version(lab: Lab) -> str:
    return str(json.loads((lab.directory / "lab.json").read_text())["dovecot"])


def setting(lab: Lab, name: str) -> str:
    return SETTINGS[version(lab)[:3]][name]


def owner(lab: Lab) -> str:
    return OWNER[version(lab)[:3]]


def stranger(lab: Lab) -> str:
    """A user who owns another mailbox."""
    return STRANGER[version(lab)[:3]]


def note(lab: Lab, line: str) -> None:
    """Write into Dovecot's log that a fault has bitten, where nobody else does."""
    with lab.log.open("a") as log:
        log.write(f"fault: {line}\n")


def private_service(lab: Lab) -> Path:
    return lab.directory / "run" / "lmtp-sealed"


def worker_socket(lab: Lab) -> Path:
    return lab.sockets / "execute" / "cryptomail"


@contextmanager
def false_service(lab: Lab, path: Path, answer: Callable[[socket.socket], None] | None) -> Iterator[None]:
    """In place of the service that listens there, one that answers each connection so; with None, nobody does."""
    path.unlink()
    with restarting(lab), socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(16) as pool:
        listener.bind(str(path))
        belongs_to_the_mail_user(lab, path)
        if answer is None:
            yield
            return
        listener.listen()
        accepting = pool.submit(_accept, listener, answer, pool)
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.result()


def _accept(listener: socket.socket, answer: Callable[[socket.socket], None], pool: ThreadPoolExecutor) -> None:
    with suppress(OSError):  # it was shut down
        while True:
            pool.submit(answer, listener.accept()[0])


@contextmanager
def slowed(lab: Lab, path: Path, seconds: float) -> Iterator[None]:
    """The service that listens there, which gives each answer to a message so much later."""
    true = path.with_name("true")
    path.rename(true)
    with restarting(lab), socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(32) as pool:

        def relay(connection: socket.socket) -> None:
            with connection, socket.socket(socket.AF_UNIX) as server, suppress(OSError):
                server.connect(str(true))
                answering = pool.submit(copy, server, connection, 0)
                copy(connection, server, seconds)
                answering.result()

        def copy(source: socket.socket, target: socket.socket, pause: float) -> None:
            end = b""
            with suppress(OSError):
                while piece := source.recv(65536):
                    end = (end + piece)[-5:]
                    if pause and end == b"\r\n.\r\n":
                        time.sleep(pause)
                        note(lab, f"an answer was held back for {pause} seconds")
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)

        listener.bind(str(path))
        belongs_to_the_mail_user(lab, path)
        listener.listen()
        accepting = pool.submit(_accept, listener, relay, pool)
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.result()
            path.unlink()
            true.rename(path)


def worker_that_says(answer: bytes) -> Callable[[socket.socket], None]:
    """Takes the request in, says that, and hangs up."""

    def say(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(65536):
                pass
            connection.sendall(answer)

    return say


def worker_that_hangs(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while connection.recv(65536):
            pass
        time.sleep(4)


def lmtp_that_says(answers: Sequence[bytes]) -> Callable[[socket.socket], None]:
    """Gives these answers, one a line, reads on, and hangs up at the end."""
    return lambda connection: _answer(connection, answers)


def _answer(connection: socket.socket, answers: Sequence[bytes]) -> None:
    with connection, connection.makefile("rwb") as stream, suppress(OSError):
        for answer in answers:
            stream.write(answer + b"\r\n")
            stream.flush()
            if answer.startswith(b"354"):
                while stream.readline() not in (b".\r\n", b""):
                    pass
            else:
                stream.readline()


def lmtp_that_falls_silent(connection: socket.socket) -> None:
    """Greets, and then says nothing, until the client has gone."""
    with connection, suppress(OSError):
        connection.sendall(b"220 hello\r\n")
        while connection.recv(65536):
            pass


@contextmanager
def orphans_ended(lab: Lab) -> Iterator[None]:
    """End what a faulty program left running: it wrote its process ID into `orphans`."""
    notes = workshop(lab) / "orphans"
    notes.mkdir(exist_ok=True)
    notes.chmod(0o777)
    try:
        yield
    finally:
        for note in notes.iterdir():
            with suppress(ProcessLookupError):
                os.kill(int(note.name), signal.SIGKILL)
            note.unlink()
