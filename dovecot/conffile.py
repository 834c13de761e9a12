"""Puts a configuration file in place, or takes it away, without touching what an administrator wrote.

    conffile.py install FILE RECORD     reads the new text from standard input
    conffile.py remove FILE RECORD
    conffile.py retire FILE RECORD      as remove, but an edited one is renamed, so that nobody reads it any more
    conffile.py remember FILE NAME=VALUE...

RECORD is a copy of what was installed last: a FILE that differs from it was edited, and is kept. What is remembered
is one line a name, which the Makefile reads.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path


def install(file: Path, record: Path, text: str) -> None:
    if file.exists() and file.read_text() not in (text, record.read_text() if record.exists() else None):
        new = file.with_name(file.name + ".new")
        new.write_text(text)
        print(f"{file} was edited and is kept; what would have replaced it is in {new}")
        return
    for target in (file, record):
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(target, text)


def replace(file: Path, text: str) -> None:
    """Write it beside, under a name that no `!include conf.d/*.conf` takes; then put it in place whole."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def remember(file: Path, settings: Sequence[str]) -> None:
    lines = file.read_text().splitlines() if file.exists() else []
    known = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    for setting in settings:
        name, value = setting.split("=", 1)
        if re.fullmatch(r"[A-Za-z0-9_./@:+-]*", value):
            known[name] = value
        else:
            known.pop(name, None)
            print(f"{name} cannot be remembered: say it again the next time")
    if known:
        text = "".join(f"{name}={value}\n" for name, value in known.items())
        replace(file, f"# What `make install` was told, for the next one.\n{text}")


def remove(file: Path, record: Path, retire: bool = False) -> None:
    if not file.exists():
        return
    if record.exists() and file.read_text() == record.read_text():
        file.unlink()
    elif retire:
        aside = file.with_name(file.name + ".removed")
        file.replace(aside)
        print(f"{file} was edited and is kept as {aside}, which Dovecot does not read")
    else:
        print(f"{file} was edited and is kept")


if __name__ == "__main__":
    os.umask(0o022)  # the mail user reads these files, whatever root's umask is
    action, file, rest = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    if action == "install":
        install(file, Path(rest[0]), sys.stdin.read())
    elif action in ("remove", "retire"):
        remove(file, Path(rest[0]), retire=action == "retire")
    else:
        remember(file, rest)
