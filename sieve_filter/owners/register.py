"""Notes whose mail is encrypted, outside their homes: where a home is not there, its owner is not one without a key.

In a directory of root's there is one for each user ID that owns mail files, which belongs to that user, so that nobody
can note or forget anything of another's; in there, an empty file for each mailbox owner, by name. Where the directory
itself is not there, nothing was installed that keeps a register, and nobody is noted.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sieve_filter.errors import RegisterError

# What stands for itself in a file's name; the rest of an owner's name is written as %XX, octet by octet.
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_+=@.")
_UPGRADED = "upgraded"
_NAME_OCTETS = 255  # what Linux allows


def make(directory: str, user_id: int, group_id: int) -> None:
    """Make that user's directory, where there is a register, and the caller is root. Raises RegisterError."""
    if os.geteuid() != 0:
        return
    with _opened(directory) as register:
        if register is not None and not _exists(str(user_id), register):
            os.mkdir(str(user_id), 0o700, dir_fd=register)
            os.chown(str(user_id), user_id, group_id, dir_fd=register, follow_symlinks=False)


def note(directory: str, user: str) -> None:
    """Note that mail for `user` is encrypted, where there is a place for it. Raises RegisterError."""
    with _opened(directory, str(os.geteuid())) as place:
        if place is not None and not _exists(_file(user), place):
            os.close(os.open(_file(user), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=place))


def has(directory: str, user: str) -> bool:
    """Whether it is noted that mail for `user` is encrypted. Raises RegisterError where that cannot be known."""
    with _opened(directory, str(os.geteuid())) as place:
        return place is not None and _exists(_file(user), place)


def forget(directory: str, user: str) -> bool:
    """Forget `user`, in all directories that the caller may change. Returns whether there was anything.

    Raises RegisterError.
    """
    found = False
    for number in _numbers(directory):
        with _opened(directory, number) as place:
            if place is not None and _exists(_file(user), place):
                os.unlink(_file(user), dir_fd=place)
                found = True
    return found


def everybody(directory: str) -> set[str]:
    """Who is noted: to root, in all users' directories, else in the caller's. Raises RegisterError."""
    found: set[str] = set()
    for number in _numbers(directory):
        with _opened(directory, number) as place:
            found |= {_user(name) for name in os.listdir(place)} if place is not None else set()
    return found


def mark_upgrade(directory: str) -> None:
    """Remember now as the time since when a key in a shared keyring has to be known for the owner's.

    Raises RegisterError.
    """
    with _opened(directory) as register:
        if register is not None and not _exists(_UPGRADED, register):
            os.close(os.open(_UPGRADED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644, dir_fd=register))


def upgraded(directory: str) -> int:
    """That time, in nanoseconds since 1970; 0 where nothing was upgraded. Raises RegisterError."""
    with _opened(directory) as register:
        if register is None or not _exists(_UPGRADED, register):
            return 0
        return os.stat(_UPGRADED, dir_fd=register, follow_symlinks=False).st_mtime_ns


def _numbers(directory: str) -> list[str]:
    if os.geteuid() != 0:
        return [str(os.geteuid())]
    with _opened(directory) as register:
        return [] if register is None else sorted(name for name in os.listdir(register) if name.isdecimal())


@contextmanager
def _opened(directory: str, number: str = "") -> Iterator[int | None]:
    """The register, or a user's directory in it, as a descriptor; None where it is not there.

    An OSError in the block becomes a RegisterError.
    """
    path = f"{directory}/{number}" if number else directory
    descriptor = None
    try:
        if directory:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                pass
            else:
                if number and os.fstat(descriptor).st_uid != int(number):
                    raise RegisterError(f"{path} does not belong to user {number}: change its owner")
        yield descriptor
    except OSError as error:
        raise RegisterError(f"cannot use {path}, which notes whose mail is encrypted: {error.strerror}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _exists(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _file(user: str) -> str:
    octets = user.encode("utf-8", "surrogateescape")
    name = "".join(chr(one) if one in _PLAIN else f"%{one:02X}" for one in octets)
    if name.startswith("."):
        name = f"%2E{name[1:]}"  # neither `.` nor `..`
    if len(name) > _NAME_OCTETS:
        from hashlib import sha256  # nobody has such a name

        name = f"{name[:150]}%{sha256(octets).hexdigest()}"
    return name


def _user(name: str) -> str:
    """The owner's name of a file's; of one that was too long, what of it there is."""
    head, *escaped = name.split("%")
    octets = head.encode() + b"".join(bytes.fromhex(one[:2]) + one[2:].encode() for one in escaped if len(one) < 64)
    return octets.decode("utf-8", "surrogateescape")
