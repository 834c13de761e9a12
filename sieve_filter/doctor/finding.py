"""What is wrong, in one line. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from sieve_filter.keys.status import OK, WORSE


class Finding(NamedTuple):
    """One of Nagios' states; what is wrong, why it matters, and the command that mends it."""

    state: int
    what: str
    why: str
    command: str


def worst(findings: Iterable[Finding]) -> int:
    """The worst state of all, OK where there are none."""
    return max([OK, *(one.state for one in findings)], key=WORSE.index)
