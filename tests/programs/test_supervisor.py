"""What a client gets from `cryptomail worker` when something happens to the process that serves it: always an answer.

Dovecot's lmtp panics where a connection ends before all of the request was taken, or no answer comes in time.
"""

import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import sieve_filter
from lab.keys import Owner
from tests.support.lmtp import ENVELOPE, GOOD, Fake
from tests.support.server import Server
from tests.support.workers import MESSAGE, Worker, answer, connected, opened, running, until

MUCH = b"text\r\n" * 1_000_000
HAS_ENDED = re.compile(
    r'cryptomail: error: msg="process \d+, at work for user 0, has ended \(SIGKILL\): its message is refused, '
    r'and will come again; it may have been stored"'
)


@contextmanager
def begun(worker: Worker, path: str, *arguments: str) -> Iterator[tuple[socket.socket, int]]:
    """A request of which a process has some, and that process."""
    before = {child: times(child) for child in worker.children}
    with connected(path) as connection:
        connection.sendall(worker.request(*arguments, **ENVELOPE) + MESSAGE)
        until(lambda: any(times(child) != before.get(child) for child in worker.children))
        time.sleep(0.3)
        [busy] = [child for child in worker.children if serves(child)]
        yield connection, busy


def times(process: int) -> str:
    return Path(f"/proc/{process}/schedstat").read_text()


def serves(process: int) -> bool:
    """Whether it has a connection, beside its channel."""
    found = [str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir() if int(path.name) > 2]
    return len([name for name in found if name.startswith("socket:")]) > 1


@pytest.mark.parametrize("path", ["filter", "execute"])
def test_process_that_is_killed_in_the_middle_leaves_no_broken_connection(
    path: str, enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    with running(enrolled, tmp_path) as worker:
        socket_path = worker.filter_path if path == "filter" else worker.execute_path
        with begun(worker, socket_path, *["seal"] * (path == "execute")) as (connection, busy):
            os.kill(busy, signal.SIGKILL)
            time.sleep(0.2)
            connection.sendall(MUCH)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) == b"-\n"
        assert any(HAS_ENDED.fullmatch(line) for line in worker.log)
        assert "nothing was stored" not in "".join(worker.log)
        assert opened(worker.filter(MESSAGE), alice) == MESSAGE


def test_process_that_is_stopped_is_killed_and_its_client_told_in_time(
    enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    fetched = "from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 4"
    with running(enrolled, tmp_path, fetched=fetched) as worker:
        started = time.monotonic()
        with begun(worker, worker.filter_path) as (connection, busy):
            os.kill(busy, signal.SIGSTOP)
            assert opened(worker.filter(MESSAGE), alice) == MESSAGE
            connection.sendall(MUCH)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection) == b"-\n"
        assert 3 < time.monotonic() - started < 12
        assert "was killed, because it did not answer in time" in worker.log[-1]
        until(lambda: len(worker.children) == 2)


