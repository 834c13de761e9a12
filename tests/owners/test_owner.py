"""Whose message it is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.errors import UsageError
from sieve_filter.owners.owner import expand, identify

HOME = {"HOME": "/home/alice"}


@pytest.mark.parametrize(
    ("user", "theirs", "others"),
    [
        ("alice@example.org", ["alice@example.org"], ["alice@example.com", "alice", "bob@example.org"]),
        ("Alice@Example.org", ["alice@example.org"], []),
        (
            "alice",
            ["alice@example.org", "alice@example.com"],
            ["alice", "malice@example.org", "@alice", "alice.example"],
        ),
        ("Alice", ["alice@example.org"], ["alice@example.org@example.org"]),
    ],
)
@pytest.mark.parametrize("recipient", ["", "bob@example.org", "alice@example.org"])
def test_addresses_are_those_of_the_user_and_of_nobody_else_whoever_the_recipient_is(
    user: str, theirs: list[str], others: list[str], recipient: str
) -> None:
    owner = identify(HOME | {"USER": user, "RECIPIENT": recipient}, {})
    assert [one for one in theirs + others if owner.has(one)] == theirs


def test_aliases_are_added() -> None:
    aliases = {"alice": ("Info@example.org",), "bob": ("bob@example.org",)}
    assert identify(HOME | {"USER": "alice"}, aliases).addresses == {"info@example.org"}


def test_dovecots_variables_are_filled_in() -> None:
    owner = identify(HOME | {"USER": "alice@example.org"}, {})
    assert expand("%h/.keys", owner) == "/home/alice/.keys"
    assert expand("/keys/%d/%n/%u/100%%", owner) == "/keys/example.org/alice/alice@example.org/100%"


@pytest.mark.parametrize("user", ["..", "..@example.org", "alice@..", ".", "a/b"])
def test_user_that_leads_to_another_directory_is_refused(user: str) -> None:
    """`/keys/%d/%n` would lead out of /keys."""
    with pytest.raises(UsageError, match="must not be a path"):
        identify(HOME | {"USER": user}, {})


@given(st.dictionaries(st.sampled_from(["USER", "HOME", "RECIPIENT", "SENDER"]), st.text(max_size=30)))
def test_any_environment_is_understood_or_refused(environment: dict[str, str]) -> None:
    try:
        owner = identify(environment, {})
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert "/" not in owner.user
        assert ".." not in owner.home.split("/")
