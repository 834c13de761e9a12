"""Whose message it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.errors import UsageError
from sieve_filter.owners.owner import expand, identify

HOME = {"HOME": "/home/alice"}


@pytest.mark.parametrize(
    ("user", "recipient", "addresses"),
    [
        ("alice@example.org", "", {"alice@example.org"}),
        ("Alice@Example.org", "", {"alice@example.org"}),
        ("alice@example.org", "alice+lists@example.org", {"alice@example.org"}),
        ("alice@example.org", "alice@example.com", {"alice@example.org"}),
        ("alice@example.org", "bob@example.org", {"alice@example.org"}),
        ("alice", "alice+a+b@example.org", {"alice@example.org"}),
        ("alice", "ALICE@example.org", {"alice@example.org"}),
        ("alice", "bob@example.org", set()),
        ("alice", "malice@example.org", set()),
        ("alice", "alice", set()),
        ("+alice", "+alice+x@example.org", set()),
        ("alice", "", set()),
    ],
)
def test_addresses_are_those_of_the_user_and_of_nobody_else(user: str, recipient: str, addresses: set[str]) -> None:
    assert identify(HOME | {"USER": user, "RECIPIENT": recipient}, {}, "+").addresses == addresses


def test_delimiter_is_the_configured_one() -> None:
    environment = HOME | {"USER": "alice", "RECIPIENT": "alice-x@example.org"}
    assert identify(environment, {}, "-").addresses == {"alice@example.org"}
    assert identify(environment, {}, "+").addresses == set()
    assert identify(environment, {}, "").addresses == set()


def test_aliases_are_added() -> None:
    aliases = {"alice": ("Info@example.org",), "bob": ("bob@example.org",)}
    assert identify(HOME | {"USER": "alice"}, aliases, "+").addresses == {"info@example.org"}


def test_dovecots_variables_are_filled_in() -> None:
    owner = identify(HOME | {"USER": "alice@example.org"}, {}, "+")
    assert expand("%h/.keys", owner) == "/home/alice/.keys"
    assert expand("/keys/%d/%n/%u/100%%", owner) == "/keys/example.org/alice/alice@example.org/100%"


@pytest.mark.parametrize("user", ["..", "..@example.org", "alice@..", ".", "a/b"])
def test_user_that_leads_to_another_directory_is_refused(user: str) -> None:
    """`/keys/%d/%n` would lead out of /keys."""
    with pytest.raises(UsageError, match="must not be a path"):
        identify(HOME | {"USER": user}, {}, "+")


@given(st.dictionaries(st.sampled_from(["USER", "HOME", "RECIPIENT", "SENDER"]), st.text(max_size=30)))
def test_any_environment_is_understood_or_refused(environment: dict[str, str]) -> None:
    try:
        owner = identify(environment, {}, "+")
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert "/" not in owner.user
        assert ".." not in owner.home.split("/")
