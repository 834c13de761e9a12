"""What a process was started with, and what of it reaches others: nothing but standard input, output and error."""

import os
from contextlib import suppress
from functools import cache

_WITHOUT_PROC = range(3, 1024)  # where to look for open ones if the kernel does not list them
_MANY = 2**31 - 1


@cache
def keep() -> None:
    """Let no program inherit a descriptor from 3 up that this process was started with; Python's own never are.

    Dovecot hands its processes listening sockets, and a pipe to its master. A program that runs as a mailbox's owner
    must not have them: with such a socket its owner could take in other people's mail.
    """
    try:
        found = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  # pathlib is slow to load
    except OSError:  # no /proc is mounted
        found = list(_WITHOUT_PROC)
    for descriptor in found:
        if descriptor > 2:
            with suppress(OSError):  # it is not open
                os.set_inheritable(descriptor, False)


def close_all_but(*kept: int) -> None:
    """Close everything from 3 up but `kept`: for a process that is to act for somebody else."""
    first = 3
    for one in sorted(kept):
        os.closerange(first, one)
        first = max(first, one + 1)
    os.closerange(first, _MANY)


def let_go(*kept: int) -> None:
    """Keep nothing of the parent's but standard error and `kept`: no terminal to type into, nothing others said."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(null, number)
    close_all_but(*kept)
