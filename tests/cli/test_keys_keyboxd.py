"""`cryptomail keys` for keyrings that GnuPG 2.4's keyboxd keeps, with the gpg of a Debian 13 tree."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import debian13
from lab.keys import Owner
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.server import ALICE, run
from tests.support.site import said

# Inside the tree a path has another beginning.
GPG = """\
#!/bin/sh
for argument; do shift; set -- "$@" "${{argument#{tree}}}"; done
exec chroot {tree} /usr/bin/gpg "$@"
"""


class Boxed:
    """Alice's home in the tree, whose keyring keyboxd keeps, and the command run with the tree's gpg."""

    def __init__(self, home: Path, programs: Path) -> None:
        self.home = home
        self.keyring = home / ".cryptomail"
        self.environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.keyring), "--batch", "--quiet", *arguments]
        return subprocess.run(command, input=data, env=self.environment, check=True, capture_output=True).stdout

    def keys(self, action: str, *arguments: str, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        named = ("--user", ALICE, "--home", str(self.home))
        return run("keys", action, *named, *arguments, data=data, environment=self.environment)


@pytest.fixture
def boxed(tmp_path: Path, alice: Owner) -> Iterator[Boxed]:
    debian13.build()
    (tmp_path / "gpg").write_text(GPG.format(tree=debian13.TREE))
    (tmp_path / "gpg").chmod(0o755)
    home = Path(tempfile.mkdtemp(dir=debian13.TREE / "tmp"))
    made = Boxed(home, tmp_path)
    made.keyring.mkdir(mode=0o700)
    (made.keyring / "common.conf").write_text("use-keyboxd\n")
    inside = f"/tmp/{home.name}/.cryptomail"
    kill = ["chroot", str(debian13.TREE), "gpgconf", "--homedir", inside, "--kill", "all"]
    try:
        made.gpg("--import", data=alice.public(ALICE))
        subprocess.run(kill, check=True, capture_output=True)  # as it is after the server was started
        assert (made.keyring / "public-keys.d/pubring.db").stat().st_size > 0
        yield made
    finally:
        subprocess.run(kill, check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def test_keys_are_listed_checked_tried_and_exported(boxed: Boxed, alice: Owner) -> None:
    listed = boxed.keys("list")
    assert listed.returncode == 0
    assert said(listed).split("\t")[1] == fingerprint_of(alice)
    (state,) = json.loads(boxed.keys("show", "--json").stdout)
    assert (state["state"], state["home"], len(state["keys"])) == ("OK", str(boxed.keyring), 1)
    checked = boxed.keys("check")
    assert checked.returncode == 0
    assert said(checked).startswith("KEYS OK")
    assert f"is encrypted, to {state['keys'][0]['used']}" in said(boxed.keys("test"))
    exported = boxed.keys("export")
    assert exported.returncode == 0
    assert fingerprint_of(alice).encode() in alice.gpg("--with-colons", "--show-keys", data=exported.stdout)


def test_deliveries_encrypt_to_them(boxed: Boxed, alice: Owner) -> None:
    environment = boxed.environment | {"USER": ALICE, "HOME": str(boxed.home)}
    done = run("filter", data=MESSAGE, environment=environment)
    assert done.returncode == 0, done.stderr
    assert decrypt(done.stdout, alice) == MESSAGE


def test_database_that_others_may_write_to_is_a_warning(boxed: Boxed) -> None:
    path = boxed.keyring / "public-keys.d/pubring.db"
    path.chmod(0o666)
    done = boxed.keys("check")
    assert done.returncode == 1
    assert f"others may write to {path}" in said(done)


def test_it_is_not_changed(boxed: Boxed, alice: Owner, mallory: Owner) -> None:
    before = boxed.gpg("--with-colons", "--list-keys")
    assert os.fsencode(fingerprint_of(alice)) in before
    # In quarantine a key is in a home that the tree does not see: that is for the machine's own gpg.
    arguments = ("keys", "import", "--user", ALICE, "--home", str(boxed.home), "--no-notify", "--foreign", "-")
    done = run(*arguments, data=mallory.public("m" + ALICE), environment={"PATH": os.environ["PATH"]})
    assert done.returncode == 65
    assert "is kept by keyboxd, which cannot replace it in one step: use gpg itself" in said(done)
    done = boxed.keys("remove", fingerprint_of(alice))
    assert done.returncode == 73
    assert "is kept by keyboxd, which cannot replace it in one step: use gpg itself" in said(done)
    assert boxed.gpg("--with-colons", "--list-keys") == before
