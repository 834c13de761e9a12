"""A small file of ours beside an owner's keys: in their GnuPG home, or in their own home where the keys are a file.

Beside a key file, it could be published with that, and perhaps nobody but root may write there.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sieve_filter import limits
from sieve_filter.errors import PlaceError, TimedOutError
from sieve_filter.system import places
from sieve_filter.system.signals import at_most


def path(keyring: str, home: str, name: str, as_file: bool = False) -> Path:
    """Where the file `name` of the owner with those keys is, whose home is `home`; `as_file` as in `changes`."""
    return Path(home, f".{name}") if as_file or Path(keyring).is_file() else Path(keyring, name)


def replace(file: str, content: bytes) -> None:
    """Put a file with that content in the place of `file`: who reads it sees the old one or the new one.

    Raises PlaceError, OSError.
    """
    where = Path(file)
    with places.opened(str(where.parent), make=True, follow=True) as directory:
        fresh = f"{where.name}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=directory)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory)
        with open(descriptor, "wb") as opened_file:  # noqa: PTH123 - a descriptor, not a path
            opened_file.write(content)
            opened_file.flush()
            os.fsync(opened_file.fileno())
        os.rename(fresh, where.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)


@contextmanager
def opened(file: Path, flags: int = 0) -> Iterator[int]:
    """The file, made if need be, as a descriptor; nobody else reads or changes it with this program meanwhile.

    Raises PlaceError.
    """
    try:
        with places.opened(str(file.parent), make=True, follow=True) as directory:
            descriptor = places.open_file(file.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags, directory)
    except places.NotAFileError as error:
        raise PlaceError(f"{file} is not a file: take it away") from error
    except OSError as error:
        raise PlaceError(f"cannot use {file}: {error.strerror}") from error
    try:
        try:
            with at_most(limits.QUARANTINE_SECONDS):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except TimedOutError:
            raise PlaceError(f"another program has locked {file}") from None
        except OSError as error:
            raise PlaceError(f"cannot use {file}: {error.strerror}") from error
        yield descriptor
    finally:
        os.close(descriptor)
