"""Who used the processors: the time that each of a Dovecot's processes took, from proc(5)."""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

# Dovecot's name of a process, and ours for what it does. The supervisor forks the workers, which keep its name.
_KINDS = {"lmtp": "lmtp", "worker": "supervisor"}
WORKER, PROGRAMS, OTHERS = "worker", "programs they start", "the rest of Dovecot"
KINDS = (*_KINDS.values(), WORKER, PROGRAMS, OTHERS)

_TICKS = os.sysconf("SC_CLK_TCK")


class _Used(NamedTuple):
    """Seconds of processor time: a process's own, and that of the programs that it started and that have ended."""

    kind: str
    own: float
    started: float


@contextmanager
def measured(directory: Path) -> Iterator[dict[str, float]]:
    """Count, until the block ends, the seconds that the Dovecot with that base directory takes, by KINDS."""
    found: dict[str, float] = defaultdict(float)
    before = _processes(directory)
    yield found
    for process, now in _processes(directory).items():
        then = before.get(process, _Used(now.kind, 0, 0))
        found[now.kind] += now.own - then.own
        found[PROGRAMS] += now.started - then.started


def _processes(directory: Path) -> dict[int, _Used]:
    master = int((directory / "master.pid").read_text())
    processes = dict(running())
    supervisors = {process for process, one in processes.items() if one.parent == master and one.name == "worker"}
    found: dict[int, _Used] = {}
    for process, one in processes.items():
        if process == master:
            found[process] = _Used(OTHERS, one.own, 0)  # its children are here themselves
        elif one.parent == master:
            found[process] = _Used(_KINDS.get(one.name, OTHERS), one.own, one.started)
        elif one.parent in supervisors:
            found[process] = _Used(WORKER, one.own, one.started)
    return found


class Running(NamedTuple):
    name: str
    parent: int
    own: float
    started: float


def running() -> Iterator[tuple[int, Running]]:
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            name, _, rest = entry.read_text().partition(" (")[2].rpartition(") ")
            fields = rest.split()
            own, started = (sum(int(ticks) for ticks in fields[at : at + 2]) / _TICKS for at in (11, 13))
            yield int(entry.parent.name), Running(name, int(fields[1]), own, started)
