"""What became of an owner's key: one word for each case, as reports have it. Pure."""

from enum import Enum
from typing import NamedTuple


class Status(Enum):
    """What became of one certificate. The value is the word in reports and in JSON."""

    IMPORTED = "imported"
    RENEWED = "renewed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    REVOKED = "revoked"
    KEPT = "kept"  # it stays, though it is not published
    DIFFERENT = "different"  # another key is published, and is not taken
    REMOVED = "removed"
    FAILED = "failed"  # it could not be looked up

    @property
    def in_place(self) -> bool:
        """Whether mail can be encrypted to what was given."""
        return self in (Status.IMPORTED, Status.RENEWED, Status.UNCHANGED)

    @property
    def changes(self) -> bool:
        """Whether a keyring is another one than before."""
        return self in (Status.IMPORTED, Status.RENEWED, Status.REVOKED, Status.REMOVED)

    @property
    def rare(self) -> bool:
        """Whether a summary names it only where there are some."""
        return self not in (Status.IMPORTED, Status.RENEWED, Status.UNCHANGED, Status.REFUSED)


class Outcome(NamedTuple):
    """What became of one certificate of one owner; `note` says why, or warns."""

    user: str
    keyring: str
    fingerprint: str
    status: Status
    note: str
