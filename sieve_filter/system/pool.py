"""Does work for many mailbox owners in parallel, each piece as the user to whom the mail files belong."""

import os
import pwd
import random
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from sieve_filter import limits
from sieve_filter.errors import CryptomailError, PlaceError, StoppedError, TimedOutError, known
from sieve_filter.system import descriptors, places, privileges, transfer

_T = TypeVar("_T")
_R = TypeVar("_R")

_PIECE = 65536  # octets: what a pipe of Linux holds


class Identity(NamedTuple):
    """A user ID and a group ID of the system."""

    uid: int
    gid: int


# User IDs that no account may have: systemd lends them to services (https://systemd.io/UIDS-GIDS).
_LENT = range(61184, 65520)


def identity_of(home: str, expected: int | None = None) -> Identity:
    """Whose `home` is; where it does not exist, whose the directory is that it would be in.

    Raises PlaceError where that is root's: root's directories are no place for mail, so the path must be wrong; where
    somebody else could put another directory there; where it is somebody else's and the caller is not root; and where
    root would act as another user than `expected`, who is to have it.
    """
    found = places.find(home)
    if not found.exists and found.uid == 0:
        raise PlaceError(f"there is no directory {home}, and {found.place} belongs to root: make it, or mend the path")
    if os.geteuid() not in (0, found.uid):
        raise PlaceError(f"{found.place} belongs to user ID {found.uid}: run this as that user, or as root")
    if os.geteuid() == 0 and expected is not None and found.uid not in (0, expected):
        raise PlaceError(
            f"{found.place} belongs to user ID {found.uid}, and Dovecot delivers as user ID {expected}: "
            "change its owner, or mend the userdb"
        )
    return Identity(found.uid, found.gid)


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
    chunks: Iterable[tuple[Identity, Sequence[_T]]],
    work: Callable[[_T], _R],
    seconds: int | None = None,
    at_once: int | None = None,
    keeping: Callable[[_T], Sequence[int]] = lambda _: (),
) -> Generator[tuple[_T, _R | CryptomailError]]:
    """Give each item of each chunk to `work`, in a process for the chunk that is `Identity` for good.

    There are `at_once` processes at a time, else one for each processor. Yields each item with what `work` returned, or
    with the error that it raised, as they get done. Only what `work` says that it returns is taken (see `transfer`): an
    owner may have got hold of the process. One that takes more than `seconds` for an item, else OWNER_SECONDS, is
    killed; time in which nobody asks for the next item does not count. Where a process dies, so does that item alone.
    A process has nothing of the caller's that is open but the descriptors which `keeping` says belong to its items.
    """
    at_once = at_once or os.cpu_count() or 1
    return _each(chunks, work, transfer.returned(work), seconds or limits.OWNER_SECONDS, at_once, keeping)


def alone(identity: Identity, work: Callable[[], _R]) -> _R:
    """What `work` returns in a process that is `identity` for good. Raises what it raises, as far as it is ours."""

    def do(_: None) -> _R:
        return work()

    ((_, result),) = _each([(identity, (None,))], do, transfer.returned(work), limits.OWNER_SECONDS, 1, lambda _: ())
    if isinstance(result, CryptomailError):
        raise result
    return result


def _each(
    chunks: Iterable[tuple[Identity, Sequence[_T]]],
    work: Callable[[_T], _R],
    kind: Any,
    seconds: int,
    at_once: int,
    keeping: Callable[[_T], Sequence[int]],
) -> Generator[tuple[_T, _R | CryptomailError]]:
    running: list[_Process[_T]] = []
    waited = 0.0  # seconds, without those that the caller takes

    def start(identity: Identity, items: Iterable[_T]) -> None:
        waiting = deque(items)
        kept = [descriptor for item in waiting for descriptor in keeping(item)]
        running.append(_Process(identity, waiting, work, kind, seconds, waited, kept))

    def collect() -> Generator[tuple[_T, _R | CryptomailError]]:
        nonlocal waited
        since = time.monotonic()
        ready = _readable([one.pipe for one in running], min(one.deadline for one in running) - waited)
        waited += time.monotonic() - since
        for one in running[:]:
            results = one.answers(one.pipe in ready, waited)
            if one.over:
                running.remove(one)
                one.end()
            for result in results:
                yield one.items.popleft(), result
            if one.over and one.items:
                start(one.identity, one.items)

    try:
        for identity, chunk in chunks:
            while len(running) >= at_once:
                yield from collect()
            start(identity, chunk)
        while running:
            yield from collect()
    finally:
        _stop_all(running)


def _readable(pipes: Sequence[int], seconds: float) -> set[int]:
    """Those of `pipes` from which something can be read, or that have ended; none where it takes too long."""
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, select.POLLIN)
    return {pipe for pipe, _ in poll.poll(max(0, int(1000 * seconds) + 1))}


