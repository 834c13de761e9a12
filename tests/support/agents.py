"""Delivery agents of others, procmail, maildrop and fdm, from Debian's packages, unpacked and not installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from lab.server import REPOSITORY
from tests.support import mta

_PACKAGES = {
    "procmail": ("procmail",),
    "maildrop": ("maildrop", "courier-authlib", "libcourier-unicode4", "libpcre3"),
    "fdm": ("fdm", "libtdb1"),
}
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib/courier-authlib")
PROGRAM = "/usr/local/bin/cryptomail"  # as the files in contrib/ have it


class Agent:
    """A delivery agent that follows the file in contrib/, with a home; `program` stands for cryptomail there."""

    def __init__(self, name: str, directory: Path) -> None:
        tree = mta.unpacked(*_PACKAGES[name])
        self._name = name
        self._directory = directory
        # Without its bits of a user or group: with them, the loader passes over LD_LIBRARY_PATH.
        self._binary = Path(shutil.copy(tree / "usr/bin" / name, directory))
        self._binary.chmod(0o755)
        libraries = ":".join(str(tree / one) for one in _LIBRARIES)
        self._environment = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": libraries, "LOGNAME": "root"}
        self.home = directory / "home"
        self.home.mkdir()
        self.program = directory / "cryptomail"
        self.is_cryptomail()

    def is_cryptomail(self) -> None:
        self.becomes(f'unset LD_LIBRARY_PATH; cd {REPOSITORY}; exec {sys.executable} -m sieve_filter "$@"')

    def becomes(self, shell: str) -> None:
        """Have the program be a shell script."""
        self.program.write_text(f"#!/bin/sh\n{shell}\n")
        self.program.chmod(0o755)

    def settings(self, name: str, before: str = "", after: str = "") -> Path:
        """The file of that name in contrib/, with lines before and behind it."""
        recipe = (REPOSITORY / "contrib" / self._name / name).read_text()
        assert PROGRAM in recipe
        file = self._directory / name
        file.write_text(f"{before}\n{recipe.replace(PROGRAM, str(self.program))}\n{after}\n")
        file.chmod(0o600)
        return file

    def run(self, arguments: Iterable[str | Path], message: bytes = b"", user: int = os.geteuid()) -> int:
        """Run it as that user. Returns its exit code."""
        environment = self._environment | {"HOME": str(self.home), "TMPDIR": "/dev/shm"}
        command = [str(self._binary), *map(str, arguments)]
        done = subprocess.run(command, input=message, env=environment, user=user, capture_output=True, timeout=60)
        return done.returncode

    def stored(self) -> list[bytes]:
        """The messages in the home's Maildir."""
        return [file.read_bytes() for file in sorted((self.home / "Maildir/new").glob("*"))]
