"""Which certificates GnuPG cannot read, and what is read of them."""

import functools
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pysequoia import Profile, Tsk

from lab.keys import Owner
from sieve_filter.openpgp import newer
from sieve_filter.openpgp.packets import PUBLIC_SUBKEY, split
from tests.support.certificates import ALICE as PLAIN
from tests.support.certificates import FINGERPRINT, KEY, NAME, signature
from tests.support.newer import KINDS, NewerOwner
from tests.support.samples import packet
from tests.support.server import ALICE

made = functools.cache(NewerOwner)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_of_version_6_and_newer_algorithms_are_known(kind: str) -> None:
    assert newer.is_newer(made(kind).public)


def test_keys_that_gnupg_reads_are_left_to_it(alice: Owner) -> None:
    assert not newer.is_newer(alice.public(ALICE))
    assert not newer.is_newer(PLAIN)
    assert not newer.is_newer(bytes(Tsk.generate("<a@example.org>", profile=Profile.RFC4880).extract_certificate()))


def test_a_key_with_a_subkey_of_either_kind_is_left_to_gnupg(alice: Owner) -> None:
    """Its owner's program may not know the newer one."""
    packets = [one.raw for one in split(made("version 4, ML-KEM").public)]
    [subkey] = [one.body for one in split(made("version 4, ML-KEM").public) if one.body[5:6] == b"\x23"]
    assert packets
    assert not newer.is_newer(alice.public(ALICE) + packet(PUBLIC_SUBKEY, subkey))


def test_a_primary_key_that_gnupg_does_not_know_keeps_it_from_the_rest() -> None:
    """Ed25519 of RFC 9580 in a key of version 4."""
    primary = KEY[:5] + bytes([27]) + b"k" * 32
    assert newer.is_newer(packet(6, primary) + NAME + signature(FINGERPRINT))


def test_what_a_subkey_is_for_and_when_it_ends_is_what_its_newest_signature_says() -> None:
    owner = NewerOwner(seconds=100_000)
    primary, *subkeys = newer.read(owner.public)
    assert (primary.fingerprint, primary.encrypts) == (owner.fingerprint, False)
    [encrypting] = [one for one in subkeys if one.encrypts]
    assert encrypting.expires == encrypting.created + 100_000
    assert not encrypting.revoked
    assert [one.body for one in split(encrypting.alone) if one.tag == PUBLIC_SUBKEY]
    assert encrypting.alone.count(owner.public[:40]) == 1


def test_a_file_is_divided_into_what_gnupg_reads_and_the_rest(alice: Owner) -> None:
    older, new = alice.public(ALICE), made("version 6").public
    assert newer.divided(older + new + older) == (older + older, new)
    assert newer.divided(older) == (older, b"")
    assert newer.divided(new) == (b"", new)
    assert newer.divided(b"no certificates") == (b"no certificates", b"")
    assert newer.divided(older + new[:-1]) == (older + new[:-1], b"")


@given(st.binary(max_size=200), st.integers(0, 2_000), st.sampled_from(sorted(KINDS)))
def test_any_octets_can_be_read(octets: bytes, place: int, kind: str) -> None:
    public = made(kind).public
    for data in (octets, public[:place], public[:place] + octets + public[place + len(octets) :]):
        older, new = newer.divided(data)
        assert len(older) + len(new) == len(data)
        for one in (newer.is_newer, newer.read):
            with suppress(ValueError):
                one(data)
