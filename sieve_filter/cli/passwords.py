"""Passwords for servers: from a file, or from the person at the terminal."""

import getpass

from sieve_filter.cli import files
from sieve_filter.errors import UsageError


def ask(user: str, password_file: str | None) -> str:
    """The first line of the file, if one is named; else what somebody types. Raises UsageError, FileError."""
    if password_file is not None:
        try:
            first = files.read(password_file).decode("utf-8").partition("\n")[0].removesuffix("\r")
        except UnicodeDecodeError:
            raise UsageError(f"{password_file} is not UTF-8") from None
    else:
        try:
            # Where there is no terminal, getpass would read, and show, standard input.
            with open("/dev/tty", "rb"):  # noqa: PTH123 - only to see whether there is one
                first = getpass.getpass(f"Password of {user}: ")
        except (OSError, EOFError):
            raise UsageError("there is no terminal to ask for the password: use --password-file FILE") from None
    if not first:
        raise UsageError("the password is empty")
    return first
