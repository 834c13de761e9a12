"""`python -m benchmarks.sealed [N]`: what the service takes that stores sealed mail, with this or that taken away.

N messages of 16 KB go over each of several copies of that service in turn, straight to their sockets, to one mailbox.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from benchmarks import messages
from benchmarks.report import percentile
from benchmarks.variants import configure
from lab import server
from lab.client import Lab

WARM = 20
SIZE = 16_000  # of a message of 10 KB, encrypted

_SEALED = {
    "2.3": "-o plugin/sieve_before= -o lmtp_user_concurrency_limit=0",
    "2.4": "-o sieve_script/cryptomail/type=none -o sieve_script/cryptomail-guard/type=none"
    " -o lmtp_user_concurrency_limit=unlimited",
}
_NO_PLUGIN = {"2.3": "-o plugin/sieve_plugins=", "2.4": "-o sieve_plugins/sieve_extprograms=no"}
_SERVICE = """
service lmtp-{name} {{
  executable = {program} -o instance_name={name} {options}
  client_limit = 1
  vsz_limit = 4G
  unix_listener {name} {{
    mode = 0600
  }}
}}
"""
_LIBRARIES = Path("/usr/lib/dovecot")
_KEPT = "kept"


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    version = "2.3" if server.dovecot_version().startswith("2.3") else "2.4"
    extprograms = _LIBRARIES / "modules/sieve/lib90_sieve_extprograms_plugin.so"
    preloading = f"/usr/bin/env LD_PRELOAD={_LIBRARIES}/libdovecot-sieve.so.0:{extprograms} {_LIBRARIES}/lmtp"
    variants = {
        "installed": ("lmtp", "as it is installed"),
        _KEPT: ("lmtp", "one connection for all messages"),
        "noplugin": (f"lmtp {_NO_PLUGIN[version]}", "without the plugin of Sieve, and so without filter and execute"),
        "preload": (preloading, "with that plugin loaded once for each process"),
        "nofailures": ("lmtp -o namespace/cryptomail-tempfail/disabled=yes", "without the namespace for failures"),
        "noreceived": ("lmtp -o lmtp_add_received_header=no", "without a Received field of its own"),
        "noinfo": ("lmtp -o info_log_path=/dev/null", "without log lines"),
        "again": ("lmtp", "as it is installed, once more: the noise"),
    }
    with _lab() as lab:
        services = (
            _SERVICE.format(name=name, program=program, options=_SEALED[version])
            for name, (program, _) in variants.items()
        )
        configure(lab, "".join(services))
        used, seconds = _measure(lab, list(variants), messages.incompressible(SIZE), count)
    print(f"Dovecot {version}: milliseconds of a processor for a message; the median of its time")
    for name, (_, text) in variants.items():
        print(f"{1000 * used[name] / count:6.2f} {1000 * percentile(seconds[name], 50):7.2f}  {text}")


@contextmanager
def _lab() -> Iterator[Lab]:
    with TemporaryDirectory(prefix="sealed-", dir="/tmp") as name:
        directory = Path(name) / "lab"
        Path(name).chmod(0o755)
        server.start(directory, "sealed")
        try:
            yield Lab.load(directory)
        finally:
            server.stop(directory)
            shutil.rmtree(directory, ignore_errors=True)


def _measure(lab: Lab, names: list[str], message: bytes, count: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    deliver = {name: _client(lab, name, message) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    before: dict[str, float] = {}
    for number in range(WARM + count):
        if number == WARM:
            before = {name: _used(name) for name in names}
        for name in names:
            started = time.perf_counter()
            deliver[name]()
            seconds[name].append(time.perf_counter() - started)
    used = {name: _used(name) - before[name] for name in names}
    return used, {name: all_of_it[WARM:] for name, all_of_it in seconds.items()}


def _client(lab: Lab, name: str, message: bytes) -> Callable[[], None]:
    path, recipient = lab.directory / "run" / name, lab.address("bench0")
    kept: list[tuple[socket.socket, BinaryIO]] = []

    def connect() -> tuple[socket.socket, BinaryIO]:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        replies = connection.makefile("rb")
        replies.readline()
        connection.sendall(b"LHLO localhost\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        return connection, replies

    def deliver() -> None:
        connection, replies = kept.pop() if kept else connect()
        connection.sendall(f"MAIL FROM:<sender@example.com>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
        answers = [replies.readline() for _ in range(3)]
        connection.sendall(message + b".\r\n")
        answers.append(replies.readline())
        if [one[:1] for one in answers] != [b"2", b"2", b"3", b"2"]:
            sys.exit(f"{path} says {answers}")
        if name == _KEPT:
            kept.append((connection, replies))
        else:
            connection.sendall(b"QUIT\r\n")
            replies.close()
            connection.close()

    return deliver


def _used(name: str) -> float:
    """Seconds of a processor that all processes of that service have had (proc(5): schedstat has nanoseconds)."""
    return sum(
        int((process / "schedstat").read_text().split()[0]) / 1e9
        for process in Path("/proc").glob("[0-9]*")
        if os.access(process / "cmdline", os.R_OK) and f"instance_name={name}\0" in (process / "cmdline").read_text()
    )


if __name__ == "__main__":
    main()
