"""What `cryptomail keys` shows to a person: tables that fit, names instead of numbers, help that helps."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest

from lab.keys import Owner
from tests.support.filtered import fingerprint_of
from tests.support.server import ALICE, Command
from tests.support.site import BOB, Site, said


def on_terminal(columns: int, *arguments: str) -> str:
    """What a terminal of that width shows of the command."""
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent', sendmail_path=''))"
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm"}
    command = [sys.executable, "-c", code, "keys", *arguments]
    with subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=environment) as process:
        process.wait(60)
        os.close(child)
        shown = b""
        try:
            while piece := os.read(parent, 65536):
                shown += piece
        except OSError:  # that is how a terminal ends
            pass
    os.close(parent)
    return shown.decode()


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_table_shows_fingerprints_whole(columns: int, site: Site, alice: Owner, bob: Owner) -> None:
    (site.directory / f"{ALICE}.pgp").write_bytes(alice.public(ALICE))
    (site.directory / f"{BOB}.pgp").write_bytes(alice.public(ALICE))
    places = ("--home-template", site.template)
    report = on_terminal(columns, "import", "--no-notify", "--all", str(site.directory), *places)
    assert report.count(fingerprint_of(alice)) == 2
    listed = on_terminal(columns, "list", "--all", *places)
    assert fingerprint_of(alice) in listed
    assert "\u2502" in listed
    lines = [line for line in (report + listed).replace("\x1b", "\n").splitlines() if "\u2502" in line]
    assert max(map(len, lines)) <= columns


def test_key_is_shown_by_the_name_of_its_kind(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    shown = said(site.keys("show", "--user", ALICE))
    assert "    kind:      Ed25519, made on " in shown
    assert "algorithm" not in shown


@pytest.mark.parametrize(
    ("arguments", "helps"),
    [
        (["import", "--no-such"], "cryptomail keys import"),
        (["list", "--all", "x"], "cryptomail keys list"),
        (["list"], "cryptomail keys list"),
        (["show"], "cryptomail keys show"),
        (["remove", "--all", "A" * 40], "cryptomail keys remove"),
        (["import", "--all"], "cryptomail keys import"),
    ],
)
def test_wrong_command_line_points_to_the_help_of_that_action(
    arguments: list[str], helps: str, command: Command
) -> None:
    done = command("keys", *arguments)
    assert done.returncode == 64
    assert said(done).endswith(f"; see {helps} --help\n")


def test_all_is_a_flag_in_each_action(site: Site, alice: Owner) -> None:
    folder = site.directory / "given"
    folder.mkdir()
    (folder / f"{ALICE}.pgp").write_bytes(alice.public(ALICE))
    assert "1 imported" in said(site.keys("import", "--all", str(folder)))
    assert "1 unchanged" in said(site.keys("import", str(folder), "--all"))
    assert "1 unchanged" in said(site.keys("import", "-", "--all", data=alice.public(ALICE)))
    assert "[--all]" in said(site.keys("import", "--help"))


def test_one_is_told_in_the_singular(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    assert said(site.keys("check", "--user", ALICE)).startswith("KEYS OK - 1 user | ")
    assert "1 of 1 key was refused" in said(site.enrol(alice.public(ALICE), BOB))
