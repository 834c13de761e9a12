"""Does work for many mailbox owners in parallel, each piece as the user to whom the mail files belong."""

import os
import pwd
import random
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from sieve_filter.errors import CryptomailError, PlaceError, StoppedError, TimedOutError, known


class Identity(NamedTuple):
    """A user ID and a group ID of the system."""

    uid: int
    gid: int


Work = Callable[[Sequence[Any]], list[Any]]

# User IDs that no account may have: systemd lends them to services (https://systemd.io/UIDS-GIDS).
_LENT = range(61184, 65520)


def identity_of(home: str) -> Identity:
    """Whose `home` is; where it does not exist, whose the directory is that it would be in.

    Raises PlaceError where that is root's: root's directories are no place for mail, so the path must be wrong; and
    where it is somebody else's and the caller is not root.
    """
    place = Path(home)
    while True:
        try:
            status = place.stat()
            break
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except OSError as error:
            raise PlaceError(f"cannot look at {place}: {error.strerror}; run this as root") from error
    for link in (place, *place.parents):
        # An owner must not get keys into another's home, or root's, by a link on the way to their own.
        if link.is_symlink() and link.lstat().st_uid not in (0, status.st_uid):
            raise PlaceError(f"{link} is a link to what belongs to somebody else: mend it, or the path")
    if place != Path(home) and status.st_uid == 0:
        raise PlaceError(f"there is no directory {home}, and {place} belongs to root: make it, or mend the path")
    if os.geteuid() not in (0, status.st_uid):
        raise PlaceError(f"{place} belongs to user ID {status.st_uid}: run this as that user, or as root")
    return Identity(status.st_uid, status.st_gid)


def nobody() -> Identity:
    """An identity that no account has, for what takes nobody's rights; the caller's own where that is not root.

    It is not that of the account `nobody`: other programs have that, and could meddle.
    """
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid())
    lent = {account.pw_uid for account in pwd.getpwall()}
    one = random.choice([uid for uid in _LENT if uid not in lent])  # noqa: S311 - it is no secret
    return Identity(one, one)


def each(
    chunks: Iterable[tuple[Identity, Sequence[Any]]], work: Work, at_once: int | None = None
) -> Generator[tuple[Sequence[Any], list[Any]]]:
    """Give each chunk to `work`, in a process of its own that is `Identity` for good.

    There are `at_once` of them at a time, else one for each processor. Yields each chunk with what `work` returned, as
    they get done. A process that fails makes the CryptomailError of it the exception here, after the others have ended.
    """
    running: dict[Connection, tuple[int, Sequence[Any]]] = {}
    failure: CryptomailError | None = None

    def collect() -> Iterator[tuple[Sequence[Any], list[Any]]]:
        nonlocal failure
        for receiver in wait(list(running)):
            assert isinstance(receiver, Connection)  # noqa: S101 - wait() says `object`
            process, chunk = running.pop(receiver)
            try:
                result = receiver.recv()
            except EOFError:
                result = CryptomailError("a process of this command died; see the system's log")
            receiver.close()
            os.waitpid(process, 0)
            if isinstance(result, CryptomailError):
                failure = failure or result
            else:
                yield chunk, result

    try:
        for identity, chunk in chunks:
            while len(running) >= (at_once or os.cpu_count() or 1):
                yield from collect()
            if failure is not None:
                break
            receiver, sender = Pipe(duplex=False)
            running[receiver] = _start(identity, work, chunk, sender), chunk
            sender.close()
        while running:
            yield from collect()
    finally:
        for process, _ in running.values():
            os.kill(process, signal.SIGTERM)  # it catches that, and tidies up
        for process, _ in running.values():
            os.waitpid(process, 0)
    if failure is not None:
        raise failure


def stop_on_signals() -> None:
    """Have SIGTERM and SIGINT raise StoppedError, and SIGALRM TimedOutError: whatever is open is tidied up then."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _stop)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    if number == signal.SIGALRM:
        raise TimedOutError("it took too long")
    for one in (signal.SIGTERM, signal.SIGINT):  # a second one must not stop the tidying up
        signal.signal(one, _pass_over)
    raise StoppedError(f"stopped by {signal.Signals(number).name}; what was done so far stays")


def _pass_over(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal. With SIG_IGN, Python would complain of one that had come just before."""


def _start(identity: Identity, work: Work, chunk: Sequence[Any], sender: Connection) -> int:
    """Have a new process do it. Out: its process ID."""
    process = os.fork()  # a Process of multiprocessing costs as much again, for each user
    if process == 0:
        try:
            _run(identity, work, chunk, sender)
        finally:
            os._exit(os.EX_OK)  # what is open belongs to the parent
    return process


def _run(identity: Identity, work: Work, chunk: Sequence[Any], sender: Connection) -> None:
    result: Any
    try:
        stop_on_signals()
        _become(identity)
        result = work(chunk)
    except Exception as error:  # the parent tells of it
        result = known(error)
    sender.send(result)
    sender.close()


def _become(identity: Identity) -> None:
    """Give up every right but that user's. An owner may put a link to anything in the way: it must not be root's."""
    if os.geteuid() != identity.uid:
        os.setgroups([])
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    os.umask(0o077)
