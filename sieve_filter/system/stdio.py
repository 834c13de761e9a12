"""Standard input, output and error; and what of a stranger's text may be written to a log, a terminal or a letter."""

import os
import sys
from collections.abc import Callable, Iterator

from sieve_filter import errors
from sieve_filter.errors import FileError

_PIECE = 65536  # octets: what a pipe of Linux holds


def read() -> Iterator[bytes]:
    """Standard input, in pieces. Raises FileError."""
    try:
        while piece := os.read(0, _PIECE):
            yield piece
    except OSError as error:
        raise FileError(f"cannot read standard input: {error.strerror}") from error


def write(data: bytes) -> None:
    """Write all of `data` to standard output. Raises FileError."""
    try:
        rest = memoryview(data)
        while rest:  # not by sys.stdout: what it could not write it would try again at exit, and end with a traceback
            rest = rest[os.write(1, rest) :]
    except OSError as error:
        raise FileError(f"cannot write to standard output: {error.strerror}") from error


def tell(text: str) -> None:
    """Write lines, which may have tabs, to standard output; what a terminal might act on is escaped. Raises FileError.

    User IDs, file names and scripts are strangers' texts.
    """
    shown = "\n".join("\t".join(map(for_terminal, line.split("\t"))) for line in text.split("\n"))
    write(shown.encode("utf-8", "backslashreplace") + b"\n")


def warn(text: str) -> None:
    """Write one line to standard error."""
    print(f"cryptomail: {for_log(text)}", file=sys.stderr)


def once() -> Callable[[str], None]:
    """Warns of what befell some message, and of the same with no other; what stands before ": " names the message."""
    said: set[str] = set()

    def warned(text: str) -> None:
        what = text.partition(": ")[2] or text
        if what not in said:
            said.add(what)
            warn(text)

    return warned


def guarded(work: Callable[[], int]) -> int:
    """Do `work` and return its exit code; where it fails, say why in one line and return the error's code."""
    try:
        return work()
    except Exception as error:
        reason = errors.known(error)
        warn(str(reason))
        return reason.code


def for_log(text: str) -> str:
    """`text` in ASCII, without line ends or anything else that would do something to a log."""
    if text.isascii() and text.isprintable():
        return text
    return on_one_line(text).encode("ascii", "backslashreplace").decode()


def for_terminal(text: str) -> str:
    """`text`, or where a terminal might act on something in it, all of it escaped."""
    return text if text.isprintable() else ascii(text)[1:-1]


def on_one_line(text: str) -> str:
    """`text` without line ends or anything else that is not shown: it cannot pass for what is written around it."""
    return "".join(char if char.isprintable() else "?" for char in text)
