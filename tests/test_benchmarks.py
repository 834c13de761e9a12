"""The benchmarks' arithmetic, and that what they send has the size that they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cpu, messages
from benchmarks.report import Goal, Spread, percentile, ratio, row


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(1, 99, 1), (2, 50, 1), (3, 50, 2), (100, 99, 99), (101, 99, 100), (1000, 99, 990)],
)
def test_percentile(count: int, percent: float, expected: int) -> None:
    assert percentile(range(count, 0, -1), percent) == expected


def test_a_goal_says_by_how_much() -> None:
    assert Goal("a", True, 0.5, 0.6).row == ("a", "at least 0.5 x", "0.6 x", "hit, by 20 %")
    assert Goal("b", False, 10, 12).row == ("b", "at most 10 x", "12 x", "**missed by 20 %**")
    assert Goal("c", True, 20, None).row == ("c", "at least 20 x", "not measured", "")


def test_a_goal_says_how_far_the_rounds_were_apart() -> None:
    assert Goal.of("a", True, 0.5, Spread(0.6, 0.55, 0.7)).row[2] == "0.6 x (0.55 to 0.7)"


def test_a_ratio_is_that_of_medians_and_its_spread_that_of_each_round() -> None:
    found = {"ours": [10.0, 8.0, 6.0], "plain": [20.0, 20.0, 10.0]}
    assert ratio(found, "ours", "plain") == Spread(0.4, 0.4, 0.6)
    assert ratio(found, "ours", "not measured") is None


def test_the_spread_of_many_single_messages_is_that_of_parts_and_not_of_one_slow_message() -> None:
    found = {"ours": [*([1.0] * 25), 100.0, *([2.0] * 4)], "gpg": [1.0] * 30}
    assert ratio(found, "ours", "gpg") == Spread(1, 1, 2)


def test_each_row_says_what_is_the_default() -> None:
    results = {"default_engine": "GnuPG"}
    assert row("worker, sealed, GnuPG", results) == "**worker, sealed, GnuPG** (default)"
    assert row("worker, filter, GnuPG", results) == "worker, filter, GnuPG (default with `SEALING=no`)"
    assert row("worker, sealed, Sequoia", results) == "worker, sealed, Sequoia"


@pytest.mark.parametrize("size", [1_000, 10_000, 1_000_000])
def test_a_message_has_its_size(size: int) -> None:
    message = messages.incompressible(size)
    assert abs(len(message) - size) < 80
    assert message.endswith(b"\r\n")


def test_the_time_of_workers_is_theirs_and_not_lost_behind_the_supervisor(tmp_path: Path) -> None:
    """The supervisor is Dovecot's child, and the workers are the supervisor's."""
    (tmp_path / "master.pid").write_text(str(os.getpid()))
    supervisor = tmp_path / "worker"
    supervisor.write_text(
        f"#!{sys.executable}\nimport os, sys, time\n"
        "if not os.fork():\n"
        "    while time.process_time() < 0.5: pass\n"
        "    print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    supervisor.chmod(0o755)
    with cpu.measured(tmp_path) as used:
        process = subprocess.Popen([supervisor], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
    process.communicate()
    assert used["worker"] > 0.4
    assert used["supervisor"] < 0.4
