"""A mailbox owner whose public key lies on a server, whose secret key does not, and the command to run between."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import keys
from tests.support.register import installed, notes
from tests.support.server import ALICE, Outbox, Server
from tests.support.site import bob, key_file, site

__all__ = ["bob", "installed", "key_file", "notes", "site"]


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
    """A server that knows nobody's key yet."""
    return Server(tmp_path)


@pytest.fixture
def enrolled(server: Server, alice: keys.Owner) -> Server:
    """A server that has Alice's public key."""
    server.give(alice.public(ALICE))
    return server
