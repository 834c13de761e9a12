"""Where mailbox owners' homes are: by a template, or by what Dovecot says."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sieve_filter import doveadm, owner
from sieve_filter.errors import UsageError
from sieve_filter.owner import Owner

_VARIABLES = {"u": r"(?P<u>[^/]+)", "n": r"(?P<n>[^/@]+)", "d": r"(?P<d>[^/@]+)", "%": "%"}
_VARIABLE = re.compile("%(.)")


def check(template: str) -> None:
    """Raises UsageError unless `template` is an absolute path in which %u, %n and %d (and %%) are filled in."""
    names = _VARIABLE.findall(template)
    if not template.startswith("/") or template.replace("%%", "").count("%") != len([n for n in names if n != "%"]):
        raise UsageError(f"--home-template {template!r} is not an absolute path with %u, %n and %d in it")
    if set(names) - _VARIABLES.keys() or not {"u", "n"} & set(names):
        raise UsageError(f"--home-template {template!r} must have %u or %n in it, and may have %d and %%")


def find(user: str, template: str | None) -> str:
    """The home of `user`. Raises UsageError where that is no user name, UnknownUserError where Dovecot has no such."""
    named = _owner(user, "/")
    return doveadm.home_of(user) if template is None else owner.expand(template, named)


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
    return owner.identify({"USER": user, "HOME": home}, {}, "")


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
