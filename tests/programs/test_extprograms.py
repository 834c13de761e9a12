"""What Pigeonhole starts: any user with a Sieve script chooses its arguments, and gets no further with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import ALICE, Server

MESSAGE = b"Subject: hello\r\n\r\nThe text.\r\n"


def call(server: Server, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    code = (
        "import sys; from sieve_filter.programs.extprograms import filter_main; sys.exit(filter_main('/nonexistent'))"
    )
    environment = {"USER": ALICE, "HOME": str(server.home)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], input=MESSAGE, capture_output=True, env=environment, timeout=60
    )


def test_it_filters(enrolled: Server) -> None:
    done = call(enrolled, "--header-policy", "baseline", "--require")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Subject: [...]\r\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--user", "bob"],
        ["--home", "/home/bob"],
        ["--recipient", "bob@example.org"],
        ["decrypt"],
        ["inspect", "/etc/passwd"],
    ],
    ids=" ".join,
)
def test_nobody_can_act_for_another_user_or_read_files_through_it(arguments: list[str], enrolled: Server) -> None:
    done = call(enrolled, *arguments)
    assert (done.returncode, done.stdout) == (64, b"")


def test_configuration_of_the_scripts_author_is_not_trusted(enrolled: Server, tmp_path: Path) -> None:
    """All virtual users share one user ID: by a configuration of its own a script could point at another's keys."""
    configuration = tmp_path / "mine.toml"
    configuration.write_text('[keyrings]\nowner = ["/home/bob/.cryptomail"]\n')
    configuration.chmod(0o666)
    done = call(enrolled, "--config", str(configuration))
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"is not trusted" in done.stderr
