"""Which subkey of a key may be encrypted to, and why none."""

import pytest

from sieve_filter.gpg.colons import Subkey, parse
from sieve_filter.keys.usable import choose, last_good, short_life
from tests.support.listings import NEWER, SUBKEY, listing, sub

NOW = 1_800_000_000


def test_newest_usable_subkey_is_chosen_as_gpg_does() -> None:
    subs = sub(NEWER, created=1700000000) + sub(SUBKEY)
    (key,) = parse(listing(subs=subs))
    chosen = choose(key, 2048, NOW)
    assert not isinstance(chosen, str)
    assert chosen.fingerprint == NEWER


def test_bad_newer_subkey_gives_way_to_a_good_older_one() -> None:
    (key,) = parse(listing(subs=sub(NEWER, created=1700000000, state="r") + sub(SUBKEY)))
    chosen = choose(key, 2048, NOW)
    assert not isinstance(chosen, str)
    assert chosen.fingerprint == SUBKEY


@pytest.mark.parametrize(
    ("colons", "reason"),
    [
        (listing(primary="e", subs=sub(SUBKEY)), "expired"),
        (listing(primary="r", subs=sub(SUBKEY)), "was revoked"),
        (listing(primary="i", subs=sub(SUBKEY)), "is invalid"),
        (listing(capabilities="scESCD", subs=sub(SUBKEY)), "is disabled"),
        (listing(), "cannot encrypt"),
        (listing(subs=sub(SUBKEY, state="e", expires="1609459200")), "expired on 2021-01-01"),
        (listing(subs=sub(SUBKEY, bits=1024)), "has 1024 bits"),
    ],
)
def test_reason_is_given_where_a_key_cannot_be_used(colons: bytes, reason: str) -> None:
    (key,) = parse(colons)
    chosen = choose(key, 2048, NOW)
    assert isinstance(chosen, str)
    assert reason in chosen


def test_key_that_expired_since_it_was_listed_is_not_used() -> None:
    (key,) = parse(listing(subs=sub(SUBKEY, expires=str(NOW))))
    assert not isinstance(choose(key, 2048, NOW - 1), str)
    assert "expired on 2027-01-15" in str(choose(key, 2048, NOW))


DAY = 86_400
PAST = NOW - 1_000 * DAY  # when something expired


def whole(*, primary: int | None, subkey: int | None) -> bytes:
    """A key whose primary key and encryption subkey expire then."""
    state = "e" if primary is not None and primary <= NOW else "u"
    text = listing(primary=state, subs=sub(SUBKEY, state=state, expires=str(subkey or "")))
    return text.replace(b":1600000000:::u:", b":1600000000:%s::u:" % str(primary or "").encode())


@pytest.mark.parametrize(
    ("primary", "subkey", "moment"),
    [
        (PAST, PAST, PAST - 1),
        (PAST, None, PAST - 1),
        (PAST, PAST + 5, PAST - 1),
        (PAST, PAST - 5, PAST - 6),  # a program set one after the other
        (PAST, PAST - 90 * DAY, None),  # when the key expired, it had no encryption subkey any more
        (None, PAST, None),
        (NOW + 5, PAST, None),
        (NOW + 5, NOW - 5, None),
    ],
)
def test_only_a_key_that_expired_as_a_whole_was_good_to_the_end(
    primary: int | None, subkey: int | None, moment: int | None
) -> None:
    (key,) = parse(whole(primary=primary, subkey=subkey))
    assert isinstance(choose(key, 2048, NOW), str)
    assert last_good(key, NOW) == moment


@pytest.mark.parametrize(
    ("primary", "days", "short"),
    [
        (None, 90, 90),
        (NOW + 3_000 * DAY, 364, 364),
        (None, 365, None),
        (None, None, None),
        (1_600_000_000 + 90 * DAY, 90, None),  # it ends with its key
    ],
)
def test_subkey_that_its_owner_will_replace_soon_is_known_by_its_short_life(
    primary: int | None, days: int | None, short: int | None
) -> None:
    expires = None if days is None else 1_600_000_000 + days * DAY
    (key,) = parse(whole(primary=primary, subkey=expires))
    chosen = choose(key, 2048, 1_600_000_001)
    assert isinstance(chosen, Subkey)
    assert short_life(key, chosen) == short
