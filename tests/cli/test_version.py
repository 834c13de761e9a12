"""`cryptomail --version`: what a report of a fault has to say."""

import re
import subprocess
import sys


def test_the_version_says_what_encrypts() -> None:
    command = [sys.executable, "-m", "sieve_filter", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    line = r"cryptomail \d+\.\d+\.\d+, GnuPG 2\.\d+\.\d+, PySequoia 0\.\d+\.\d+, Python 3\.\d+\.\d+\n"
    assert re.fullmatch(line, said.stdout)
