"""Puts a configuration file in place, or takes it away, without touching what an administrator wrote.

    conffile.py install FILE RECORD     reads the new text from standard input
    conffile.py remove FILE RECORD

RECORD is a copy of what was installed last: a FILE that differs from it was edited, and is kept.
"""

import os
import sys
from pathlib import Path


def install(file: Path, record: Path, text: str) -> None:
    if file.exists() and file.read_text() not in (text, record.read_text() if record.exists() else None):
        new = file.with_name(file.name + ".new")
        new.write_text(text)
        print(f"{file} was edited and is kept; what would have replaced it is in {new}")
        return
    for target in (file, record):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Beside it, under a name that no `!include conf.d/*.conf` takes; then in its place whole.
        fresh = target.with_name(f".{target.name}.new")
        fresh.write_text(text)
        fresh.replace(target)


def remove(file: Path, record: Path) -> None:
    if not file.exists():
        return
    if record.exists() and file.read_text() == record.read_text():
        file.unlink()
    else:
        print(f"{file} was edited and is kept")


if __name__ == "__main__":
    os.umask(0o022)  # the mail user reads these files, whatever root's umask is
    action, file, record = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    if action == "install":
        install(file, record, sys.stdin.read())
    else:
        remove(file, record)
