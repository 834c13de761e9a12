"""What processes report of the requests that they answered, and what that adds up to. Pure.

Whoever sends mail or runs a script can say nothing that is counted by name: each count is one of those that are listed
here, and all of them are there from the beginning.
"""

import struct
from bisect import bisect_left
from typing import NamedTuple

from sieve_filter import errors, limits
from sieve_filter.errors import CryptomailError, RefusedError
from sieve_filter.keys.decision import Left
from sieve_filter.policy.settings import GNUPG, OPENSSL, SEQUOIA

Outcome = tuple[str, str]  # what became of a message; and by which engine, or why

ENCRYPTED, LEFT, REFUSED = "encrypted", "left-alone", "refused"

# What the supervisor alone can tell: a process has ended in the middle of its work, or was killed because it did not
# answer in time; no process was free in time; or one user had more connections than may be.
DIED = (REFUSED, "process-died")
LATE = (REFUSED, "process-killed")
WAITED = (REFUSED, "waited-too-long")
TOO_MANY = (REFUSED, "too-many-connections")

_INTERNAL = errors.name(errors.InternalError)
_BESIDES = (errors.UsageError, errors.ConfigError, errors.UncertainError, errors.InternalError)
_ERRORS = sorted(
    errors.name(kind)
    for kind in vars(errors).values()
    if isinstance(kind, type) and (kind in _BESIDES or (issubclass(kind, RefusedError) and kind is not RefusedError))
)
OUTCOMES: tuple[Outcome, ...] = (
    *((ENCRYPTED, engine) for engine in (GNUPG, SEQUOIA, OPENSSL)),
    *((LEFT, one.value) for one in Left),
    *((REFUSED, name) for name in _ERRORS),
    DIED,
    LATE,
    WAITED,
    TOO_MANY,
)

# Whether the owner's keyring was in the process's memory; empty where none was looked for.
HIT, MISS = "hit", "miss"
_CACHE = ("", HIT, MISS)

# Milliseconds; up to the longest time that anything takes, and over.
BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000)

_REPORT = struct.Struct("=BBQQ")
SIZE = _REPORT.size


class Report(NamedTuple):
    """What a process says of one request: one of OUTCOMES, one of _CACHE, and octets that were read and written."""

    outcome: Outcome
    cache: str = ""
    octets_in: int = 0
    octets_out: int = 0


class Shown(NamedTuple):
    """All counts `since` a time in seconds since 1970.

    `times` has one number more than BOUNDS: how many requests took that many milliseconds or less, and more than the
    bound before; `microseconds` is the time that they took together.
    """

    since: int
    outcomes: dict[Outcome, int]
    cache: dict[str, int]
    octets_in: int
    octets_out: int
    bounds: tuple[int, ...]
    times: tuple[int, ...]
    microseconds: int


def refusal(kind: type[CryptomailError]) -> Outcome:
    """The outcome of a request that ended with such an error."""
    outcome = (REFUSED, errors.name(kind))
    return outcome if outcome in OUTCOMES else (REFUSED, _INTERNAL)


def pack(report: Report) -> bytes:
    """The report in SIZE octets."""
    return _REPORT.pack(OUTCOMES.index(report.outcome), _CACHE.index(report.cache), report.octets_in, report.octets_out)


def unpack(octets: bytes) -> Report:
    """The report in these octets, which another user's process may have made up. Raises ValueError."""
    if len(octets) != SIZE:
        raise ValueError("it has another size")
    outcome, cache, octets_in, octets_out = _REPORT.unpack(octets)
    if outcome >= len(OUTCOMES) or cache >= len(_CACHE) or max(octets_in, octets_out) > limits.REPORTED_OCTETS:
        raise ValueError("there is no such count")
    return Report(OUTCOMES[outcome], _CACHE[cache], octets_in, octets_out)


class Counts:
    """The counts of one supervisor."""

    def __init__(self, since: int) -> None:
        self._since = since
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._cache = dict.fromkeys((HIT, MISS), 0)
        self._octets_in = self._octets_out = 0
        self._times = [0] * (len(BOUNDS) + 1)
        self._microseconds = 0

    def add(self, report: Report, seconds: float) -> None:
        """Count a request that was answered after so many seconds."""
        self._outcomes[report.outcome] += 1
        if report.cache:
            self._cache[report.cache] += 1
        self._octets_in += report.octets_in
        self._octets_out += report.octets_out
        self._times[bisect_left(BOUNDS, seconds * 1_000)] += 1
        self._microseconds += int(seconds * 1_000_000)

    def shown(self) -> Shown:
        return Shown(
            self._since,
            dict(self._outcomes),
            dict(self._cache),
            self._octets_in,
            self._octets_out,
            BOUNDS,
            tuple(self._times),
            self._microseconds,
        )
