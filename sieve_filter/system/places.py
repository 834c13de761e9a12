"""Opens owners' directories step by step, so that nobody can put another one in the place of one that was looked at;
and their files, so that a pipe in the place of one holds nobody up.

Whoever owns a directory can exchange what is in it at any time. So of each step on the way it counts who could: root,
and the user to whom the directory at the end belongs, but nobody else.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from sieve_filter.errors import PlaceError

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as Linux has it
_ROOT = 0
_LEAST_GROUP = 1000  # groups below are the system's (SYS_GID_MAX of login.defs): who is in them is root's decision


class NotAFileError(Exception):
    """There is something else in the place of a file: a pipe, a directory."""


class Found(NamedTuple):
    """Where a path leads: whose directory that is; or, where it does not exist, that in which it would be.

    `place` is that directory's own path, without links.
    """

    place: str
    exists: bool
    uid: int
    gid: int


class _Step(NamedTuple):
    """A directory or a link on the way, and what it is."""

    path: str
    status: os.stat_result


def find(path: str) -> Found:
    """Where the absolute `path` leads. Raises PlaceError where somebody else could change that."""
    with _walked(path, follow=True) as (directory, place, missing, way):
        status = os.fstat(directory)
        _refuse_strangers(path, way, status.st_uid, status.st_gid)
        return Found(place, not missing, status.st_uid, status.st_gid)


@contextmanager
def opened(path: str, make: bool = False, follow: bool = False) -> Iterator[int]:
    """The caller's own directory `path`, to be read and changed by its descriptor; made, with those above it, if asked.

    With `follow`, it may be a link. Raises FileNotFoundError where it is not there, PlaceError where it is not the
    caller's own, or somebody else could put another in its place, OSError.
    """
    with ExitStack() as stack:
        directory, place, missing, way = stack.enter_context(_walked(path, follow))
        if missing and not make:
            raise FileNotFoundError(path)
        above = [_Step(place, os.fstat(directory))] if missing else []
        _refuse_strangers(path, way + above, os.geteuid(), os.fstat(directory).st_gid)
        for name in missing:
            with suppress(FileExistsError):  # another cryptomail has made it just now
                os.mkdir(name, 0o700, dir_fd=directory)
            directory = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=directory)
            stack.callback(os.close, directory)
        if os.fstat(directory).st_uid != os.geteuid():
            raise PlaceError(f"{path} does not belong to the user who owns the home directory: change its owner")
        readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        stack.callback(os.close, readable)
        yield readable


def open_file(path: str, flags: int, directory: int | None = None) -> int:
    """Open a file, without waiting, because its owner may put a pipe there at any time. Returns its descriptor.

    `path` is relative to the descriptor `directory`, if there is one. Raises NotAFileError where it is none, OSError.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFileError(path)
    return descriptor


@contextmanager
def _walked(path: str, follow: bool) -> Iterator[tuple[int, str, list[str], list[_Step]]]:
    """The last directory on the way to `path` that is there, as a descriptor, its path, what is missing behind it, and
    the way: all directories above it, and all links.
    """
    if not path.startswith("/"):
        raise PlaceError(f"{path} is not an absolute path")
    names = deque(path.split("/"))
    way: list[_Step] = []
    links = 0
    here, place = os.open("/", _STEP | os.O_DIRECTORY), "/"
    try:
        while names:
            name = names.popleft()
            if name in ("", "."):
                continue
            there = os.path.join(place, name)  # noqa: PTH118 - pathlib would take a name for more than that
            link = ""
            try:
                following = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=here)
            except FileNotFoundError:
                names.appendleft(name)
                break
            except NotADirectoryError:
                link, status = _link(name, here, there)
                if not (follow or any(names)):
                    raise PlaceError(f"cannot use {there} as a keyring: it is a link, not a directory") from None
                following = os.open("/" if link.startswith("/") else ".", _STEP | os.O_DIRECTORY, dir_fd=here)
                way.append(_Step(there, status))
                links += 1
            except OSError as error:
                raise PlaceError(f"cannot look at {there}: {error.strerror}; run this as root") from error
            way.append(_Step(place, os.fstat(here)))
            os.close(here)
            here = following
            if links > _MOST_LINKS:
                raise PlaceError(f"{path} leads over too many links: mend it")
            names.extendleft(reversed(link.split("/")))
            if link.startswith("/"):
                place = "/"
            elif not link:
                place = os.path.dirname(place) if name == ".." else there  # noqa: PTH120 - likewise
        yield here, place, [one for one in names if one not in ("", ".")], way
    finally:
        os.close(here)


def _link(name: str, directory: int, path: str) -> tuple[str, os.stat_result]:
    """Where the link `name` leads, and what it is itself. Raises PlaceError where it is none."""
    try:
        one = os.open(name, _STEP, dir_fd=directory)
    except OSError as error:
        raise PlaceError(f"cannot look at {path}: {error.strerror}; try again") from error
    try:
        status = os.fstat(one)
        if not stat.S_ISLNK(status.st_mode):
            raise PlaceError(f"{path} is not a directory: mend it, or the path")
        return os.readlink("", dir_fd=one), status
    finally:
        os.close(one)


def _refuse_strangers(path: str, way: list[_Step], uid: int, gid: int) -> None:
    """Raise PlaceError unless only root, and the user `uid`, can change the way to the directory at the end.

    The group of that directory is `gid`.
    """
    for step in way:
        owner, mode = step.status.st_uid, step.status.st_mode
        if stat.S_ISLNK(mode):
            if owner not in (_ROOT, uid):
                raise PlaceError(f"{step.path} is a link to what belongs to somebody else: mend it, or the path")
            continue
        if owner not in (_ROOT, uid):
            raise PlaceError(f"{path} can be replaced by user ID {owner}, who owns {step.path}: give that to root")
        if owner != _ROOT or mode & stat.S_ISVTX:
            continue  # where that bit is set, only the owner of something can take it away
        if mode & stat.S_IWOTH:
            raise PlaceError(f"{path} can be replaced by everybody, who may write to {step.path}: chmod o-w it")
        group = step.status.st_gid
        if mode & stat.S_IWGRP and group >= _LEAST_GROUP and group != gid:
            raise PlaceError(f"{path} can be replaced by group ID {group}, who may write to {step.path}: chmod g-w it")
