"""What all tests share."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from lab import keys
from tests.faults.table import pytest_terminal_summary

__all__ = ["new_owner", "pytest_terminal_summary", "pytest_xdist_make_scheduler"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Keep the tests of one Dovecot in one process, and other tests of one module, so that each lab is started once.

    (`--dist loadgroup` is made for this, but pytest-xdist 3.8 with pytest 9.2 puts the tests of a group anywhere.)
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    scheduling: object = LoadScopeScheduling(config, log)
    vars(scheduling)["_split_scope"] = _scope
    return scheduling


def _scope(nodeid: str) -> str:
    dovecot = re.search(r"\[(?:.*-)?(dovecot\d+)", nodeid)
    return dovecot[1] if dovecot else nodeid.partition("::")[0]


@pytest.fixture
def new_owner() -> Iterator[Callable[[], keys.Owner]]:
    """Makes owners of OpenPGP keys: throw-away GnuPG homes, which end with the test, gpg-agents included."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(keys.owner())
