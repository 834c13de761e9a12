"""`python -m benchmarks.worker [--cold] [N]`: what the supervisor and its one worker take of a processor for a message.

N of them come one after the other, of 10 KB, for an owner with a key, through the worker's socket: without Dovecot, and
with the engine that is there. All run on one processor. With --cold, its caches have something else in them before each
message, as they have where Dovecot and other programs run in between.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import cpu, messages
from benchmarks.programs import Home, Worker
from lab import keys

SIZE = 10_000
WARM = 20
CACHED, LINE = 64_000_000, 64  # octets: more than caches hold, and what they hold together


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("count", type=int, nargs="?", default=500, metavar="N")
    options = parser.parse_args()
    count, other = options.count, bytearray(CACHED if options.cold else 0)
    os.sched_setaffinity(0, {0})
    with TemporaryDirectory(prefix="worker-", dir="/tmp") as temporary, keys.owner() as owner:
        directory = Path(temporary)
        owner.make_key("user@example.org")
        home = Home.make(directory / "home", "user@example.org", owner.public("user@example.org"))
        message, listens = directory / "message", directory / "socket"
        message.write_bytes(messages.incompressible(SIZE))
        command = [sys.executable, "-m", "sieve_filter", "worker", "--processes", "1", "--listen", str(listens)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not listens.exists():
                time.sleep(0.02)
            one = Worker(listens, process.pid, lambda: None)
            for _ in range(WARM):
                one.run(message, home)
            supervisor, worker = _used(process.pid)
            for _ in range(count):
                sum(other[::LINE])
                one.run(message, home)
            each = [
                1000 * (now - then) / count for now, then in zip(_used(process.pid), (supervisor, worker), strict=True)
            ]
            process.terminate()
    print(f"supervisor {each[0]:.2f} ms a message, worker {each[1]:.2f} ms, programs that it starts included")


def _used(supervisor: int) -> tuple[float, float]:
    """Seconds of a processor so far: of the supervisor, and of its workers."""
    running = dict(cpu.running())
    workers = [one for one in running.values() if one.parent == supervisor]
    return running[supervisor].own, sum(one.own + one.started for one in workers)


if __name__ == "__main__":
    main()
