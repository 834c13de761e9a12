"""The benchmarks' arithmetic, and that what they send has the size that they say."""

import pytest

from benchmarks import messages
from benchmarks.report import Goal, percentile


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


@pytest.mark.parametrize("size", [1_000, 10_000, 1_000_000])
def test_a_message_has_its_size(size: int) -> None:
    message = messages.incompressible(size)
    assert abs(len(message) - size) < 80
    assert message.endswith(b"\r\n")
