"""The labs in which things go wrong."""

from collections.abc import Iterator

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, OpenLab, new_person

__all__ = ["NewPerson", "lab", "mode", "new_person", "open_lab"]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one lab's faults in a row: pytest sorts by each parameter, and would start a lab for every fault."""
    ours = [item for item in items if isinstance(item, pytest.Function) and item.path.name == "test_faults.py"]
    ours.sort(key=lambda item: item.callspec.id.split("-")[:2])
    items[:] = [item for item in items if item not in ours]
    items += ours


@pytest.fixture(scope="session")
def open_lab(request: pytest.FixtureRequest) -> OpenLab:
    return DOVECOTS[request.param]


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def lab(open_lab: OpenLab, mode: str) -> Iterator[Lab]:
    with open_lab(mode) as running:
        yield running
