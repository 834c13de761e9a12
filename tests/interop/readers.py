"""The programs that Debian 12 and 13 have for reading OpenPGP mail. Each is given a secret key and a message."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.interop.keys import GNUPG, GNUPG_24, SEQUOIA

_SECONDS = 60

# Run by some Python: decrypts what is in a file with the key in another.
_PYSEQUOIA = """
import sys, pysequoia
from pathlib import Path
key = Path(sys.argv[1]).read_bytes()
if hasattr(pysequoia, "Tsk"):
    secret = pysequoia.Tsk.from_bytes(key)
else:
    secret = pysequoia.Cert.from_bytes(key).secrets
decrypted = pysequoia.decrypt(bytes=Path(sys.argv[2]).read_bytes(), decryptor=secret.decryptor())
sys.stdout.buffer.write(decrypted.bytes)
"""
_PYSEQUOIA_VERSION = "import importlib.metadata as m; print('PySequoia', m.version('pysequoia'))"


class Place(NamedTuple):
    """A Debian: what a command is prefixed with to be run there, and a directory as seen from here and from there."""

    prefix: tuple[str, ...]
    here: Path
    there: str


class Reader(NamedTuple):
    """A program: how it says its version, and how it decrypts."""

    version: str
    decrypt: Callable[[bytes, bytes], bytes | None]


@contextmanager
def readers(tree: Path) -> Iterator[dict[str, Reader]]:
    """The programs of this machine, which has to be a Debian 12, and of a tree of Debian 13."""
    with (
        tempfile.TemporaryDirectory(prefix="interop-", dir="/tmp") as here,
        tempfile.TemporaryDirectory(prefix="interop-", dir=tree / "tmp") as inside,
    ):
        old = Place((), Path(here), here)
        new = Place(("chroot", str(tree)), Path(inside), f"/tmp/{Path(inside).name}")
        yield {
            GNUPG: _gnupg(old),
            GNUPG_24: _gnupg(new),
            "sq 0.27": _one(old, "sq", ["decrypt", "--recipient-key", "KEY", "MESSAGE"]),
            "sq 1.3": _one(new, "sq", ["decrypt", "--recipient-file", "KEY", "MESSAGE"], "version"),
            "sqop 0.27": _sop(old, "sqop"),
            "sqop 0.37": _sop(new, "sqop"),
            "rsop 0.6": _sop(new, "rsop"),
            "gosop 2022": _sop(old, "gosop"),
            "gosop 1.1": _sop(new, "gosop"),
            "rnp 0.16": _rnp(old),
            "rnp 0.17": _rnp(new),
            "PySequoia 0.1.27": _pysequoia(new, "/usr/bin/python3"),
            SEQUOIA: _pysequoia(old, sys.executable),
        }


def _one(place: Place, name: str, arguments: list[str], version: str = "--version") -> Reader:
    """A program that takes a file with the secret key, KEY, and one with the message, MESSAGE."""

    def decrypt(key: bytes, message: bytes) -> bytes | None:
        (place.here / "key").write_bytes(key)
        (place.here / "message").write_bytes(message)
        named = {"KEY": f"{place.there}/key", "MESSAGE": f"{place.there}/message"}
        return _run(place, [name, *(named.get(one, one) for one in arguments)], message)

    return Reader(_version(place, [name, version]), decrypt)


def _sop(place: Place, name: str) -> Reader:
    """A Stateless OpenPGP program (draft-dkg-openpgp-stateless-cli)."""
    return _one(place, name, ["decrypt", "KEY"], "version")


def _rnp(place: Place) -> Reader:
    """The library of Thunderbird."""
    home = f"{place.there}/rnp"
    (place.here / "rnp").mkdir()
    arguments = ["--homedir", home, "--keyfile", "KEY", "--password", "", "--notty", "--output", "-", "--decrypt"]
    return _one(place, "rnp", arguments)


def _pysequoia(place: Place, python: str) -> Reader:
    reader = _one(place, python, ["-c", _PYSEQUOIA, "KEY", "MESSAGE"])
    return reader._replace(version=_version(place, [python, "-c", _PYSEQUOIA_VERSION]))


def _gnupg(place: Place) -> Reader:
    def decrypt(key: bytes, message: bytes) -> bytes | None:
        home = place.here / "home"
        home.mkdir(mode=0o700)
        gpg = ["gpg", "--homedir", f"{place.there}/home", "--batch", "--quiet"]
        try:
            if _run(place, [*gpg, "--import"], key) is None:
                return None
            return _run(place, [*gpg, "--decrypt"], message)
        finally:
            _run(place, ["gpgconf", "--homedir", f"{place.there}/home", "--kill", "all"], b"")
            shutil.rmtree(home, ignore_errors=True)

    return Reader(_version(place, ["gpg", "--version"]), decrypt)


def _run(place: Place, command: list[str], data: bytes) -> bytes | None:
    """What a command prints; None where it fails."""
    done = subprocess.run([*place.prefix, *command], input=data, capture_output=True, timeout=_SECONDS)
    return done.stdout if done.returncode == 0 else None


def _version(place: Place, command: list[str]) -> str:
    said = subprocess.run([*place.prefix, *command], capture_output=True, text=True)
    return (said.stdout or said.stderr).partition("\n")[0].strip()
