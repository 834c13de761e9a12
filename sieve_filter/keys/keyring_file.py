"""Reads a file of keys as a whole, whatever somebody has put in its place."""

import os
from errno import ENOENT

from sieve_filter.errors import KeyringError
from sieve_filter.system import places


def read(path: str, most: int) -> bytes:
    """What is in a file of `most` octets. Raises KeyringError."""
    content = read_if_there(path, most)
    if content is None:
        raise KeyringError(f"cannot read {path}: {os.strerror(ENOENT)}")
    return content


def read_if_there(path: str, most: int) -> bytes | None:
    """The same; None where there is no such file."""
    try:
        with open(path, "rb", opener=places.open_file) as file:
            content = file.read(most + 1)
    except FileNotFoundError:
        return None
    except places.NotAFileError as error:
        raise KeyringError(f"{path} is not a file: take it away") from error
    except OSError as error:
        raise KeyringError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > most:
        raise KeyringError(f"{path} is larger than {most} octets: set the keys in it up again")
    return content
