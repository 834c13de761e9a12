"""Does work in a process of its own: what whoever waits for this one must not wait for."""

import fcntl
import os
import time
from collections.abc import Callable

from sieve_filter.system import descriptors

_SECONDS = 1  # for what this process has written to be put in place; more of it does no harm


def afterwards(directory: str, work: Callable[[], object]) -> None:
    """Do `work` when this process has ended, however it does. Call it before there are threads.

    There is one such process at a time for each `directory`; nothing is done where there is no such directory. Of this
    process's descriptors, `work` has standard error only.
    """
    ended, _ = os.pipe()  # the other end is open until this process ends; no program inherits it
    if os.fork():
        os.close(ended)
        return
    try:
        descriptors.let_go(ended)
        if _is_first(directory):
            os.read(ended, 1)
            time.sleep(_SECONDS)
            work()
    finally:
        os._exit(os.EX_OK)


def detached(work: Callable[[], object]) -> None:
    """Do `work` while this process goes on, and ends. Call it before there are threads.

    Of this process's descriptors, `work` has standard error only.
    """
    if os.fork():
        return
    try:
        descriptors.let_go()
        work()
    finally:
        os._exit(os.EX_OK)


def _is_first(directory: str) -> bool:
    """Whether no other process is at work for it. The lock that says so lasts until this process ends."""
    try:
        fcntl.flock(os.open(directory, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # NFS locks no directories
        return True
    return True
