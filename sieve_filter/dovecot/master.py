"""Who started the supervisor: Dovecot's master process, systemd, or a shell; and where its log lines go."""

import os
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

# Descriptors that Dovecot's master process passes on (its lib-master): where to report, and what ends with it.
_STATUS, _DEAD_WITH_MASTER = 5, 6

# The first two octets of a line in Dovecot's log protocol: \001, and one more than the type's number.
_TYPES = {"info": b"\1\2", "warning": b"\1\3", "error": b"\1\4"}
# What systemd's journal knows a line's priority by (sd-daemon(3)).
_PRIORITIES = {"info": "<6>", "warning": "<4>", "error": "<3>"}


class Master(Protocol):
    """Is told that this process takes connections, and what happened."""

    descriptor: int | None  # readable when the master has gone

    def available(self) -> None: ...

    def log(self, level: str, line: str) -> None: ...


class Dovecot:
    """Dovecot's master process: it starts this one anew where it dies, and writes the log."""

    descriptor: int | None = _DEAD_WITH_MASTER

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._generation = int(environment["GENERATION"])
        self._clients = int(environment["CLIENT_LIMIT"])

    def available(self) -> None:
        """Be as if nobody were connected, for good: then the master never drops a connection."""
        with suppress(BrokenPipeError):  # it has gone
            # struct master_status: pid_t pid; unsigned int uid, available_count
            os.write(_STATUS, struct.pack("=iII", os.getpid(), self._generation, self._clients))

    def log(self, level: str, line: str) -> None:
        with suppress(OSError):  # what was done is done, and the log is no reason to call it a failure
            os.write(2, _TYPES[level] + f"{os.getpid()} {line}\n".encode())


class Shell:
    """Nobody in particular; the log goes to standard error."""

    descriptor: int | None = None

    def available(self) -> None:
        pass

    def log(self, level: str, line: str) -> None:
        with suppress(OSError):
            print(f"cryptomail: {level}: {line}", file=sys.stderr, flush=True)


class Journal(Shell):
    """systemd, with standard error in its journal."""

    def log(self, level: str, line: str) -> None:
        with suppress(OSError):
            print(f"{_PRIORITIES[level]}{line}", file=sys.stderr, flush=True)


def master(environment: Mapping[str, str]) -> Master:
    """Whoever started this process."""
    return Dovecot(environment) if "GENERATION" in environment else shell(environment)


def shell(environment: Mapping[str, str]) -> Master:
    """Whoever started this process, where that is not Dovecot."""
    status = os.fstat(2)
    is_journal = environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"  # systemd.exec(5)
    return Journal() if is_journal else Shell()
