"""Holds a message until all of it is there: ciphertext in a file without a name, what may be clear text in memory."""

import os
from collections.abc import Iterator
from io import FileIO
from typing import IO

from sieve_filter.errors import SpoolError

_MEMORY = 2_000_000
_PIECE = 65536


def directory() -> str:
    """Where temporary files lie: TMPDIR, or /var/tmp."""
    return os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108  # the files have no name, or a random one


class MemoryFile:
    """Written from its beginning to its end, and then read likewise. It is for clear text.

    The file has no name, and lies on no disk: it is swapped at most, as the memory of a process is. Raises SpoolError.
    """

    def __init__(self) -> None:
        from weakref import finalize  # small messages do without

        try:
            self._file = FileIO(os.memfd_create("message"), "r+")
        except OSError as error:
            raise _no_memory(error) from error
        finalize(self, self._file.close)

    def write(self, data: bytes) -> None:
        try:
            _write(self._file, data)
        except OSError as error:
            raise _no_memory(error) from error

    def __iter__(self) -> Iterator[bytes]:
        return _read(self._file)

    @property
    def path(self) -> str:
        """What a library in C opens it by, in this process."""
        return f"/proc/self/fd/{self._file.fileno()}"


class Spool:
    """Written from its beginning to its end, and then read likewise. `size` counts octets.

    Little is in memory; the file lies in TMPDIR, or in /var/tmp. Nothing but ciphertext may be written to it. Raises
    SpoolError.
    """

    def __init__(self) -> None:
        self.size = 0
        self._memory: list[bytes] = []  # as it was written: joined, it would be copied
        self._held = 0
        self._file: IO[bytes] | None = None

    def write(self, data: bytes) -> None:
        self.size += len(data)
        self._memory.append(data)
        self._held += len(data)
        if self._held > _MEMORY:
            self._flush()

    def __iter__(self) -> Iterator[bytes]:
        if self._file is None:
            yield from self._memory
            return
        self._flush()
        yield from _read(self._file)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        try:
            if self._file is None:
                from tempfile import TemporaryFile  # slow to load, and small messages do without

                self._file = TemporaryFile(buffering=0, dir=directory())  # noqa: SIM115  # closed with its owner
            _write(self._file, b"".join(self._memory))
        except OSError as error:
            raise SpoolError(f"the encrypted message cannot be kept in {directory()}: {error.strerror}") from error
        self._memory = []
        self._held = 0


def _write(file: IO[bytes], data: bytes) -> None:
    with memoryview(data) as rest:
        position = 0
        while position < len(rest):
            position += file.write(rest[position:])


def _read(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(_PIECE):
        yield piece


def _no_memory(error: OSError) -> SpoolError:
    return SpoolError(f"the message cannot be kept in memory: {error.strerror}")
