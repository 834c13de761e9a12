"""The labs in which things go wrong: they serve no other tests."""

from collections.abc import Iterator

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, new_person

__all__ = ["NewPerson", "lab", "new_person"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one lab's faults in a row: pytest sorts by each parameter, and would start a lab for every fault."""
    ours = [item for item in items if isinstance(item, pytest.Function) and item.path.name == "test_faults.py"]
    ours.sort(key=lambda item: item.callspec.id.split("-")[:2])
    items[:] = [item for item in items if item not in ours]
    items += ours


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    dovecot, mode = request.param
    with DOVECOTS[dovecot](mode) as running:
        yield running
