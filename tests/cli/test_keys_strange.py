"""Files that are none, where an owner's keys should be: nothing waits for them, and other owners are done."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.notify import reminders
from tests.support.filtered import MESSAGE, fingerprint_of
from tests.support.server import ALICE, run
from tests.support.site import BOB, NOBODY, Site, said

_SECONDS = 20  # much less than any limit of ours, and much more than it takes


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listener(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = os.open(path.parent, os.O_PATH)
        one.bind(f"/proc/self/fd/{here}/{path.name}")  # its name may be longer than a socket's address
        os.close(here)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


def directory(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


KINDS = [pipe, listener, device, terminal, directory, huge]

PLACES = [
    ".cryptomail/pubring.kbx.cryptomail",
    ".cryptomail/pubring.kbx",
    ".cryptomail",
    ".cryptomail/pubring.gpg",
    ".cryptomail/trustdb.gpg",
    ".cryptomail/common.conf",
    ".cryptomail/public-keys.d",
    ".cryptomail/public-keys.d/pubring.db",
    f".cryptomail/{reminders.FILE}",
    ".gnupg",
    ".gnupg/pubring.kbx",
]


def put(site: Site, place: str, kind: Callable[[Path], None]) -> None:
    """Put that there, in Alice's home, as the system user whose that is."""
    path = site.home(ALICE) / place
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.exists() and not path.is_dir():
        path.unlink()
    if kind is not directory or not path.is_dir():
        kind(path)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-hR", f"{NOBODY}:{NOBODY}", site.home(ALICE)], check=True)


@pytest.mark.parametrize(
    ("place", "kind"),
    [*((place, pipe) for place in PLACES), *((place, kind) for place in PLACES[:2] for kind in KINDS[1:])],
)
def test_what_is_no_file_is_waited_for_by_nobody(
    place: str,
    kind: Callable[[Path], None],
    site: Site,
    alice: Owner,
    bob: Owner,
) -> None:
    if place not in (".cryptomail", ".cryptomail/public-keys.d", ".cryptomail/pubring.kbx.cryptomail"):
        site.enrol(alice.public(ALICE))
    put(site, place, kind)
    both = alice.public(ALICE) + bob.public(BOB)
    since = time.monotonic()
    done = site.keys("import", "--all", "-", data=both)
    assert f"{BOB}\timported\t{fingerprint_of(bob)}" in done.stdout.decode()
    assert b"KEYS " in site.keys("check", "--all").stdout
    done = site.keys("export", "--all", "--wkd", str(site.directory / "wkd"))
    assert b"internal error" not in done.stderr
    said(site.keys("remove", "--user", ALICE, fingerprint_of(alice)))
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    delivered = run("filter", data=MESSAGE, environment=environment, config=site.config)
    assert delivered.returncode in (0, 75)
    assert time.monotonic() - since < _SECONDS


@pytest.mark.parametrize("place", [".cryptomail", ".cryptomail/pubring.kbx"])
@pytest.mark.parametrize("kind", [pipe, listener, device, terminal])
def test_delivery_does_not_take_it_for_an_owner_without_a_key(
    place: str,
    kind: Callable[[Path], None],
    site: Site,
) -> None:
    path = site.home(ALICE) / place
    path.parent.mkdir(exist_ok=True)
    kind(path)
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", data=MESSAGE, environment=environment, config=site.config)
    assert (done.returncode, done.stdout) == (75, b"")
    assert f"{path} is not a file" in said(done)


def test_folder_of_keys_with_a_pipe_in_it_is_read_all_the_same(
    site: Site,
    alice: Owner,
    tmp_path: Path,
) -> None:
    (tmp_path / f"{ALICE}.asc").write_bytes(alice.public(ALICE))
    os.mkfifo(tmp_path / f"{BOB}.asc")
    done = site.keys("import", "--all", str(tmp_path))
    assert f"{ALICE}\timported\t{fingerprint_of(alice)}" in done.stdout.decode()
    assert f"{BOB}.asc is not a file" in done.stdout.decode()


def test_key_from_a_pipe_that_was_named_is_imported(site: Site, alice: Owner, tmp_path: Path) -> None:
    """As bash makes them for `<(gpg --export)`."""
    os.mkfifo(tmp_path / "pipe")
    writer = os.fork()
    if writer == 0:
        (tmp_path / "pipe").write_bytes(alice.public(ALICE))
        os._exit(0)
    assert site.keys("import", "--user", ALICE, str(tmp_path / "pipe")).returncode == 0
    os.waitpid(writer, 0)
