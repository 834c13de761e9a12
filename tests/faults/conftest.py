"""The labs in which things go wrong."""

from collections.abc import Iterator

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, OpenLab, new_person

__all__ = ["NewPerson", "lab", "mode", "new_person", "open_lab"]


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
