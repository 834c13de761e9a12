"""Small files that are named on the command line: of certificates, of passwords."""

import sys
from pathlib import Path

from sieve_filter import limits
from sieve_filter.errors import FileError, RefusedKeyError


def read(name: str) -> bytes:
    """What is in that file, or on standard input for `-`. Raises FileError, RefusedKeyError where it is too large."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(limits.CERTIFICATE_FILE_OCTETS + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(limits.CERTIFICATE_FILE_OCTETS + 1)
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror}") from error
    if len(data) > limits.CERTIFICATE_FILE_OCTETS:
        raise RefusedKeyError(f"{name} is larger than {limits.CERTIFICATE_FILE_OCTETS} octets")
    return data
