"""The seeds of `make fuzz`, and whatever it once found: none of it breaks a promise."""

from pathlib import Path

import pytest

from tests.fuzz.properties import check
from tests.support.corpus import CORPUS


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_no_seed_breaks_a_promise(file: Path) -> None:
    check(file.read_bytes())
