"""Certificates, taken apart by their packets."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.openpgp.certificate import read
from sieve_filter.openpgp.packets import certificate_fingerprint
from tests.support.certificates import (
    ALICE,
    ATTRIBUTE,
    BINDING,
    FINGERPRINT,
    KEY,
    MINE,
    NAME,
    PRIMARY,
    PUBLIC_KEY,
    SECRET_KEY,
    SECRET_SUBKEY,
    SIGNATURE,
    SUB,
    TRUST,
    USER_ID,
    armored,
    signature,
)
from tests.support.samples import Home, home, old_packet, packet

__all__ = ["home"]


STRANGERS = signature("B" * 40)


@pytest.mark.parametrize(
    "data",
    [
        ALICE,
        armored(ALICE),
        armored(ALICE, checksum=b""),
        armored(ALICE, headers=b"Version: x\nComment: y\n"),
        armored(ALICE).replace(b"\n", b"\r\n"),
        b"Here is my key:\n" + armored(ALICE) + b"Regards\n",
    ],
)
def test_certificate_is_read_whatever_it_is_wrapped_in(data: bytes) -> None:
    reading = read(data)
    assert reading.problems == ()
    (one,) = reading.certificates
    assert one == (FINGERPRINT, ALICE, frozenset({"alice@example.org"}), "")


def test_gpg_and_we_agree_on_fingerprint_and_packets(home: Home) -> None:
    exported = home.gpg("--export-options", "export-minimal", "--export", "rsa@example.org")
    listing = home.gpg("--with-colons", "--list-keys", "rsa@example.org").decode()
    (one,) = read(exported).certificates
    assert f":{one.fingerprint}:" in listing
    assert one.packets == exported
    assert one.addresses == {"rsa@example.org"}


def test_many_certificates_are_read_in_their_order() -> None:
    other = packet(PUBLIC_KEY, KEY[:-1] + b"o") + packet(USER_ID, b"bob@example.org")
    both = (FINGERPRINT, certificate_fingerprint(other))
    for data in (ALICE + other, armored(ALICE + other), armored(ALICE) + armored(other)):
        assert tuple(one.fingerprint for one in read(data).certificates) == both


def test_what_is_not_the_owners_is_left_out() -> None:
    picture = packet(ATTRIBUTE, b"\x01") + MINE
    noise = packet(TRUST, b"\x00\x00")
    crowded = PRIMARY + NAME + STRANGERS + MINE + noise + STRANGERS + picture + SUB + BINDING + STRANGERS
    assert read(crowded).certificates[0].packets == ALICE


def test_signature_that_names_nobody_is_left_for_gpg_to_judge() -> None:
    nobodys = packet(SIGNATURE, bytes([4, 0x13, 22, 8, 0, 0, 0, 0]) + b"\x12\x34\x00\x08\xff")
    assert nobodys in read(PRIMARY + NAME + nobodys).certificates[0].packets


def test_fifty_thousand_strangers_signatures_cost_a_second_and_leave_nothing() -> None:
    crowd = signature("C" * 40, by_fingerprint=True) * 50_000
    started = time.monotonic()
    (one,) = read(PRIMARY + NAME + crowd + MINE + SUB + BINDING).certificates
    assert time.monotonic() - started < 5
    assert one.packets == ALICE


@pytest.mark.parametrize(
    "data",
    [
        packet(SECRET_KEY, KEY + b"\x00secret") + NAME + MINE,
        old_packet(SECRET_KEY, KEY + b"\x00secret"),
        ALICE + packet(SECRET_SUBKEY, KEY),
        armored(ALICE, b"PRIVATE KEY BLOCK"),
        armored(ALICE) + armored(b"", b"PRIVATE KEY BLOCK"),
        armored(packet(SECRET_KEY, KEY)),
        b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n",
    ],
)
def test_secret_key_is_noticed_and_nothing_else_is_told(data: bytes) -> None:
    assert read(data) == ((), (), True)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no OpenPGP certificate"),
        (b"hello\n", "no OpenPGP certificate"),
        (ALICE[:-1], "cut short"),
        (b"\xff", "cut short"),
        (NAME, "does not begin with a public key"),
        (ALICE + packet(11, b"text"), "does not belong"),
        (ALICE + b"text", "there is no OpenPGP packet"),
        (bytes([0xC0 | PUBLIC_KEY, 0xE1]) + KEY, "divided"),
        (bytes([0x80 | PUBLIC_KEY << 2 | 3]) + KEY, "no length"),
        (armored(ALICE)[:-40], "cut short"),
        (armored(ALICE).replace(b"xv8A", b"xv8"), "damaged"),
        (armored(ALICE, b"MESSAGE"), "not a public key"),
    ],
)
def test_what_cannot_be_read_is_told(data: bytes, problem: str) -> None:
    reading = read(data)
    assert not reading.secret
    assert problem in " ".join(reading.problems)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (PRIMARY + SUB + BINDING, "no user ID"),
        (packet(PUBLIC_KEY, b"\x03" + KEY[1:]) + NAME, "version 3"),
        (packet(PUBLIC_KEY, b"") + NAME, "version 0"),
        (PRIMARY + NAME + MINE * limits.CERTIFICATE_PACKETS, "packets of its owner's"),
        (PRIMARY + packet(USER_ID, b"x" * limits.CERTIFICATE_OCTETS), "larger than"),
    ],
)
def test_certificate_that_cannot_serve_is_told_apart_from_those_that_can(data: bytes, problem: str) -> None:
    first, second = read(data + ALICE).certificates
    assert problem in first.problem
    assert first.packets == b""
    assert second.packets == ALICE


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: ALICE + tail))
def test_any_octets_can_be_read(data: bytes) -> None:
    for form in (data, armored(data)):
        for one in read(form).certificates:
            again = read(one.packets)
            assert one.problem or again == ((one,), (), False)


@given(st.data())
def test_damaged_certificate_is_never_an_error_of_the_program(data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(ALICE) - 1))
    octet = data.draw(st.integers(0, 255))
    read(ALICE[:place] + bytes([octet]) + ALICE[place + 1 :])