def test_request_in_hand_is_finished_where_the_supervisor_is_killed(
    enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    worker = Worker(enrolled, tmp_path)
    workers = worker.children
    with begun(worker, worker.filter_path) as (connection, _):
        worker.process.kill()
        worker.process.wait(10)
        connection.sendall(MUCH)
        connection.shutdown(socket.SHUT_WR)
        assert opened(answer(connection), alice) == MESSAGE + MUCH
    until(lambda: not any(Path(f"/proc/{one}").exists() for one in workers))


def test_a_worker_serves_on_though_an_upgrade_has_taken_away_its_files(
    enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    place = tmp_path / "version-before"
    shutil.copytree(Path(sieve_filter.__file__).parent, place / "sieve_filter")
    with running(enrolled, tmp_path, fetched=f"import sys; sys.path.insert(0, {str(place)!r})") as worker:
        shutil.rmtree(place)
        before = worker.children
        for child in before:  # those that follow begin without the files, too
            os.kill(child, signal.SIGKILL)
        until(lambda: len(set(worker.children) - set(before)) == 2)
        for message in (MESSAGE, MESSAGE + MUCH, b"no header section \xff\x00\r\n"):
            assert opened(worker.filter(message), alice) == message


def test_what_comes_while_all_are_busy_waits_for_its_turn(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    fetched = "from sieve_filter.programs import supervisor; supervisor._MOST_PROCESSES = 2"
    with running(enrolled, tmp_path, fetched=fetched) as worker, ThreadPoolExecutor(20) as pool:
        for output in pool.map(lambda _: worker.filter(MESSAGE), range(60)):
            assert opened(output, alice) == MESSAGE
        assert len(worker.children) == 2
        assert not [line for line in worker.log if "error" in line]


def test_what_waits_too_long_is_told_so(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    fetched = (
        "from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 4; from sieve_filter.programs import supervisor; "
        "supervisor._MOST_PROCESSES = 1; supervisor._REFUSE_SECONDS = 3"
    )
    with running(enrolled, tmp_path, processes=1, fetched=fetched) as worker:
        with begun(worker, worker.filter_path) as (_, busy):
            os.kill(busy, signal.SIGSTOP)
            assert worker.filter(MESSAGE + MUCH) == b"-\n"
            assert any("waited too long for a process, and is refused: user 0" in line for line in worker.log)
        assert opened(worker.filter(MESSAGE), alice) == MESSAGE


def test_what_could_not_be_answered_in_time_is_not_delivered(enrolled: Server, tmp_path: Path) -> None:
    """It would be stored, and refused all the same, and so come twice."""
    fetched = (
        "from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 4; from sieve_filter.programs import supervisor; "
        "supervisor._MOST_PROCESSES = 1; supervisor._REFUSE_SECONDS = 3"
    )
    server = Fake(str(tmp_path), GOOD)
    server.delay = 2
    with running(enrolled, tmp_path, processes=1, fetched=fetched) as worker:
        with begun(worker, worker.filter_path) as (_, busy):
            os.kill(busy, signal.SIGSTOP)
            time.sleep(0.7)  # when the first one's time is over, hardly any is left for the second
            assert worker.execute(MESSAGE, "seal", **ENVELOPE) == b"-\n"
        assert not server.ended
    server.close()


def test_more_processes_come_while_all_are_busy_and_go_again(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    with running(enrolled, tmp_path) as worker:
        stalled = [connected(worker.filter_path) for _ in range(5)]
        for one in stalled:
            one.__enter__().sendall(worker.request())
        assert opened(worker.filter(MESSAGE), alice) == MESSAGE
        assert len(worker.children) > 5
        for one in stalled:
            one.__exit__(None, None, None)
        until(lambda: len(worker.children) == 2)


def test_delivery_that_is_slow_is_waited_for(enrolled: Server, tmp_path: Path) -> None:
    """One copy and one answer, where the server behind takes longer than time_limit."""
    enrolled.config.write_text("time_limit = 4\n")
    server = Fake(str(enrolled.home), GOOD)
    server.delay = 6
    with running(enrolled, tmp_path) as worker:
        assert worker.execute(MESSAGE, "seal", **ENVELOPE) == b"sealed+\n"
    assert server.ended
    server.close()


def test_delivery_without_an_answer_may_have_been_stored(enrolled: Server, tmp_path: Path) -> None:
    server = Fake(str(enrolled.home), GOOD | {b".": b"250-never ends"})
    with running(
        enrolled, tmp_path, fetched="from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 4"
    ) as worker:
        assert worker.execute(MESSAGE, "seal", **ENVELOPE) == b"-\n"
        assert "did not say whether it has stored" in worker.log[-1]
        assert "nothing was stored" not in worker.log[-1]
    server.close()


def test_early_refusal_names_the_message(enrolled: Server, tmp_path: Path) -> None:
    enrolled.config.write_text("this is not TOML")
    with running(enrolled, tmp_path) as worker:
        assert worker.filter(MESSAGE + MUCH) == b"-\n"
        assert "message_id=<1@example.com>" in worker.log[-1]


def test_worker_that_a_message_has_made_large_ends_after_it(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    fetched = "from sieve_filter.programs import worker; worker._GROWN_KILOBYTES = 1"
    with running(enrolled, tmp_path, fetched=fetched) as worker:
        before = set(worker.children)
        for _ in range(6):
            assert opened(worker.filter(MESSAGE), alice) == MESSAGE
        until(lambda: len(worker.children) == 2 and before != set(worker.children))
        assert not [line for line in worker.log if "error" in line]
