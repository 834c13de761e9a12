"""What all tests share."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import keys
from sieve_filter.cli.main import main
from tests.faults.table import pytest_terminal_summary
from tests.support.register import installed, notes
from tests.support.server import ALICE, Command, Outbox, Server
from tests.support.site import bob, key_file, site

__all__ = ["bob", "installed", "key_file", "notes", "pytest_terminal_summary", "site"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep tests that share labs in one process, and other tests of one module, so that each lab is started once.

    (`--dist loadgroup` is made for this, but pytest-xdist 3.8 with pytest 9.2 puts the tests of a group anywhere.)
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    scheduling: object = LoadScopeScheduling(config, log)
    vars(scheduling)["_split_scope"] = _scope
    return scheduling


def _scope(nodeid: str) -> str:
    if fault := re.match(r"tests/faults/.*\[(dovecot\d+-[a-z]+)", nodeid):
        return f"faults {fault[1]}"
    module = nodeid.partition("::")[0]
    if dovecot := re.search(r"\[(?:.*-)?(dovecot\d+)", nodeid):
        # Two processes for each version, so that none has to do all alone: each starts the labs that it needs.
        return f"{dovecot[1]} {'before' if module < 'tests/e2e/test_k' else 'behind'}"
    return module


@pytest.fixture
def new_owner() -> Iterator[Callable[[], keys.Owner]]:
    """Makes owners of OpenPGP keys: throw-away GnuPG homes, which end with the test, gpg-agents included."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(keys.owner())


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """Where every user can leave messages, as they cannot in tmp_path."""
    with TemporaryDirectory(prefix="outbox-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Outbox(Path(directory, "mail"))


@pytest.fixture(scope="session")
def alice() -> Iterator[keys.Owner]:
    """Alice, with a key of hers."""
    with keys.owner() as owner:
        owner.make_key(ALICE)
        yield owner


@pytest.fixture(scope="session")
def mallory() -> Iterator[keys.Owner]:
    """Somebody whose address ends like Alice's."""
    with keys.owner() as owner:
        owner.make_key("m" + ALICE)
        yield owner


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """A server that knows nobody's key yet: no Dovecot, but the files that a delivery finds."""
    return Server(tmp_path)


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """The command, run in this process: for what needs no environment, no standard input and nobody's rights."""

    def call(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        code = main("/nonexistent", sendmail_path="", argv=arguments)
        return subprocess.CompletedProcess(arguments, code, *capfdbinary.readouterr())

    return call


@pytest.fixture
def enrolled(server: Server, alice: keys.Owner) -> Server:
    """A server that has Alice's public key."""
    server.give(alice.public(ALICE))
    return server
