"""Installs what the package needs, after setup.cfg, into a new virtual environment that has no pip.

    dependencies.py ENVIRONMENT [EXTRA]

pip is not installed there to be taken away again: it runs from the wheel that comes with Python (for ensurepip). EXTRA
is an optional feature in setup.cfg. Where Python does not do, one line on standard error says why.
"""

import configparser
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

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


def requirements(*extras: str) -> list[str]:
    """What the package and these optional features need, as PEP 508 has it."""
    texts = [_SETUP["options"]["install_requires"], *(_SETUP["options.extras_require"][extra] for extra in extras)]
    return [line for text in texts for line in text.splitlines() if line]


def main(environment: str, *extras: str) -> int:
    """Returns the exit code."""
    if reason := problem():
        print(f"make install: nothing was installed, because {reason}", file=sys.stderr)
        return 1
    command = [f"{environment}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-compile", "--no-warn-script-location", *requirements(*extras)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": str(bundled_pip())}).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
