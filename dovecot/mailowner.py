"""Prints the one user who owns all mail, or nothing where each mailbox belongs to a system user of its own.

    mailowner.py CONFIGURATION [--staged] [--told NAME]

`make install` runs this before it writes anything. What it is `--told` holds, if there is such a user; else Dovecot is
asked: which users there are, and as whom it stores their mail. Where that cannot be told, it says so in one line on
standard error, and ends with 1. `--staged` is for a system that is not this one, nor running: there it must be told.
"""

import argparse
import pwd
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SAMPLE = 20  # users that are asked for
SECONDS = 60
SETTINGS = "say MAIL_USER=NAME where one user owns all mail, MAIL_USER= where each mailbox has a system user of its own"


class CannotTellError(Exception):
    """Why it is not known who owns the mail."""


def check(name: str) -> None:
    """Raise CannotTellError unless there is such a user: Dovecot would not start with a service of nobody's."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise CannotTellError(f"there is no user {name} on this machine") from None


def ask(configuration: Path) -> str:
    """What Dovecot says: the name of the user who owns all mail, or "". Raises CannotTellError."""
    if not configuration.exists():
        raise CannotTellError(f"there is no {configuration}")
    names, problem = _users(configuration)
    if names:
        owners = _owners(configuration, names)
    else:
        owners = {("", owner) for owner in _settings(configuration)}  # no account has that name
        if not owners and _drivers(configuration) == {"passwd"}:
            return ""
    known = {(name, owner) for name, owner in owners if owner is not None}
    if not known or known != owners:
        raise CannotTellError(problem or "neither its userdb nor mail_uid says so")
    own = {owner for name, owner in known if _account(name.partition("@")[0]) == owner}
    shared = {owner for name, owner in known if _account(name.partition("@")[0]) != owner}
    if not shared:
        return ""
    if len(shared) == 1 and own <= shared:
        [owner] = shared
        return _name(owner)
    if own:
        raise CannotTellError(f"some mailboxes belong to system users, others to {_list(shared)}")
    raise CannotTellError(f"mail belongs to several users, who have no accounts of these names: {_list(shared)}")


def _users(configuration: Path) -> tuple[Sequence[str], str]:
    """Some of Dovecot's users; where it names none, why."""
    done = _doveadm(configuration, "*")
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it did not say why"]
        return [], f"doveadm user: {said[-1]}; is Dovecot running?"
    names = done.stdout.split()
    return names[:: 1 + len(names) // SAMPLE], "" if names else "Dovecot has no users yet"


def _owners(configuration: Path, names: Sequence[str]) -> set[tuple[str, int | None]]:
    """As whom the mail of each of them is stored; None where that is not known."""
    otherwise = next(iter(_settings(configuration)), None)
    found = ((name, _number(_doveadm(configuration, "-f", "uid", name).stdout.strip())) for name in names)
    return {(name, otherwise if owner is None else owner) for name, owner in found}


def _settings(configuration: Path) -> set[int]:
    """Whom the configuration itself names: in its userdb, as every user's, or else as mail_uid."""
    found = re.findall(r"\buid(?:=|(?::default)? = )(\w+)", _doveconf(configuration, "userdb"))
    found = found or _doveconf(configuration, "-h", "mail_uid").split()
    return {number for one in found if (number := _number(one)) is not None}


def _drivers(configuration: Path) -> set[str]:
    """What kinds of userdb there are."""
    return set(re.findall(r"^\s+driver = (\S+)", _doveconf(configuration, "userdb"), re.MULTILINE))


def _doveadm(configuration: Path, *users: str) -> "subprocess.CompletedProcess[str]":
    command = ["doveadm", "-c", str(configuration), "user", *users]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotTellError(f"doveadm user: {error}") from error


def _doveconf(configuration: Path, *arguments: str) -> str:
    command = ["doveconf", "-c", str(configuration), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _number(user: str) -> int | None:
    """The user ID in a setting, which may be a name too."""
    if user.isdecimal():
        return int(user)
    return _account(user) if user else None


def _account(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except (KeyError, ValueError):
        return None


def _name(owner: int) -> str:
    try:
        return pwd.getpwuid(owner).pw_name
    except KeyError:
        raise CannotTellError(f"all mail belongs to user ID {owner}, which has no name: Dovecot needs one") from None


def _list(owners: set[int]) -> str:
    return ", ".join(f"user ID {owner}" for owner in sorted(owners))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configuration", type=Path)
    parser.add_argument("--staged", action="store_true")
    parser.add_argument("--told")
    arguments = parser.parse_args()
    try:
        if arguments.told is None and arguments.staged:
            raise CannotTellError("this is for another system")
        name = ask(arguments.configuration) if arguments.told is None else arguments.told
        if name and not arguments.staged:
            check(name)
    except CannotTellError as error:
        sys.exit(f"make install: nothing was installed, because it is not known who owns the mail: {error}; {SETTINGS}")
    print(name)


if __name__ == "__main__":
    main()
