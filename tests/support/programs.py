"""Other people's programs that tests use."""

import shutil

import pytest

_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"  # an ordinary user's PATH leaves out where Debian has servers


def require(name: str) -> str:
    """The path of a program. Where it is missing, the test fails and says what to do."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        pytest.fail(f"{name} is missing: make packages")
    return found
