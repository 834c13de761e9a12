"""Where log lines go, and what their level is known by there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from sieve_filter.dovecot import master
master.shell(os.environ).log("warning", "verdict=x")
"""


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_knows_a_line_s_level(is_journal: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        status = os.fstat(file.fileno())
        number = status.st_ino + (not is_journal)  # standard error went elsewhere since systemd said so
        environment = {"PATH": os.environ["PATH"], "JOURNAL_STREAM": f"{status.st_dev}:{number}"}
        subprocess.run([sys.executable, "-c", CODE], env=environment, stderr=file, check=True)
    assert log.read_text() == ("<4>verdict=x\n" if is_journal else "cryptomail: warning: verdict=x\n")
