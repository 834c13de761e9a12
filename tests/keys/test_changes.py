"""What the quarantine and a changed keyring leave behind, whatever happens to the command or to the machine."""

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.keys import Owner
from sieve_filter.gpg import temporary_home
from sieve_filter.keys import changes
from sieve_filter.openpgp import certificate
from sieve_filter.system import pool
from tests.support.filtered import fingerprint_of
from tests.support.server import ALICE
from tests.support.site import NOBODY, Site

MEMORY = Path("/dev/shm")


def ours() -> set[Path]:
    return set(MEMORY.glob("cryptomail-*"))


@pytest.fixture
def foreign() -> Iterator[list[Path]]:
    """What looks like ours there, and is not."""
    made = [MEMORY / "cryptomail-abcdefgh", MEMORY / "cryptomail-notes-of-mine", MEMORY / "cryptomail-link_to0"]
    made[0].mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(made[0], NOBODY, NOBODY)
    else:
        made[0].rmdir()
        made[0].touch()
    made[1].mkdir(mode=0o700)
    made[2].symlink_to("/etc")
    yield made
    for path in made:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def killed(site: Site, alice: Owner) -> None:
    """An import, killed with all its processes while gpg looks at a key."""
    started = site.for_everybody("started")
    path = site.another_gpg(f'case "$*" in *--import*) echo >> {started}; exec sleep 60;; esac; exec /usr/bin/gpg "$@"')
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
    command = [sys.executable, "-c", code, "keys", "import", "--home-template", site.template, "--user", ALICE, "-"]
    with subprocess.Popen(command, stdin=-1, env={"PATH": path}, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(alice.public(ALICE))
        process.stdin.close()
        while not started.read_bytes():
            time.sleep(0.05)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        for child in map(int, children):
            os.killpg(child, signal.SIGKILL)


def test_what_a_killed_import_left_in_memory_goes_with_the_next(
    site: Site,
    alice: Owner,
    foreign: list[Path],
) -> None:
    pool.stop_on_signals()
    before = ours()
    with temporary_home.made() as living:
        killed(site, alice)
        left = ours() - before - {living}
        assert left
        assert site.enrol(alice.public(ALICE)).returncode == 0
        assert not left & ours()
        assert living.exists()
    kept = foreign if os.geteuid() != 0 else foreign[1:]  # as root, what is another user's goes with that user's rights
    assert all(path.exists() for path in kept)
    assert Path("/etc/passwd").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_sweeping_follows_no_link_with_root_s_rights(site: Site, alice: Owner) -> None:
    roots = site.directory / "roots"
    roots.mkdir()
    (roots / "file").touch()
    trap = MEMORY / "cryptomail-trap0000"
    trap.mkdir(mode=0o700)
    (trap / "link").symlink_to(roots)
    for path in (trap / "link", trap):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    site.enrol(alice.public(ALICE))
    assert not trap.exists()
    assert (roots / "file").exists()


def test_power_failure_after_a_change_loses_nothing(alice: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new name, or one that is gone, is only on the disk once the directory is."""
    pool.stop_on_signals()
    steps: list[str] = []

    def noting(name: str) -> None:
        really: Callable[..., None] = getattr(os, name)

        def done(first: int | str, *arguments: object, **more: object) -> None:
            really(first, *arguments, **more)
            where = first if isinstance(first, int) else more.get("dir_fd", more.get("src_dir_fd"))
            if "keyring-" in str(Path(f"/proc/self/fd/{where}").readlink()):  # and not in a quarantine
                isdir = isinstance(first, int) and stat.S_ISDIR(os.fstat(first).st_mode)
                steps.append(f"{name} of the directory" if isdir else name)

        monkeypatch.setattr(os, name, done)

    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        certificates = certificate.read(alice.public(ALICE)).certificates
        order = changes.Order(ALICE, f"{directory}/k", certificates, frozenset({ALICE}), named=True)
        for name in ("fsync", "rename", "unlink"):
            noting(name)
        changes.enrol([order], 2048)
        assert steps == ["fsync", "rename", "fsync of the directory"]
        steps.clear()
        assert changes.remove(f"{directory}/k", fingerprint_of(alice)).left == 0
        assert steps == ["unlink", "fsync of the directory"]


@pytest.mark.parametrize("action", ["test", "export", "remove", "show"])
def test_command_that_stores_nothing_does_not_say_that_nothing_was_stored(
    action: str,
    site: Site,
    alice: Owner,
) -> None:
    """That is for who looks after a message."""
    site.enrol(alice.public(ALICE))
    file = site.home(ALICE) / ".cryptomail/pubring.kbx"
    file.write_bytes(b"damaged" + file.read_bytes()[7:])
    more = [fingerprint_of(alice)] if action == "remove" else []
    done = site.keys(action, "--user", ALICE, *more)
    assert done.returncode != 0 or action == "show"
    assert done.stderr or action == "show"
    assert b"stored" not in done.stderr
