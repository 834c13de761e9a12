"""Where keys are published, and what of an answer is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.discovery import answer as published
from sieve_filter.discovery.lookup import Answer
from sieve_filter.discovery.refresh import plan
from sieve_filter.errors import RefusedKeyError
from sieve_filter.keys.outcome import Status
from tests.support.certificates import ALICE, FINGERPRINT


def test_urls_are_those_of_the_draft() -> None:
    # draft-koch-openpgp-webkey-service, section 3.1, has these examples.
    name = "hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q?l=Joe.Doe"
    assert published.wkd_place("Joe.Doe@Example.ORG") == (
        f"https://openpgpkey.example.org/.well-known/openpgpkey/example.org/{name}",
        f"https://example.org/.well-known/openpgpkey/{name}",
    )


def test_local_part_is_quoted_and_domain_is_ascii() -> None:
    place = published.wkd_place("a&b?#/é@bücher.example")
    assert place.direct.endswith("?l=a%26b%3F%23%2F%C3%A9")
    assert place.direct.startswith("https://xn--bcher-kva.example/")


def test_record_is_where_the_rfc_says_it_is() -> None:
    # RFC 7929 section 3 has this example.
    name = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._openpgpkey.example.com."
    assert published.dane_name("hugh@example.com") == name


@pytest.mark.parametrize(
    "address",
    ["", "@", "a@", "@b.c", "alice", "a@b", "a@b..c", "a@b/c.d", "a@b.c:80", "a@-b.c", "\udc80@b.c", "a@b.c."],
)
def test_what_is_no_address_is_not_looked_up(address: str) -> None:
    with pytest.raises(RefusedKeyError, match="is not an address whose key could be looked up"):
        published.wkd_place(address)
    with pytest.raises(RefusedKeyError):
        published.dane_name(address)


@given(st.text(), st.text())
def test_url_never_leaves_its_host(local: str, domain: str) -> None:
    try:
        place = published.wkd_place(f"{local}@{domain}")
    except RefusedKeyError:
        return
    assert all("!" <= char <= "~" for url in place for char in url)
    assert place.direct.count("/") == 6
    assert "@" not in place.direct


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda end: ALICE + end))
def test_answer_gives_keys_of_that_address_or_a_reason(data: bytes) -> None:
    found = published.judge(data, "alice@example.org")
    assert found.certificates or found.problems
    assert all("alice@example.org" in one.addresses for one in found.certificates)


def test_only_the_exact_address_will_do() -> None:
    assert published.judge(ALICE, "Alice@example.org").certificates
    assert not published.judge(ALICE, "lice@example.org").certificates


def test_nothing_changes_where_nothing_is_known() -> None:
    enrolled = frozenset({FINGERPRINT})
    for answer, status in (
        (Answer("alice@example.org", None, "no answer"), Status.FAILED),
        (Answer("alice@example.org", None, ""), Status.KEPT),
    ):
        for replace in (False, True):
            made = plan("alice", enrolled, answer, replace)
            assert (made.take, made.drop) == ((), ())
            assert [one.status for one in made.outcomes] == [status]


def test_key_goes_only_when_another_is_published_and_that_is_wanted() -> None:
    answer = Answer("alice@example.org", ALICE, "")
    other = frozenset({"B" * 40})
    assert plan("alice", other, answer, replace=False).drop == ()
    assert plan("alice", other, answer, replace=False).take == ()
    assert plan("alice", other, answer, replace=True).drop == ("B" * 40,)
    assert plan("alice", frozenset({FINGERPRINT}), answer, replace=True).drop == ()
