"""What the numbers were measured on."""

import os
import platform
import subprocess
from pathlib import Path

from lab.client import Lab


def describe(lab: Lab, load: float) -> dict[str, str]:
    """Machine and versions, by names for people; `load` is what it had to do otherwise."""
    cpu = next((line.split(":")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    kilobytes = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    system = next((line.split("=")[1] for line in _lines("/etc/os-release") if line.startswith("PRETTY")), "unknown")
    python = lab.python
    code = "import importlib.metadata as m; print(m.version('pysequoia'))"
    return {
        "machine": f"{cpu.strip()}, {os.cpu_count()} cores, {kilobytes / 1024**2:.0f} GiB",
        "system": f"{system.strip(chr(34))}, Linux {platform.release()}",
        "mail on": _output("findmnt", "-n", "-o", "FSTYPE,SOURCE", "--target", str(lab.directory)),
        "load average before": f"{load:.1f}",
        "Dovecot": _output("dovecot", "--version").split()[0],
        "GnuPG": _output("gpg", "--version").splitlines()[0].removeprefix("gpg (GnuPG) "),
        "PySequoia": _output(str(python), "-I", "-c", code) or "not installed",
        "Python": _output(str(python), "-I", "-c", "import platform; print(platform.python_version())"),
        "cryptomail": _output("git", "describe", "--always", "--dirty", "--tags") or "not from git",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    except FileNotFoundError:
        return ""
