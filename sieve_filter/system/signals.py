"""Limits the time that something takes, in a process that turns SIGALRM into an error of its own."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from sieve_filter.deadline import Deadline

_AT_ONCE = 1e-6  # seconds; none would be no alarm


def alarm(deadline: Deadline | None) -> None:
    """Have SIGALRM come at the deadline, at once where that is over, and not at all for None."""
    signal.setitimer(signal.ITIMER_REAL, 0 if deadline is None else max(deadline.remaining(), _AT_ONCE))


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Have SIGALRM come where the block takes longer, whose handler raises TimedOutError.

    An alarm that was set before is not forgotten: it comes in the block if it is sooner, and else behind it.
    """
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    before = Deadline.after(left) if left else None
    limit = Deadline.after(seconds)
    alarm(min(before, limit) if before else limit)
    try:
        yield
    finally:
        alarm(before)
