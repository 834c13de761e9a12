"""Leaves a server time for others: as long as something was done, nothing is done."""

import time

_AT_ONCE = 0.2  # seconds


class Throttle:
    """Counts seconds. Where it is not `on`, it does nothing."""

    def __init__(self, on: bool) -> None:
        self._on = on
        self._since = time.monotonic()

    def pause(self) -> None:
        """Wait, where there was work for long enough."""
        if self._on and (busy := time.monotonic() - self._since) >= _AT_ONCE:
            time.sleep(busy)
            self._since = time.monotonic()
