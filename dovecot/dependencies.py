"""Puts what the package needs, after setup.cfg, into a directory of packages.

    dependencies.py DIRECTORY [EXTRA ...]

Wheels only: nothing is built, so that no code of others runs now. EXTRA is an optional feature in setup.cfg, which is
installed where there is a wheel for the machine. Where there is none, one line on standard error says so; likewise
where Python does not do. pip runs from the wheel that comes with Python (for ensurepip).
"""

import configparser
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

# What becomes of mail without them.
_ARMOR = "Python writes the armor, more slowly"
_PAGE = "there is no page for owners"
_WITHOUT = {
    "pysequoia": "GnuPG encrypts, more slowly",
    "anycrc": _ARMOR,
    "pybase64": _ARMOR,
    "flask": _PAGE,
    "waitress": _PAGE,
}

_SETUP = configparser.ConfigParser()
_SETUP.read(Path(__file__).parent.parent / "setup.cfg")


def problem() -> str:
    """Why nothing can be installed with this Python; "" if it can be."""
    oldest = _SETUP["options"]["python_requires"].removeprefix(">=")
    if sys.version_info < tuple(int(part) for part in oldest.split(".")):
        return f"the package needs Python {oldest} or later: say PYTHON=/path for one"
    return "" if bundled_pip() else "Python has no pip: apt-get install python3-venv"


def bundled_pip() -> Path | None:
    """The wheel of pip that comes with this Python, if it is there."""
    # Distributions may keep it in a place of their own (Python's configure --with-wheel-pkg-dir).
    standard = Path(sysconfig.get_path("stdlib"), "ensurepip", "_bundled")
    return next(Path(sysconfig.get_config_var("WHEEL_PKG_DIR") or standard).glob("pip-*.whl"), None)


def requirements(section: str, name: str) -> list[str]:
    """What setup.cfg has there, as PEP 508 has it."""
    return [line for line in _SETUP[section][name].splitlines() if line]


def names(wanted: Sequence[str]) -> list[str]:
    """The names of distributions in these requirements."""
    return [one.split()[0] for one in wanted]


def main(directory: str, *extras: str) -> int:
    """Returns the exit code."""
    if reason := problem():
        print(f"make install: nothing was installed, because {reason}", file=sys.stderr)
        return 1
    needed = requirements("options", "install_requires")
    optional = [one for extra in extras for one in requirements("options.extras_require", extra)]
    if optional:
        done = _install(directory, [*needed, *optional], stderr=subprocess.PIPE)
        if done.returncode == 0:
            return 0
        there = [one for one in optional if _is_there(directory, one)]
        if there == optional:  # these are not the reason
            sys.stderr.write(done.stderr)
            return done.returncode
        for name in names([one for one in optional if one not in there]):
            print(f"make install: there is no wheel of {name} for this machine: {_WITHOUT[name]}", file=sys.stderr)
        optional = there
    return _install(directory, [*needed, *optional]).returncode


def _is_there(directory: str, optional: str) -> bool:
    """Whether pip finds a wheel for it."""
    return _install(directory, ["--dry-run", "--no-deps", optional], stderr=subprocess.DEVNULL).returncode == 0


def _install(directory: str, arguments: Sequence[str], stderr: int | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-sP", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--only-binary", ":all:", "--target", directory]
    variables = {**os.environ, "PYTHONPATH": str(bundled_pip())}
    return subprocess.run([*command, *arguments], env=variables, stderr=stderr, text=True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