class _Process(Generic[_T]):
    """A process that works on `items` one by one; the first is that at which it is now.

    `pipe` is where its answers come from, and `deadline` the time, as the caller counts it, by which the next is due;
    `over` says that no more will come, as all is done, or it has failed.
    """

    def __init__(
        self,
        identity: Identity,
        items: "deque[_T]",
        work: Callable[[_T], Any],
        kind: Any,
        seconds: int,
        now: float,
        kept: Sequence[int],
    ) -> None:
        self.identity = identity
        self.items = items
        self.deadline = now + seconds
        self.over = False
        self._kind = kind
        self._seconds = seconds
        self._failed = False
        self._said = bytearray()
        self.pipe, theirs = os.pipe()
        self._number = os.fork()  # a Process of multiprocessing costs as much again, for each user
        if self._number == 0:
            try:
                _run(identity, items, work, kind, theirs, kept)
            except BaseException:  # whatever it is: this process must not go on as its parent does
                os._exit(os.EX_SOFTWARE)
            os._exit(os.EX_OK)  # what is open belongs to the parent
        os.close(theirs)

    def answers(self, ready: bool, now: float) -> list[Any]:
        """Results, one for each of the first items, that have come since; the last may be why it is of no more use."""
        results: list[Any] = []
        try:
            if ready:
                self._read()
            elif now >= self.deadline:
                raise TimedOutError(f"it took longer than {self._seconds} seconds")
            while len(results) < len(self.items) and (frame := self._frame()) is not None:
                results.append(transfer.unpack(frame, self._kind))
                self.deadline = now + self._seconds
                if isinstance(results[-1], StoppedError):
                    raise results.pop()
        except (TimedOutError, StoppedError) as error:
            self._failed = True
            results.append(error)
        except EOFError:
            self._failed = True
            results.append(CryptomailError("a process of this command died; see the system's log"))
        except ValueError as error:
            self._failed = True
            results.append(CryptomailError(f"a process of this command gave an impossible answer: {error}"))
        self.over = self._failed or len(results) == len(self.items)
        return results

    def _read(self) -> None:
        """Take what it said, as far as that is there. Raises EOFError where it has gone."""
        piece = os.read(self.pipe, _PIECE)
        if not piece:
            raise EOFError
        self._said += piece

    def _frame(self) -> bytes | None:
        """The next frame of `transfer`, if it is there. Raises ValueError where it would be too large."""
        if len(self._said) < transfer.HEAD.size:
            return None
        end = transfer.HEAD.size + transfer.size(bytes(self._said[: transfer.HEAD.size]))
        if len(self._said) < end:
            return None
        frame = bytes(self._said[:end])
        del self._said[:end]
        return frame

    def stop(self) -> None:
        """Ask it to tidy up and end."""
        os.kill(self._number, signal.SIGTERM)

    def has_ended(self) -> bool:
        """Whether it has; then it is gone."""
        ended = os.waitpid(self._number, os.WNOHANG)[0] != 0
        if ended:
            os.close(self.pipe)
        return ended

    def kill(self) -> None:
        """Kill it, and all that it has started. It is not waited for: what hangs in a file system may not even die."""
        with suppress(ProcessLookupError):
            os.killpg(self._number, signal.SIGKILL)
        os.kill(self._number, signal.SIGKILL)

    def end(self) -> None:
        """End it: its owner could keep it from ending by itself."""
        if self._failed:
            _stop_all([self])
        else:
            os.kill(self._number, signal.SIGKILL)  # what it has started, such as a delivery, may go on
            _wait([self])


def _stop_all(processes: Sequence["_Process[_T]"]) -> None:
    """Have them tidy up and end; kill those that do not."""
    for one in processes:
        one.stop()
    left = _wait(processes)
    for one in left:
        one.kill()
    _wait(left)


def _wait(processes: Sequence["_Process[_T]"]) -> Sequence["_Process[_T]"]:
    """Wait for them for STOP_SECONDS at most. Returns those that are still there."""
    deadline = time.monotonic() + limits.STOP_SECONDS
    pause = 0.0001
    while (processes := [one for one in processes if not one.has_ended()]) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return processes


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


def _run(
    identity: Identity, items: Iterable[_T], work: Callable[[_T], Any], kind: Any, pipe: int, kept: Sequence[int]
) -> None:
    """What a process does: to be `identity`, and to do `work` for each item."""
    stop_on_signals()
    descriptors.let_go(pipe, *kept)
    _become(identity)
    for item in items:
        try:
            result = work(item)
        except Exception as error:  # the parent tells of it
            result = known(error)
        try:
            frame = transfer.pack(result, kind)
        except ValueError as error:
            frame = transfer.pack(CryptomailError(f"what there is to tell is {error}"), kind)
        rest = memoryview(frame)
        while rest:
            rest = rest[os.write(pipe, rest) :]
        if isinstance(result, StoppedError):
            break


def _become(identity: Identity) -> None:
    """Give up every right but that user's. An owner may put a link to anything in the way: it must not be root's."""
    if os.geteuid() != identity.uid:
        privileges.become(identity.uid, identity.gid, ())
    os.umask(0o077)
