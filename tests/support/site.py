"""A mail server with homes, and `cryptomail keys` run on it."""

import os
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import keys
from lab.keys import Owner
from sieve_filter.openpgp import wkd
from tests.support.filtered import MESSAGE
from tests.support.server import ALICE, run

BOB = "bob@example.org"
NOBODY = 65534


class Site:
    """A mail server with homes under one template, and `cryptomail keys` run on it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.template = f"{directory}/mail/%d/%n"
        self.config = directory / "config.toml"

    def home(self, user: str) -> Path:
        local, _, domain = user.partition("@")
        return self.directory / "mail" / domain / local

    def make(self, *users: str) -> None:
        for user in users:
            self.home(user).mkdir(parents=True)

    def keys(
        self, action: str, *arguments: str, data: bytes = b"", path: str = os.environ["PATH"]
    ) -> "subprocess.CompletedProcess[bytes]":
        more = ["--home-template", self.template]
        if action == "import" and "--sendmail" not in arguments:
            more.append("--no-notify")
        return run("keys", action, *more, *arguments, data=data, environment={"PATH": path}, config=self.config)

    def another_gpg(self, script: str) -> str:
        """A PATH on which gpg is that shell script, for every user."""
        program = self.directory / "bin/gpg"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f"{program.parent}:/usr/bin:/bin"

    def for_everybody(self, name: str) -> Path:
        """An empty file that every user may write to."""
        file = self.directory / name
        file.touch()
        file.chmod(0o666)
        return file

    def enrol(self, data: bytes, user: str = ALICE, *options: str) -> "subprocess.CompletedProcess[bytes]":
        return self.keys("import", "--user", user, *options, "-", data=data)

    def filter(self, user: str = ALICE) -> bytes:
        environment = {"USER": user, "HOME": str(self.home(user))}
        done = run("filter", data=MESSAGE, environment=environment, config=self.config)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stored(self, user: str = ALICE) -> list[str]:
        """The fingerprints in that user's keyring, as gpg lists them."""
        keyring = self.home(user) / ".cryptomail"
        if not keyring.exists():
            return []
        command = ["gpg", "--homedir", str(keyring), "--batch", "--lock-never", "--with-colons", "--list-keys"]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.decode().splitlines()
        records = [line.split(":") for line in lines]
        return [b[9] for a, b in pairwise(records) if (a[0], b[0]) == ("pub", "fpr")]


@pytest.fixture
def site() -> Iterator[Site]:
    """A server where Alice and Bob have homes and nobody has a key; users can reach it, as they cannot tmp_path."""
    with TemporaryDirectory(prefix="site-", dir="/tmp") as directory:
        Path(directory).chmod(0o711)
        made = Site(Path(directory))
        made.make(ALICE, BOB)
        yield made


@pytest.fixture(scope="module")
def bob() -> Iterator[Owner]:
    with keys.owner() as owner:
        owner.make_key(BOB)
        yield owner


def said(done: "subprocess.CompletedProcess[bytes]") -> str:
    """What it wrote, which is never a traceback and never more than one line of error."""
    error = done.stderr.decode()
    assert "Traceback" not in error
    assert error.count("\n") <= 1, error
    return done.stdout.decode() + error


def made(owner: Owner, *arguments: str) -> bytes:
    owner.gpg("--quick-gen-key", f"<{ALICE}>", *arguments)
    return owner.public(ALICE)


def revoked(owner: Owner) -> bytes:
    owner.revoke(owner.make_key(ALICE))
    return owner.public(ALICE)


def expired(owner: Owner) -> bytes:
    owner.make_key(ALICE, made_at="20200101T000000", expires="2020-06-01")
    return owner.public(ALICE)


@pytest.fixture
def key_file(site: Site) -> Path:
    """Where Alice's keys are, on a server that keeps them in a Web Key Directory."""
    template = f"{site.directory}/openpgpkey/%d/hu/%w"
    site.config.write_text(f'[keyrings]\nowner = ["{template}"]\n')
    file = Path(template.replace("%d", "example.org").replace("%w", wkd.key_name("alice")))
    file.parent.mkdir(parents=True)
    return file


def doveadm(directory: Path, script: str) -> dict[str, str]:
    """An environment with a `doveadm` that is this script."""
    program = directory / "bin/doveadm"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:/usr/bin:/bin"}


def answer(site: Site, user: str) -> str:
    """What a shell writes as doveadm does, about a user."""
    return f'printf "%s\\t%s\\n" field value uid 5000 gid 5000 home {site.home(user)}'
