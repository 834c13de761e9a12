"""Becomes another user for good: the only place where this process changes whose it is."""

import os
from collections.abc import Sequence


def drop() -> None:
    """Give up for good what Dovecot gave up for a while: its 2.4 starts programs with root as their real user ID."""
    become(os.geteuid(), os.getegid(), None)


def become(user: int, group: int, groups: Sequence[int] | None) -> None:
    """Be that user and in that group from here on, and in `groups` besides; in those of until now where it is None."""
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
