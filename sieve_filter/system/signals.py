"""Limits the time that something takes, in a process that turns SIGALRM into an error of its own."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Have SIGALRM come where the block takes longer, whose handler raises TimedOutError."""
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
