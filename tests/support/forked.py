"""Runs the program in a copy of this process, which has loaded it: to start Python takes longer than most runs do."""

import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from tempfile import TemporaryFile
from typing import NoReturn

SECONDS = 120
_DESCRIPTORS = 65_536


def forked(
    main: Callable[[], int], arguments: Sequence[str], data: bytes, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[bytes]":
    """What `main` does with these arguments, standard input and environment, in a process without our descriptors."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as complaints:
        given.write(data)
        given.seek(0)
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            _become(main, arguments, [one.fileno() for one in (given, out, complaints)], environment)
        code = _code(process)
        for file in (out, complaints):
            file.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), complaints.read())


def _become(
    main: Callable[[], int], arguments: Sequence[str], standard: Sequence[int], environment: Mapping[str, str]
) -> NoReturn:
    code = 1
    try:
        for number, descriptor in enumerate(standard):
            os.dup2(descriptor, number)
        os.closerange(len(standard), _DESCRIPTORS)
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")  # line by line, as Python has it
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["cryptomail", *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else bool(end.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code(process: int) -> int:
    """How it ended, as subprocess says that."""
    descriptor = os.pidfd_open(process)
    try:
        if not select.select([descriptor], [], [], SECONDS)[0]:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired("cryptomail", SECONDS)
    finally:
        os.close(descriptor)
        _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)
