"""Time that is given is kept: by each step, and by the whole of them."""

import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sieve_filter.deadline import Deadline
from sieve_filter.errors import TimedOutError
from sieve_filter.system import pool, signals


@pytest.fixture(autouse=True)
def alarms() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    pool.stop_on_signals()
    yield
    signals.alarm(None)
    signal.signal(signal.SIGALRM, before)


def test_a_step_that_is_done_gives_the_rest_of_the_time_back() -> None:
    signals.alarm(Deadline.after(0.2))
    with signals.at_most(10):
        pass
    with pytest.raises(TimedOutError):
        time.sleep(5)


def test_a_step_has_no_more_time_than_all_of_them() -> None:
    signals.alarm(Deadline.after(0.1))
    started = time.monotonic()
    with pytest.raises(TimedOutError), signals.at_most(10):
        time.sleep(5)
    assert time.monotonic() - started < 4


def test_a_step_that_makes_nothing_of_being_late_does_not_win_time_for_the_next() -> None:
    signals.alarm(Deadline.after(0.1))
    with pytest.raises(TimedOutError):  # noqa: PT012
        with signals.at_most(10), suppress(TimedOutError):
            time.sleep(5)
        time.sleep(5)


def test_where_no_time_is_left_the_alarm_comes_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(TimedOutError):  # noqa: PT012
        signals.alarm(Deadline.after(-1))
        time.sleep(5)
    assert time.monotonic() - started < 0.5


def test_behind_a_step_there_is_no_alarm_that_nobody_set() -> None:
    with signals.at_most(1):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
