"""Starts a program and talks to it, without the module `subprocess`: that takes as long to load as gpg to run."""

import os
import select
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from io import FileIO

from sieve_filter.system import descriptors

_CHUNK = 65536  # octets: what a pipe of Linux holds

Sink = Callable[[bytes], object]


def converse(
    command: list[str], environment: Mapping[str, str], source: Iterable[bytes], sink: Sink
) -> tuple[int, bytes]:
    """Run `command`: `source` goes to its standard input, and `sink` takes its standard output, in pieces.

    Returns its exit code (negative: the signal that ended it), and what it wrote on standard error. Raises OSError
    where it cannot be started. Where `source`, `sink` or a signal handler raises, the program is killed.
    """
    descriptors.keep()
    with ExitStack() as pipes:
        (their_input, ours), (output, their_output), (errors, their_errors) = [_pipe(pipes) for _ in range(3)]
        theirs = (their_input, their_output, their_errors)
        actions = [(os.POSIX_SPAWN_DUP2, end.fileno(), number) for number, end in enumerate(theirs)]
        # Python ignores SIGPIPE, and a program would inherit that.
        process = os.posix_spawnp(command[0], command, environment, file_actions=actions, setsigdef=[signal.SIGPIPE])
        try:
            for end in theirs:
                end.close()
            said = _pump(source, ours, sink, output, errors)
            return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said
        except BaseException:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            raise


def _pipe(pipes: ExitStack) -> tuple[FileIO, FileIO]:
    """The end to read from, and the end to write to; they are closed with `pipes`, if not before."""
    read, write = os.pipe()
    return pipes.enter_context(FileIO(read, "r")), pipes.enter_context(FileIO(write, "w"))


def _pump(source: Iterable[bytes], target: FileIO, sink: Sink, output: FileIO, errors: FileIO) -> bytes:
    """Write the source to the target, and read from the others, until both have ended. Returns what `errors` had."""
    said = bytearray()
    os.set_blocking(target.fileno(), False)
    poll = select.poll()
    takers = {output.fileno(): sink, errors.fileno(): said.extend}
    for descriptor in takers:
        poll.register(descriptor, select.POLLIN)
    poll.register(target, select.POLLOUT)
    chunks = iter(source)
    rest = memoryview(b"")
    while takers:
        for descriptor, _ in poll.poll():
            if descriptor in takers:
                data = os.read(descriptor, _CHUNK)
                if data:
                    takers[descriptor](data)
                else:
                    poll.unregister(descriptor)
                    del takers[descriptor]
                continue
            try:
                rest = rest or memoryview(next(chunks))
                rest = rest[target.write(rest) or 0 :]
            except (StopIteration, BrokenPipeError):  # where the program gave up, its exit code tells
                poll.unregister(target)
                target.close()
    return bytes(said)
