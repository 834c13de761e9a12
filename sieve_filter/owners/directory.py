"""Where mailbox owners' homes are: by a template, or by what Dovecot says."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.dovecot import doveadm
from sieve_filter.dovecot.doveadm import Account
from sieve_filter.errors import CryptomailError, UsageError
from sieve_filter.owners import owner
from sieve_filter.owners.owner import Owner

_NO_HOMES = ("/", "/nonexistent", "/dev/null")  # what accounts have that are to have no home

_VARIABLES = {"u": r"(?P<u>[^/]+)", "n": r"(?P<n>[^/@]+)", "d": r"(?P<d>[^/@]+)", "%": "%"}
_VARIABLE = re.compile("%(.)")


def check(template: str) -> None:
    """Raises UsageError unless `template` is an absolute path in which %u, %n and %d (and %%) are filled in."""
    names = _VARIABLE.findall(template)
    if not template.startswith("/") or template.replace("%%", "").count("%") != len([n for n in names if n != "%"]):
        raise UsageError(f"--home-template {template!r} is not an absolute path with %u, %n and %d in it")
    if set(names) - _VARIABLES.keys() or not {"u", "n"} & set(names):
        raise UsageError(f"--home-template {template!r} must have %u or %n in it, and may have %d and %%")


def find_each(users: Iterable[str], template: str | None) -> Iterator[tuple[str, Account | CryptomailError]]:
    """The account of each of `users`, or why there is none. Dovecot is asked about many at a time."""
    rest = iter(users)
    while batch := list(islice(rest, limits.USERS_AT_ONCE)):
        found: dict[str, Account | CryptomailError] = {}
        for user in batch:
            try:
                named = _owner(user, "/")
            except UsageError as error:
                found[user] = error
            else:
                if template is not None:
                    found[user] = Account(user, None, None, owner.expand(template, named))
        found |= doveadm.accounts([user for user in batch if user not in found])
        yield from ((user, found[user]) for user in batch)


class Outsiders(NamedTuple):
    """Which accounts belong to no mailbox owner.

    Those with these names, which may have * and ? in them, and those that Dovecot would not deliver to, because they
    have none of these user IDs, or no home. None for `uids` where it is not asked.
    """

    names: Sequence[str]
    uids: range | None

    def have(self, user: str, account: Account | CryptomailError) -> bool:
        """Whether that account is one of them."""
        if any(fnmatchcase(user, name) for name in self.names):
            return True
        if self.uids is None or isinstance(account, CryptomailError):
            return False
        return account.home in _NO_HOMES or (account.uid is not None and account.uid not in self.uids)


def outsiders(names: Sequence[str], template: str | None) -> Outsiders:
    """Those that the administrator names; those that Dovecot would not deliver to where it is asked, too."""
    return Outsiders(names, doveadm.valid_uids() if template is None else None)


def everybody(template: str | None) -> Iterator[str]:
    """The name of each user: of the directories that fit the template, or of all users that Dovecot can tell."""
    if template is None:
        yield from doveadm.users()
        return
    fits = re.compile(_substitute(template, _VARIABLES, re.escape, once=True))
    # What a glob takes for special in the template's own text stands for itself.
    every = {"u": "*", "n": "*", "d": "*", "%": "%"}
    pattern = _substitute(template, every, lambda text: re.sub(r"([*?[])", r"[\1]", text))
    for path in sorted(Path("/").glob(pattern.lstrip("/"))):
        match = fits.fullmatch(str(path))
        if match is None or not path.is_dir():
            continue
        found = match.groupdict()
        user = found.get("u") or (f"{found['n']}@{found['d']}" if found.get("d") else found["n"])
        # Hidden directories are other programs' own; and %u, %n and %d have to agree.
        if not any(value.startswith(".") for value in found.values()) and owner.expand(
            template, _owner(user, "/")
        ) == str(path):
            yield user


def _owner(user: str, home: str) -> Owner:
    return owner.identify({"USER": user, "HOME": home}, {})


def _substitute(template: str, values: dict[str, str], quote: Callable[[str], str], once: bool = False) -> str:
    seen: set[str] = set()
    parts: list[str] = []
    for place, piece in enumerate(_VARIABLE.split(template)):
        if place % 2 == 0:
            parts.append(quote(piece))
        elif once and piece in seen:
            parts.append(f"(?P={piece})")  # the same variable again has the same value
        else:
            parts.append(values[piece])
            seen |= {piece} - {"%"}
    return "".join(parts)
