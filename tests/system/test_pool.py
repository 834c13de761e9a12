"""Work in processes of other users, whose answers nobody needs to believe."""

import ast
import os
import pickle
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sieve_filter
from sieve_filter import limits
from sieve_filter.errors import CryptomailError, RefusedKeyError
from sieve_filter.system import pool, transfer
from sieve_filter.system.pool import Identity
from tests.support.site import NOBODY

ME = Identity(os.geteuid(), os.getegid())


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


class Evil:
    """What makes a directory in the process that unpickles it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.directory),)


def pour(data: bytes) -> None:
    """Write `data` into every pipe that this process could write to, as an owner who has taken it over could."""
    for path in Path("/proc/self/fd").iterdir():
        number = int(path.name)
        try:
            if number > 2 and stat.S_ISFIFO(os.fstat(number).st_mode):
                while data:
                    data = data[os.write(number, data) :]
        except OSError:
            continue
    os._exit(0)


def double(number: int) -> int:
    return 2 * number


def told(work: Callable[[int], int], *items: int, **options: Any) -> dict[int, int | str]:
    """What became of each item, all given to one process."""
    done = pool.each([(ME, items)], work, **options)
    return {item: str(result) if isinstance(result, CryptomailError) else result for item, result in done}


def test_every_item_is_worked_on_once() -> None:
    results = list(pool.each([(ME, [number, number + 100]) for number in range(9)], double))
    assert sorted(results) == sorted((item, 2 * item) for number in range(9) for item in (number, number + 100))


def test_error_of_one_is_that_one_s_alone() -> None:
    def work(number: int) -> int:
        if number == 2:
            raise RefusedKeyError("not this one")
        return number // (number - 3)

    done = told(work, 1, 2, 3, 4)
    assert done == {1: -1, 2: "not this one", 3: done[3], 4: 4}
    assert str(done[3]).startswith("internal error: ZeroDivisionError")
    ((_, error),) = pool.each([(ME, [2])], work)
    assert type(error) is RefusedKeyError


def test_error_is_raised_where_there_is_one_piece_of_work_only() -> None:
    def work() -> int:
        raise RefusedKeyError("not this one")

    with pytest.raises(RefusedKeyError, match="not this one"):
        pool.alone(ME, work)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_owner_who_kills_the_process_stops_no_other_s_work(number: int) -> None:
    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), number)
        return item

    done = told(work, 1, 2, 3)
    assert done == {1: 1, 2: done[2], 3: 3}
    assert ("stopped by SIGTERM" if number == signal.SIGTERM else "process of this command died") in str(done[2])


def test_owner_who_stops_the_process_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(item: int) -> int:
        if item == 2:
            os.kill(os.getpid(), signal.SIGSTOP)
        return item

    monkeypatch.setattr(limits, "STOP_SECONDS", 1)
    since = time.monotonic()
    assert told(work, 1, 2, 3, seconds=1) == {1: 1, 2: "it took longer than 1 seconds", 3: 3}
    assert time.monotonic() - since < 30


def test_program_that_hangs_is_killed_with_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(item: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with subprocess.Popen(["sleep", "300"]) as program:
            (tmp_path / "number").write_text(str(program.pid))
            program.wait()
        return item

    monkeypatch.setattr(limits, "STOP_SECONDS", 1)
    assert told(work, 1, seconds=1) == {1: "it took longer than 1 seconds"}
    program = Path("/proc", (tmp_path / "number").read_text(), "status")
    deadline = time.monotonic() + 20
    while program.exists() and "State:\tZ" not in program.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_time_that_the_caller_takes_counts_against_nobody() -> None:
    done = pool.each([(ME, [1, 2]), (ME, [3, 4])], double, seconds=1)
    first = next(done)
    time.sleep(3)
    assert sorted([first, *done]) == [(1, 2), (2, 4), (3, 6), (4, 8)]


def test_nothing_that_an_owner_s_process_sends_is_run(tmp_path: Path) -> None:
    frame = pickle.dumps(Evil(tmp_path / "made"))

    def work(item: int) -> int:
        pour(struct.pack("!i", len(frame)) + frame)
        return item

    told(work, 1)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 100,
        struct.pack("!II", 2**32 - 1, 2**32 - 1) + b"x" * 1000,
        struct.pack("!II", 5, 0) + b"[0,1]"[:4],
        struct.pack("!II", 7, 0) + b'[0,"1"]',
        struct.pack("!II", 13, 0) + b"[1,[7,7,7,7]]",
        struct.pack("!II", 2, 0) + b"[[",
        transfer.pack(1, str | int),
        b"",
    ],
)
def test_garbage_that_a_process_sends_is_that_owner_s_error_only(sent: bytes) -> None:
    def work(item: int) -> int:
        if item == 2:
            pour(sent)
        return item

    done = told(work, 1, 2, 3)
    assert done == {1: 1, 2: done[2], 3: 3}
    assert str(done[2]).startswith("a process of this command ")


def test_result_of_another_type_than_was_declared_is_refused() -> None:
    def work(item: int) -> int:
        return f"{item}"  # type: ignore[return-value]

    assert str(told(work, 1)[1]).startswith("a process of this command died")


def test_flood_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESULT_TEXT_OCTETS", 1000)

    def work(item: int) -> str:
        return "x" * 5000 if item == 2 else "y"

    done = dict(pool.each([(ME, [1, 2, 3])], work))
    assert (done[1], str(done[2]), done[3]) == ("y", "what there is to tell is too large", "y")


class Held(NamedTuple):
    """What a process has."""

    ids: frozenset[int]
    descriptors: tuple[str, ...]
    session: bool
    terminal: bool


def held(_: int) -> Held:
    names = {}
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            names[path.name] = str(path.readlink())
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        terminal = True
    except OSError:
        terminal = False
    ids = frozenset((*os.getresuid(), *os.getresgid(), *os.getgroups()))
    found = (name.partition(":")[0] for number, name in names.items() if number != "2")
    return Held(ids, tuple(sorted(found)), os.getsid(0) == os.getpid(), terminal)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_process_has_the_owner_s_rights_and_nothing_of_its_parent_s(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("wb") as file:
        os.set_inheritable(file.fileno(), True)
        mine, theirs = os.pipe()
        for one in (mine, theirs):
            os.set_inheritable(one, True)
        for _, found in pool.each([(Identity(NOBODY, NOBODY), [1])] * 3, held, at_once=3):
            assert found == Held(frozenset({NOBODY}), ("/dev/null", "/dev/null", "pipe"), True, False)
        os.close(mine)
        os.close(theirs)


def test_no_module_reads_what_could_run_something() -> None:
    forbidden = {"pickle", "marshal", "shelve", "multiprocessing", "dill", "concurrent"}
    for path in Path(sieve_filter.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.partition(".")[0] for name in names}, path
