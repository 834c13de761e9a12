"""Holds ciphertext until all of it is there: in memory where it is little, else in a file without a name."""

import os
from collections.abc import Iterator
from typing import IO

from sieve_filter.errors import SpoolError

_MEMORY = 2_000_000
_PIECE = 65536


def directory() -> str:
    """Where temporary files lie: TMPDIR, or /var/tmp."""
    return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # the files have no name, or a random one


class Spool:
    """Written from its beginning to its end, and then read likewise. `size` counts octets.

    The file lies in TMPDIR, or in /var/tmp. Nothing but ciphertext may be written to it. Raises SpoolError.
    """

    def __init__(self) -> None:
        self.size = 0
        self._memory = bytearray()
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._memory += data
        if len(self._memory) > _MEMORY:
            self._flush()

    def __iter__(self) -> Iterator[bytes]:
        if self._file is None:
            yield bytes(self._memory)
            return
        self._flush()
        self._file.seek(0)
        while piece := self._file.read(_PIECE):
            yield piece

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        try:
            if self._file is None:
                from tempfile import TemporaryFile  # slow to load, and small messages do without

                self._file = TemporaryFile(buffering=0, dir=directory())  # noqa: SIM115  # closed with its owner
            rest = memoryview(self._memory)
            while rest:
                rest = rest[self._file.write(rest) :]
            rest.release()
        except OSError as error:
            raise SpoolError(f"the encrypted message cannot be kept in {directory()}: {error.strerror}") from error
        self._memory = bytearray()
