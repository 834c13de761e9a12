"""Files on which deliveries depend: who may change them, who may read them, and whether scripts are compiled."""

import os
import shlex
import stat
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter.doctor.finding import Finding
from sieve_filter.keys.status import CRITICAL, WARNING

_ROOT = 0
_HEAD = struct.Struct("<IHH")  # of a compiled script: a magic number, and the version of the format
_MAGIC = 0xCAFEBABE  # in Pigeonhole's sieve-binary-file.c


class Wanted(NamedTuple):
    """What the mail user must be able to do with a path: `rights` is of R, W, X, as access(2) takes them. `why` says
    what becomes of mail otherwise.
    """

    path: str
    rights: int
    why: str


class Denied(NamedTuple):
    """Which of the wanted paths the mail user cannot use, and at which step of it that ends."""

    path: str
    step: str
    why: str


def denied(wanted: Sequence[Wanted]) -> list[Denied]:
    """Those that the caller, who has the mail user's rights, cannot use. What is not there is none of them."""
    found = []
    for one in wanted:
        path = Path(one.path)
        closed = [str(step) for step in reversed(path.parents) if not _may(step, os.X_OK)]
        if closed:
            found.append(Denied(one.path, closed[0], one.why))
        elif path.exists() and not _may(path, one.rights):
            found.append(Denied(one.path, one.path, one.why))
    return found


def judge_denied(found: Iterable[Denied], user: str) -> Iterator[Finding]:
    for path, step, why in found:
        right = "x" if step != path else "rx" if os.access(path, os.X_OK) or Path(path).is_dir() else "r"
        if stat.S_ISSOCK(_mode(path)) and step == path:
            command = f"chown {user} {shlex.quote(path)}"
        else:
            command = f"chmod a+{right} {shlex.quote(step)}"
        where = "" if step == path else f": {step} is closed"
        yield Finding(CRITICAL, f"{user} cannot use {path}{where}", why, command)


def trusted(paths: Iterable[str], owners: frozenset[int]) -> Iterator[Finding]:
    """What lets somebody else but `owners` change these files, anywhere on the way to them; each step once."""
    seen: set[str] = set()
    for name in paths:
        for path in _way(name):
            if path in seen:
                continue
            seen.add(path)
            try:
                status = os.stat(path)  # noqa: PTH116 - a path, as text
            except OSError:
                continue
            why = f"whoever does decides what becomes of mail, by {name}"
            if status.st_uid not in owners:
                what = f"{path} belongs to user ID {status.st_uid}, who may change it"
                yield Finding(CRITICAL, what, why, f"chown root {shlex.quote(path)}")
            others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != _ROOT else 0)
            if status.st_mode & others and not (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
                yield Finding(CRITICAL, f"others may write to {path}", why, f"chmod go-w {shlex.quote(path)}")


def compiled(script: str, anew: bytes | None, command: str) -> Iterator[Finding]:
    """What is wrong with the compiled form of `script`, which is there. `anew` is what this Dovecot's sievec makes of
    it, None where it fails; `command` compiles it.
    """
    if anew is None:
        what = f"{script} cannot be compiled"
        yield Finding(CRITICAL, what, "Dovecot stores mail in clear then, with an error in its log", command)
        return
    why = "Dovecot compiles it for each message"
    binary = Path(script).with_suffix(".svbin")
    try:
        content, made = binary.read_bytes(), binary.stat().st_mtime
    except FileNotFoundError:
        yield Finding(WARNING, f"{script} is not compiled", why, command)
        return
    except OSError as error:
        yield Finding(WARNING, f"cannot read {binary}: {error.strerror}", why, command)
        return
    head, expected = _head(content), _head(anew)
    if head[0] != _MAGIC:
        yield Finding(WARNING, f"{binary} is not a compiled script", why, command)
    elif head != expected:
        yield Finding(WARNING, f"{binary} was compiled by another version of Dovecot", why, command)
    elif script.encode() not in content:
        yield Finding(WARNING, f"{binary} was compiled from a script in another place", why, command)
    elif made < Path(script).stat().st_mtime:
        yield Finding(WARNING, f"{binary} is older than its script", why, command)
    elif content != anew:
        why = "Dovecot may run something else than the script says"
        yield Finding(CRITICAL, f"{binary} is not what sievec makes of {script}", why, command)


def _head(content: bytes) -> tuple[int, ...]:
    return _HEAD.unpack(content[: _HEAD.size]) if len(content) >= _HEAD.size else (0, 0, 0)


def _may(path: Path, rights: int) -> bool:
    return os.access(path, rights, effective_ids=True)


def _mode(path: str) -> int:
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0


def _way(name: str) -> list[str]:
    """Each directory on the way to a file, and the file; where links lead, too."""
    path, real = Path(name), Path(os.path.realpath(name))
    steps = [*reversed(path.parents), path, *reversed(real.parents), real]
    return [str(one) for one in dict.fromkeys(steps)]
