"""Who has signed in, and who tries too often. All of it is in memory, and ends with the process."""

import secrets
import threading
from dataclasses import dataclass, field

from sieve_filter.web.mailbox import Owner

IDLE_SECONDS = 15 * 60
LONGEST_SECONDS = 60 * 60
MOST = 10_000

_FAILURE_SECONDS = 15 * 60
# Wrong passwords in that time: of one owner from one address, from one address, and of one owner from anywhere. The
# last is high, because it also keeps the owner out.
_FAILURES = (5, 20, 100)


@dataclass
class Session:
    """One that is signed in: whose, with which browser, what its forms have to send, and when. Times are in seconds."""

    owner: Owner
    browser: str
    begun: float
    seen: float
    token: str = field(default_factory=secrets.token_urlsafe)
    said: tuple[str, tuple[str, ...]] | None = None  # what the next page is to say


class Sessions:
    """All that are signed in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}

    def begin(self, owner: Owner, browser: str, now: float) -> str:
        """The name of a new session, which nobody can guess; the oldest goes where there are too many."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            for old in [old for old, one in self._sessions.items() if not _lives(one, now)]:
                del self._sessions[old]
            while len(self._sessions) >= MOST:
                del self._sessions[min(self._sessions, key=lambda old: self._sessions[old].seen)]
            self._sessions[name] = Session(owner, browser, now, now)
        return name

    def find(self, name: str, browser: str, now: float) -> Session | None:
        """The session of that name, if it is that browser's, and has not ended."""
        with self._lock:
            one = self._sessions.get(name)
            if one is None or one.browser != browser or not _lives(one, now):
                self._sessions.pop(name, None)
                return None
            one.seen = now
            return one

    def end(self, name: str) -> None:
        """Forget that session, and the password in it."""
        with self._lock:
            self._sessions.pop(name, None)


class Throttle:
    """Counts wrong passwords."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[tuple[str, str], list[float]] = {}

    def refuses(self, user: str, address: str, now: float) -> bool:
        """Whether there were too many of that owner, or from that address."""
        with self._lock:
            for key in list(self._failures):
                kept = [one for one in self._failures[key] if now - one < _FAILURE_SECONDS]
                if kept:
                    self._failures[key] = kept
                else:
                    del self._failures[key]
            return any(
                len(self._failures.get(key, ())) >= most
                for key, most in zip(_keys(user, address), _FAILURES, strict=True)
            )

    def failed(self, user: str, address: str, now: float) -> None:
        """Count one."""
        with self._lock:
            for key in _keys(user, address):
                self._failures.setdefault(key, []).append(now)


def _keys(user: str, address: str) -> tuple[tuple[str, str], ...]:
    user = user.lower()[:500]
    return (user, address), ("", address), (user, "")


def _lives(one: Session, now: float) -> bool:
    return now - one.seen < IDLE_SECONDS and now - one.begun < LONGEST_SECONDS
