"""An installation that notes whose mail it encrypts."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sieve_filter.cli.main import main
from sieve_filter.owners import register
from tests.support.forked import forked
from tests.support.server import ALICE
from tests.support.site import Site, said

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def notes(site: Site) -> Path:
    """The register of that server."""
    directory = site.directory / "enrolled"
    directory.mkdir(mode=0o755)
    for user in {0, os.geteuid()}:
        register.make(str(directory), user, os.getegid())
    (directory / str(os.geteuid())).mkdir(exist_ok=True)
    return directory


@pytest.fixture
def installed(site: Site, notes: Path) -> Run:
    """Run the programs as they are installed: with the place of the register."""

    def run(*arguments: str, data: bytes = b"", user: str = ALICE) -> "subprocess.CompletedProcess[bytes]":
        def work() -> int:
            return main(str(site.config), sendmail_path="", register=str(notes), argv=arguments)

        environment = {"USER": user, "HOME": str(site.home(user)), "PATH": os.environ["PATH"]}
        return forked(work, arguments, data, environment)

    return run


def keys(installed: Run, site: Site, action: str, *arguments: str, data: bytes = b"") -> str:
    more = ("--no-notify",) if action == "import" else ()
    done = installed("keys", action, "--home-template", site.template, *more, *arguments, data=data)
    return f"{done.returncode} {said(done)}"
