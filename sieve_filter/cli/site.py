"""The administrator's view: whose mailboxes there are, where their homes are, and work done with an owner's rights."""

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from sieve_filter import limits
from sieve_filter.cli.terminal import Advance
from sieve_filter.dovecot.doveadm import Account
from sieve_filter.enrolment import service
from sieve_filter.errors import CryptomailError
from sieve_filter.owners import directory, owner
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Settings
from sieve_filter.system import pool, stdio
from sieve_filter.system.pool import Identity

_T = TypeVar("_T")


class Site(NamedTuple):
    """The administrator's settings and where homes are; `home` where one was named."""

    settings: Settings
    template: str | None
    home: str | None

    def accounts(self, users: Sequence[str]) -> Iterator[tuple[str, Account | CryptomailError]]:
        """The account of each of these users, or why there is none."""
        if self.home:
            return ((user, Account(user, None, None, self.home)) for user in users)
        return directory.find_each(users, self.template)

    def owner_of(self, account: Account | CryptomailError) -> Owner:
        """The owner who has that account. Raises UsageError, or why there is none."""
        if isinstance(account, CryptomailError):
            raise account
        whose = owner.identify({"USER": account.user, "HOME": account.home}, self.settings.aliases)
        return whose._replace(uid=account.uid)

    def owner(self, user: str) -> Owner:
        """The owner `user`. Raises UsageError, UnknownUserError."""
        ((_, account),) = self.accounts([user])
        return self.owner_of(account)

    def keyring(self, whose: Owner) -> str:
        """The GnuPG home that keys of `whose` are put into. Raises UsageError where it would be others' too."""
        return service.place(self.settings, whose)


def in_chunks(
    items: Iterable[tuple[Identity, Any]], weight: Callable[[Any], int]
) -> Iterator[tuple[Identity, Sequence[Any]]]:
    """Items of the same identity together, of that weight at most: what one process is given."""
    waiting: dict[Identity, list[Any]] = {}
    for identity, item in items:
        chunk = waiting.setdefault(identity, [])
        chunk.append(item)
        if sum(map(weight, chunk)) >= limits.CERTIFICATES_AT_ONCE:
            yield identity, waiting.pop(identity)
    yield from waiting.items()


class Failure(NamedTuple):
    """Whose keys cannot be looked at, and why."""

    user: str
    error: CryptomailError


@dataclass
class Rest:
    """Who is not looked at: of whom nothing can be told, and the names of accounts that are no owners'."""

    failures: list[Failure] = field(default_factory=list)
    passed_over: set[str] = field(default_factory=set)


def names(options: argparse.Namespace, site: Site) -> list[str]:
    """The users that are asked for. Raises UnknownUserError where Dovecot cannot tell."""
    return [options.user] if options.user else list(directory.everybody(site.template))


def owners(
    asked: Sequence[str], options: argparse.Namespace, site: Site, rest: Rest, advance: Advance = lambda _: None
) -> Iterator[tuple[Identity, Owner]]:
    """The owners among those users, each with whose rights their keyring is looked at; of others, `rest` tells.

    `advance` is called for each user who is found, and once more for each who is not looked at.
    """
    outsiders = None if options.user else directory.outsiders(site.settings.not_owners, site.template)
    for user, account in site.accounts(asked):
        advance(1)
        if outsiders is not None and outsiders.have(user, account):
            rest.passed_over.add(user)
            advance(1)
            continue
        try:
            whose = site.owner_of(account)
            identity = pool.identity_of(whose.home, whose.uid)
        except CryptomailError as error:
            rest.failures.append(Failure(user, error))
            advance(1)
        else:
            yield identity, whose


def finish(failures: Sequence[Failure]) -> int:
    """The exit code, where nothing failed; else raises what is told last, after a line for each where there are more.

    The code is that of the first failure.
    """
    if not failures:
        return os.EX_OK
    if len(failures) == 1:
        raise type(failures[0].error)(f"{failures[0].user}: {failures[0].error}")
    for one in failures:
        stdio.warn(f"{one.user}: {one.error}")
    raise type(failures[0].error)(f"the keys of {len(failures)} users cannot be looked at")


def as_owner(whose: Owner, work: Callable[[], _T]) -> _T:
    """Do `work` in a process that has that owner's rights and no others."""
    return pool.alone(pool.identity_of(whose.home, whose.uid), work)
