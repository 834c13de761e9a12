"""Single messages, without Dovecot: through the executed filter, through a worker's socket, through bare gpg."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.variants import set_config
from lab.client import Lab

_POLL_SECONDS = 0.005
_HEAD = "VERSION\tscript\t4\t0\nenv_USER={}\nenv_HOME={}\n-\n\n"


class FailedError(Exception):
    """A program that is measured did not do its work."""


class Home(NamedTuple):
    """A mailbox owner: the name, and the directory that holds the keyring."""

    user: str
    path: Path

    @property
    def keyring(self) -> Path:
        return self.path / ".cryptomail"

    @classmethod
    def make(cls, path: Path, user: str, public: bytes) -> "Home":
        home = cls(user, path)
        home.keyring.mkdir(mode=0o700, parents=True)
        command = ["gpg", "--homedir", str(home.keyring), "--batch", "--quiet", "--no-autostart", "--import"]
        subprocess.run(command, input=public, check=True, capture_output=True)
        return home


def keyrings(directory: Path, certificates: Sequence[bytes]) -> list[Path]:
    """A keyring for each of these certificates, as gpg makes it."""

    def make(number: int, public: bytes) -> Path:
        return Home.make(directory / f"keyring{number}", "", public).keyring / "pubring.kbx"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(make, range(len(certificates)), certificates))


def homes(directory: Path, keyrings: Sequence[Path], count: int) -> list[Home]:
    """So many owners, each with a copy of one of the keyrings, in turn."""
    made = [Home(f"user{number:05}@example.org", directory / f"user{number:05}") for number in range(count)]
    for number, home in enumerate(made):
        home.keyring.mkdir(mode=0o700, parents=True)
        shutil.copy(keyrings[number % len(keyrings)], home.keyring / "pubring.kbx")
    return made


class Sample(NamedTuple):
    """What one message cost, and what came of it."""

    seconds: float
    octets: int


class Program(NamedTuple):
    """A command that takes a message on its standard input, for a given owner; `prepare` is done before its time."""

    command: Callable[[Home], list[str]]
    prepare: Callable[[], None] = lambda: None

    def run(self, message: Path, home: Home) -> Sample:
        self.prepare()
        started = time.perf_counter()
        with self.start(message, home) as process:
            status = process.wait()
        if status != 0:
            raise FailedError(f"{self.command(home)} ended with {status}")
        return Sample(time.perf_counter() - started, 0)

    def start(self, message: Path, home: Home) -> subprocess.Popen[bytes]:
        environment = {"USER": home.user, "HOME": str(home.path), "PATH": os.environ["PATH"]}
        with message.open("rb") as source:
            return subprocess.Popen(self.command(home), stdin=source, stdout=subprocess.DEVNULL, env=environment)


class Worker(NamedTuple):
    """A worker with one process, on a socket; `prepare` makes it use the wanted engine from the next message on."""

    socket: Path
    process: int
    prepare: Callable[[], None]

    def run(self, message: Path, home: Home) -> Sample:
        self.prepare()
        started = time.perf_counter()
        octets = 0
        end = b""
        with socket.socket(socket.AF_UNIX) as connection, message.open("rb") as source:
            connection.connect(str(self.socket))
            connection.sendall(_HEAD.format(home.user, home.path).encode())
            connection.sendfile(source)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 18):
                octets += len(piece)
                end = (end + piece[-2:])[-2:]
        if end != b"+\n":
            raise FailedError("the worker could not encrypt; see its lines above")
        return Sample(time.perf_counter() - started, octets - len(end))

    def using(self, lab: Lab, settings: str) -> "Worker":
        return self._replace(prepare=lambda: set_config(lab, settings))


def executed(lab: Lab) -> Program:
    """The installed filter, as Dovecot starts it, without settings, as it is installed."""
    return Program(lambda _: [str(lab.filter)], lambda: set_config(lab, ""))


def python(lab: Lab) -> Program:
    """The interpreter alone, started as the filter starts it."""
    return Program(lambda _: [str(lab.python), "-I", "-c", "pass"])


def gpg() -> Program:
    """One `gpg --encrypt`; without compression, because the filter has none either."""
    options = ["--batch", "--quiet", "--trust-model", "always", "--compress-algo", "none", "--armor", "--encrypt"]
    return Program(lambda home: ["gpg", "--homedir", str(home.keyring), *options, "--recipient", _fingerprint(home)])


@contextmanager
def worker(lab: Lab, directory: Path) -> Iterator[Worker]:
    """A worker of the lab's installation, apart from its Dovecot, until the block ends."""
    listens = directory / "worker"
    command = [str(lab.cryptomail), "worker", "--processes", "1", "--listen", str(listens)]
    log = directory / "worker.log"
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            while not (listens.exists() and (children := _children(process.pid))):
                if process.poll() is not None:
                    raise FailedError(f"the worker did not start: {log.read_text()}")
                time.sleep(0.02)
            yield Worker(listens, children[0], lambda: None)
        finally:
            process.terminate()


class Peak(NamedTuple):
    """The most memory that was resident, in octets: of the process, and of its largest child (a gpg)."""

    own: int
    child: int


def peak_of_program(program: Program, message: Path, home: Home) -> Peak:
    """Watch a run of its own: looking takes time."""
    program.prepare()
    with program.start(message, home) as process:
        return _watch(process.pid, lambda: process.poll() is None)


def peak_of_worker(one: Worker, message: Path, home: Home) -> Peak:
    """As above; the worker had best be a new one, because the peak is that of its life."""
    reader = os.fork()
    if reader == 0:  # another process, so that this one can look on
        try:
            one.run(message, home)
            os._exit(0)
        finally:
            os._exit(1)
    status: list[int] = []

    def runs() -> bool:
        pid, code = os.waitpid(reader, os.WNOHANG)
        status.extend([code] if pid else [])
        return not status

    peak = _watch(one.process, runs)
    if status != [0]:
        raise FailedError("the worker could not encrypt")
    return peak


def resident(process: int) -> int:
    """The octets of memory that the process has now."""
    return _memory(process, "VmRSS")


def _watch(process: int, goes_on: Callable[[], bool]) -> Peak:
    own = child = 0
    while True:
        own = max(own, _high_water(process))
        child = max([child, *(_high_water(one, "gpg") for one in _children(process))])
        if not goes_on():
            return Peak(own, child)
        time.sleep(_POLL_SECONDS)


def _high_water(process: int, name: str = "") -> int:
    """Its peak; 0 where it has ended, or has another name: between fork and exec a child has its parent's memory."""
    return _memory(process, "VmHWM", name)


def _memory(process: int, field: str, name: str = "") -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    return int(fields.get(field, "0").split()[0]) * 1024 if name in ("", fields["Name"]) else 0


def _children(process: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


_fingerprints: dict[Path, str] = {}


def _fingerprint(home: Home) -> str:
    if home.path not in _fingerprints:
        command = ["gpg", "--homedir", str(home.keyring), "--batch", "--with-colons", "--list-keys"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        _fingerprints[home.path] = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    return _fingerprints[home.path]


def as_json(values: Mapping[str, Peak]) -> dict[str, Any]:
    return {name: peak._asdict() for name, peak in values.items()}
