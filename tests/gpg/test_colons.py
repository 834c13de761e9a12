"""GnuPG's listing: which keys are whose."""

import pytest

from sieve_filter.gpg.colons import parse
from tests.support.listings import listing


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("<a@example.org>", {"a@example.org"}),
        ("Alice <A@Example.Org>", {"a@example.org"}),
        ("a@example.org", {"a@example.org"}),
        ("a@example.org <malice@example.com>", {"malice@example.com"}),
        ("<a@example.org> <b@example.org>", set()),
        ("Alice a@example.org", set()),
        ("Alice", set()),
        ("\u00c5sa \u2028 <asa@example.org>", {"asa@example.org"}),
        ("A\\x3a B <a@example.org>", {"a@example.org"}),
        ("<a@example.org\\x3e <b@example.org>", set()),
    ],
)
def test_address_of_a_user_id_is_exact(name: str, addresses: set[str]) -> None:
    (key,) = parse(listing(name=name))
    assert key.addresses == addresses


def test_revoked_user_id_names_nobody_but_a_revoked_key_still_has_its_owner() -> None:
    assert parse(listing(user_id="r"))[0].addresses == set()
    assert parse(listing(primary="r", user_id="r"))[0].addresses == {"a@example.org"}


def test_empty_listing_has_no_keys() -> None:
    assert parse(b"") == []


def test_listing_that_begins_in_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="does not begin with a key"):
        parse(b"fpr:::::::::AAAA:\n")
