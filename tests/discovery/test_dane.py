"""`cryptomail keys fetch --from dane`: OPENPGPKEY records in zones that are signed, are not, or are forged."""

from collections.abc import Callable, Iterator

import pytest

from lab.keys import Owner
from sieve_filter.discovery import answer
from tests.support.dnszones import Zones, zones
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.server import ALICE, Command
from tests.support.site import BOB, Site, said

__all__ = ["zones"]

CAROL, DAVE = "carol@unsigned.example", "dave@forged.example"


@pytest.fixture
def published_keys(
    zones: Zones, new_owner: Callable[[], Owner], alice: Owner, mallory: Owner, bob: Owner
) -> Iterator[Zones]:
    """Alice's key in a signed zone, Carol's in one that is not, Dave's in one where somebody exchanged it."""
    carol, dave = new_owner(), new_owner()
    carol.make_key(CAROL)
    dave.make_key(DAVE)
    mallory_as_bob = answer.dane_name(BOB)
    zones.add(
        "example.org", {answer.dane_name(ALICE): alice.public(ALICE), mallory_as_bob: mallory.public("m" + ALICE)}
    )
    zones.add("unsigned.example", {answer.dane_name(CAROL): carol.public(CAROL)}, signed=False)
    zones.add("forged.example", {answer.dane_name(DAVE): dave.public(DAVE)}, forged=mallory.public("m" + ALICE))
    with zones.served():
        yield zones


@pytest.fixture
def keys(published_keys: Zones, site: Site) -> Iterator[Command]:
    """Runs `cryptomail keys ACTION --from dane` where a validating resolver runs."""
    with published_keys.resolver() as resolver:
        yield lambda action, *arguments: site.keys(action, "--from", "dane", "--resolver", resolver, *arguments)


def test_key_in_a_signed_zone_is_set_up_and_anything_else_is_refused(
    keys: Command, site: Site, alice: Owner, mallory: Owner
) -> None:
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 0, done.stderr
    assert f"imported\t{fingerprint_of(alice)}" in said(done)
    assert decrypt(site.filter(), alice) == MESSAGE
    assert f"unchanged\t{fingerprint_of(alice)}" in said(keys("refresh", "--all"))

    site.make(CAROL, DAVE, "erin@example.org")
    for user, code, line in (
        (CAROL, 69, "is not validated by DNSSEC: the zone is not signed, or"),
        (DAVE, 69, "are bogus: the key is not used"),
        (BOB, 65, f"key {fingerprint_of(mallory)} in the answer is not for {BOB}: it has m{ALICE}"),
        ("erin@example.org", 65, "no key is published for erin@example.org"),
    ):
        done = keys("fetch", "--user", user)
        assert done.returncode == code, user
        assert line in said(done)
        assert site.stored(user) == []


def test_resolver_that_does_not_validate_is_not_believed(published_keys: Zones, site: Site) -> None:
    with published_keys.resolver(validating=False) as resolver:
        done = site.keys("fetch", "--from", "dane", "--resolver", resolver, "--user", ALICE)
    assert done.returncode == 69
    assert "is not validated by DNSSEC" in said(done)
    assert site.stored() == []
    done = site.keys("fetch", "--from", "dane", "--resolver", resolver, "--user", ALICE)
    assert done.returncode == 69
    assert "cannot ask the resolver 127.0.0.1" in said(done)


@pytest.mark.parametrize(
    ("resolver", "line"),
    [
        (("--resolver", "192.0.2.1"), "is not on this machine"),
        (("--resolver", "localhost"), "is not an address"),
        (("--resolver", "127.0.0.1:99999"), "is not on this machine"),
        ((), "--from dane needs --resolver"),
    ],
)
def test_resolver_must_be_on_this_machine(resolver: tuple[str, ...], line: str, command: Command) -> None:
    done = command("keys", "fetch", "--from", "dane", *resolver, "--user", ALICE)
    assert done.returncode == 64
    assert line in said(done)
