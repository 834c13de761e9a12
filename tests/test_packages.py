"""What installs Debian packages for the demo and for tests: it says so, it asks, and it has Debian start no server."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.server import REPOSITORY

SCRIPT = REPOSITORY / "lab/packages.sh"
# Programs that stand in for Debian's: none of the packages is there, and the machine stays as it is.
DEBIAN = {
    "dpkg-query": "case $1 in --listfiles) echo /etc/init.d/nsd ;; *) exit 1 ;; esac",
    "apt-get": 'echo apt-get "$@" >> log; /usr/sbin/policy-rc.d nsd start; echo "may start: $?" >> log; exit $FAILS',
    "update-rc.d": 'echo update-rc.d "$@" >> log',
    "sudo": 'echo sudo "$@" >> log',
}
INSTALL = "apt-get install --yes --no-install-recommends ca-certificates dovecot-core "


@pytest.fixture
def debian() -> Iterator[Path]:
    """Those programs, and the script, where every user can reach them."""
    with TemporaryDirectory(prefix="packages-", dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o777)
        for name, script in DEBIAN.items():
            program = place / name
            program.write_text(f"#!/bin/sh\ncd {place}\n{script}\n")
            program.chmod(0o755)
        for file in (SCRIPT, SCRIPT.with_name("packages.txt")):
            shutil.copy(file, place)
        yield place


def run(debian: Path, command: list[str], answer: str = "", fails: int = 0) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": f"{debian}:/usr/bin:/bin", "FAILS": str(fails)}
    return subprocess.run(command, input=answer, capture_output=True, text=True, env=environment, timeout=60)


def run_as_root(debian: Path, fails: int = 0) -> list[str]:
    """The script with an empty /usr/sbin. Returns lines with what it prints, its exit code, and what is left there."""
    inside = f"mount -t tmpfs none /usr/sbin && sh {debian}/packages.sh lab test; echo $?; ls -A /usr/sbin"
    return run(debian, ["unshare", "--mount", "sh", "-c", inside], fails=fails).stdout.splitlines()


def log(debian: Path) -> list[str]:
    """What was done, a line each."""
    file = debian / "log"
    return file.read_text().splitlines() if file.exists() else []


def test_where_all_is_there_nothing_is_said_or_done() -> None:
    done = subprocess.run(["sh", SCRIPT, "lab", "test"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put something in place of /usr/sbin")
def test_no_server_is_started_by_an_installation_or_at_boot(debian: Path) -> None:
    [says, servers, code] = run_as_root(debian)
    assert says.startswith("Installing Debian packages: ca-certificates dovecot-core ")
    assert servers == "Not started, now or at boot: nsd. This starts one: systemctl enable --now NAME"
    assert code == "0"
    [updates, _, installs, may_start, disables] = log(debian)
    assert updates.startswith("apt-get update")
    assert installs.startswith(INSTALL)
    assert (may_start, disables) == ("may start: 101", "update-rc.d nsd disable")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put something in place of /usr/sbin")
def test_after_an_installation_that_fails_servers_may_be_started_again(debian: Path) -> None:
    assert run_as_root(debian, fails=100)[1:] == ["100"]
    assert log(debian)[1] == "may start: 101"


@pytest.mark.parametrize(("answer", "code"), [("", 1), ("n\n", 1), ("y\n", 0)])
def test_who_is_not_root_is_asked(answer: str, code: int, debian: Path) -> None:
    command = ["sh", f"{debian}/packages.sh", "lab", "test"]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *command]
    done = run(debian, command, answer)
    assert done.returncode == code
    assert done.stdout.startswith("Debian packages are missing: ca-certificates dovecot-core ")
    assert "Install them with sudo? [y/N]" in done.stdout
    assert (f"As root: {INSTALL}" in done.stderr) == bool(code)
    assert log(debian) == ([] if code else ["sudo sh packages.sh lab test"])
