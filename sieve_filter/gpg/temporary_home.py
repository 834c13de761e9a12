"""Makes throw-away GnuPG homes, and takes away those that killed processes have left."""

import fcntl
import functools
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sieve_filter import limits
from sieve_filter.system import pool
from sieve_filter.system.pool import Identity

# A file system in memory: what is looked at need not touch a disk.
_MEMORY = "/dev/shm"  # noqa: S108 - used by mkdtemp(), and with what belongs to the caller
_PREFIX = "cryptomail-"
_NAME = re.compile(re.escape(_PREFIX) + "[a-z0-9_]{8}")  # as mkdtemp() makes them


@contextmanager
def made() -> Iterator[Path]:
    """A new GnuPG home, mode 0700, in memory where there is such a place; gone when the block ends, however it does."""
    _sweep_first(os.geteuid())
    while True:
        home = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_top()))
        if (lock := _hold(home)) is not None:
            break
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(lock)


def sweep() -> None:
    """Take away the homes that killed processes have left: the caller's; as root, also those of a few other users.

    Each goes with its own user's rights, who may have put anything there.
    """
    _sweep()
    if os.geteuid() == 0:
        others = {Identity(status.st_uid, status.st_gid) for _, status in _homes() if status.st_uid != 0}
        chunks = [(one, (None,)) for one in sorted(others)[: limits.SWEPT_USERS]]
        for _ in pool.each(chunks, _sweep, limits.STOP_SECONDS):
            pass


@functools.cache
def _sweep_first(_user: int) -> None:
    """Sweep, the first time in a process of that user's."""
    _sweep()


def _sweep(_: None = None) -> None:
    for home, status in _homes():
        if status.st_uid == os.geteuid() and (lock := _hold(home)) is not None:
            shutil.rmtree(home, ignore_errors=True)
            os.close(lock)


def _homes() -> Iterator[tuple[Path, os.stat_result]]:
    """What may be homes, living ones and others, whosever they are."""
    for home in _top().glob(f"{_PREFIX}*"):
        if _NAME.fullmatch(home.name):
            with suppress(FileNotFoundError):
                status = home.lstat()
                if stat.S_ISDIR(status.st_mode):
                    yield home, status


def _hold(home: Path) -> int | None:
    """The caller's own directory `home`, locked, which says that it is in use; None where another process has it."""
    try:
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(home.lstat(), os.fstat(lock)):
            return lock
    os.close(lock)
    return None


def _top() -> Path:
    return Path(_MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else tempfile.gettempdir())
