"""The moment by which something must be done. A request has one, which is handed down to whatever waits."""

import time
from typing import NamedTuple


class Deadline(NamedTuple):
    """`moment` is on the monotonic clock, in seconds: it never jumps. Of two, the sooner one is the smaller."""

    moment: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """So many seconds from now."""
        return cls(time.monotonic() + seconds)

    def later(self, seconds: float) -> "Deadline":
        """So many seconds behind this one."""
        return Deadline(self.moment + seconds)

    def remaining(self) -> float:
        """The seconds that are left; none where it is over."""
        return max(0.0, self.moment - time.monotonic())

    def is_over(self) -> bool:
        """Whether nothing is left."""
        return self.remaining() == 0
