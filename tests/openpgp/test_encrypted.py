"""An OpenPGP encrypted message is told from everything that only looks like one."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.openpgp.armor import dearmor
from sieve_filter.openpgp.encrypted import ANONYMOUS, EncryptedMessage, Walker, encrypted_message
from tests.support.samples import (
    CIPHERTEXT,
    KEY_ID,
    LITERAL,
    PKESK,
    SEIPD,
    Home,
    encryption_key_ids,
    home,
    mpi,
    old_packet,
    packet,
    partial_packet,
    pkesk,
)

__all__ = ["home"]

FINGERPRINT = "AB" * 32
SKESK_V4 = packet(3, b"\x04\x09\x03\x08" + b"salt-of8" + b"\x60")
SKESK_V5 = packet(3, b"\x05\x09\x02\x03\x08" + b"salt-of8" + b"\x60" + bytes(15 + 32 + 16))
SKESK_V6 = packet(3, b"\x06" + bytes([3 + 11 + 15]) + b"\x09\x02\x0b\x03\x08" + bytes(9) + bytes(15 + 32 + 16))
PKESK_V6 = packet(1, b"\x06\x21\x06" + bytes.fromhex(FINGERPRINT) + b"\x19" + bytes(32) + b"\x28" + bytes(40))
SEIPD_V2 = packet(18, b"\x02\x09\x02\x06" + bytes(32 + 40 + 32))
OCB = packet(20, b"\x01\x09\x02\x10" + bytes(15 + 40 + 32))
SED = packet(9, bytes(60))


def test_shows_recipients_and_container() -> None:
    assert encrypted_message(CIPHERTEXT) == EncryptedMessage((KEY_ID,), (3,), False, "SEIPD v1")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            PKESK + packet(1, pkesk(ANONYMOUS)) + SEIPD, ((KEY_ID, ANONYMOUS), (3, 3), False, "SEIPD v1"), id="two"
        ),
        pytest.param(SKESK_V4 + SEIPD, ((), (), True, "SEIPD v1"), id="passphrase"),
        pytest.param(PKESK + SKESK_V4 + SEIPD, ((KEY_ID,), (3,), True, "SEIPD v1"), id="key-and-passphrase"),
        pytest.param(PKESK + OCB, ((KEY_ID,), (3,), False, "AEAD v1"), id="gnupg-ocb"),
        pytest.param(SKESK_V5 + OCB, ((), (), True, "AEAD v1"), id="gnupg-ocb-passphrase"),
        pytest.param(PKESK + SED, ((KEY_ID,), (3,), False, "SED"), id="without-integrity-protection"),
        pytest.param(PKESK_V6 + SEIPD_V2, ((FINGERPRINT,), (6,), False, "SEIPD v2"), id="v6"),
        pytest.param(SKESK_V6 + SEIPD_V2, ((), (), True, "SEIPD v2"), id="v6-passphrase"),
        pytest.param(packet(10, b"PGP") + CIPHERTEXT, ((KEY_ID,), (3,), False, "SEIPD v1"), id="marker"),
        pytest.param(old_packet(1, pkesk()) + SEIPD, ((KEY_ID,), (3,), False, "SEIPD v1"), id="old-format"),
        pytest.param(
            PKESK + partial_packet(18, b"\x01" + bytes(511), bytes(1), bytes(3)),
            ((KEY_ID,), (3,), False, "SEIPD v1"),
            id="partial-lengths",
        ),
        pytest.param(
            b"\xc1\xc0\x51" + pkesk(material=mpi(261)) + SEIPD, ((KEY_ID,), (3,), False, "SEIPD v1"), id="2-octet"
        ),
        pytest.param(
            packet(1, pkesk(algorithm=16, material=mpi(256) * 2)) + SEIPD,
            ((KEY_ID,), (3,), False, "SEIPD v1"),
            id="elgamal",
        ),
        pytest.param(
            packet(1, pkesk(algorithm=18, material=b"\x01\x07\x40" + bytes(32) + b"\x30" + bytes(48))) + SEIPD,
            ((KEY_ID,), (3,), False, "SEIPD v1"),
            id="ecdh",
        ),
        pytest.param(
            packet(1, pkesk(algorithm=25, material=bytes(32) + b"\x29\x09" + bytes(40))) + SEIPD,
            ((KEY_ID,), (3,), False, "SEIPD v1"),
            id="x25519",
        ),
    ],
)
def test_every_form_of_ciphertext_is_recognised(data: bytes, expected: tuple[object, ...]) -> None:
    assert encrypted_message(data) == expected


def test_an_anonymous_version_6_recipient_is_shown_as_such() -> None:
    anonymous = packet(1, b"\x06\x00\x19" + bytes(32) + b"\x28" + bytes(40))
    message = encrypted_message(anonymous + SEIPD_V2)
    assert message is not None
    assert message.key_ids == (ANONYMOUS,)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Hi!", id="text"),
        pytest.param(LITERAL, id="literal"),
        pytest.param(packet(8, b"\x00" + LITERAL), id="compressed"),
        pytest.param(PKESK, id="session-key-only"),
        pytest.param(SEIPD, id="no-session-key"),
        pytest.param(PKESK + LITERAL, id="session-key-then-literal"),
        pytest.param(LITERAL + CIPHERTEXT, id="literal-first"),
        pytest.param(CIPHERTEXT + LITERAL, id="literal-behind"),
        pytest.param(CIPHERTEXT + b"\n", id="line-end-behind"),
        pytest.param(CIPHERTEXT + SEIPD, id="two-containers"),
        pytest.param(packet(21, b"x") + CIPHERTEXT, id="padding"),
        pytest.param(PKESK + packet(21, b"x") + SEIPD, id="padding-before-the-data"),
        pytest.param(CIPHERTEXT + packet(21, b"x"), id="padding-behind"),
        pytest.param(packet(10, b"Hi!") + CIPHERTEXT, id="marker-with-text"),
        pytest.param(PKESK + packet(18, b"\x01" + bytes(20)), id="container-too-short"),
        pytest.param(PKESK + packet(18, b"\x07" + bytes(80)), id="container-of-unknown-version"),
        pytest.param(PKESK + SEIPD_V2, id="versions-that-do-not-go-together"),
        pytest.param(PKESK_V6 + SEIPD, id="versions-that-do-not-go-together-either"),
        pytest.param(PKESK_V6 + packet(18, b"\x02\x09\x09\x06" + bytes(104)), id="unknown-aead"),
        pytest.param(PKESK_V6 + packet(18, b"\x02\x63\x02\x06" + bytes(104)), id="unknown-cipher"),
        pytest.param(PKESK_V6 + packet(18, b"\x02\x09\x02\x11" + bytes(104)), id="huge-aead-chunks"),
        pytest.param(packet(1, pkesk(version=2)) + SEIPD, id="session-key-of-unknown-version"),
        pytest.param(packet(1, pkesk(algorithm=17)) + SEIPD, id="algorithm-that-only-signs"),
        pytest.param(packet(1, pkesk() + b"x") + SEIPD, id="octets-behind-the-session-key"),
        pytest.param(packet(1, pkesk(material=b"\x00\x00")) + SEIPD, id="empty-number"),
        pytest.param(packet(1, pkesk(material=b"\x00\x01\xff")) + SEIPD, id="number-larger-than-its-bits"),
        pytest.param(packet(3, b"\x04\x63\x03\x08" + bytes(9)) + SEIPD, id="passphrase-unknown-cipher"),
        pytest.param(packet(3, b"\x04\x09\x02\x08" + bytes(9)) + SEIPD, id="passphrase-unknown-s2k"),
        pytest.param(packet(3, b"\x04\x09\x03\x08" + bytes(9) + b"Hi!") + SEIPD, id="passphrase-with-text"),
        pytest.param(SKESK_V6.replace(b"\x06\x1d", b"\x06\x1c") + SEIPD_V2, id="passphrase-wrong-count"),
        pytest.param(PKESK + partial_packet(18, b"\x01" + bytes(255), bytes(99)), id="first-chunk-too-short"),
        pytest.param(partial_packet(1, pkesk(material=mpi(500)), b"") + SEIPD, id="session-key-in-chunks"),
        pytest.param(b"\x87" + pkesk() + SEIPD, id="session-key-of-indeterminate-length"),
        pytest.param(PKESK + b"\xa7" + b"any text at all, for it has no end", id="data-of-indeterminate-length"),
        pytest.param(PKESK + b"\x52" + SEIPD[1:], id="header-octet-without-its-first-bit"),
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    assert encrypted_message(data) is None


def test_too_many_packets_are_not_looked_at() -> None:
    assert encrypted_message(PKESK * (limits.OPENPGP_PACKETS - 1) + SEIPD) is not None
    assert encrypted_message(PKESK * limits.OPENPGP_PACKETS + SEIPD) is None


@pytest.mark.parametrize("armored", [False, True])
@pytest.mark.parametrize("user_id", ["elliptic@example.org", "rsa@example.org"])
@pytest.mark.parametrize("size", [0, 10, 5_000, 100_000])
def test_what_gnupg_encrypts_is_recognised(home: Home, user_id: str, size: int, armored: bool) -> None:
    options = ["--armor"] if armored else []
    output = home.gpg(*options, "--encrypt", "-r", user_id, data=os.urandom(size))
    message = encrypted_message((dearmor(output) or b"") if armored else output)
    assert message is not None
    assert set(message.key_ids) == encryption_key_ids(home, user_id)
    assert (message.pkesk_versions, message.passphrase, message.container) == ((3,), False, "SEIPD v1")


def test_gnupg_with_hidden_recipients_and_passphrase_is_recognised(home: Home) -> None:
    hidden = encrypted_message(home.gpg("--throw-keyids", "-e", "-r", "rsa@example.org", data=b"x"))
    both = encrypted_message(home.gpg("-c", "-e", "-r", "rsa@example.org", data=b"x"))
    old = encrypted_message(home.gpg("--rfc2440", "--disable-mdc", "-e", "-r", "rsa@example.org", data=b"x"))
    assert hidden is not None
    assert hidden.key_ids == (ANONYMOUS,)
    assert both is not None
    assert both.passphrase
    assert len(both.key_ids) == 1
    assert old is not None
    assert len(old.key_ids) == 1


@pytest.mark.parametrize("options", [["--store"], ["--sign"], ["--clearsign"], ["--detach-sign"], ["--export"]])
@pytest.mark.parametrize("armored", [False, True])
def test_what_gnupg_does_not_encrypt_is_not(home: Home, options: list[str], armored: bool) -> None:
    output = home.gpg(*["--armor"] * armored, *options, data=b"Meet me at noon.\n")
    binary = dearmor(output) if armored else output
    assert binary is None or encrypted_message(binary) is None


@given(st.binary(max_size=400) | st.binary(max_size=100).map(lambda data: PKESK + data))
def test_no_octets_at_all_raise_an_error(data: bytes) -> None:
    encrypted_message(data)


@given(st.integers(0, len(CIPHERTEXT) - 1))
def test_a_cut_message_is_not_encrypted(length: int) -> None:
    assert encrypted_message(CIPHERTEXT[:length]) is None


@given(st.binary(min_size=1, max_size=50))
def test_a_message_with_something_behind_it_is_not_encrypted(tail: bytes) -> None:
    assert encrypted_message(CIPHERTEXT + tail) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PKESK * 70_000, id="session-keys"),
        pytest.param(packet(10, b"PGP") * 2_000_000, id="markers"),
        pytest.param(PKESK + partial_packet(18, b"\x01" + bytes(511), b"")[:-5] + b"\xe0x" * 10_000_000, id="chunks"),
    ],
)
def test_packets_take_linear_time(data: bytes) -> None:
    start = time.process_time()
    assert encrypted_message(data) is None
    assert time.process_time() - start < 3


@given(st.lists(st.integers(1, 400), max_size=20))
def test_message_may_come_in_pieces(sizes: list[int]) -> None:
    rest = PKESK + SKESK_V4 + partial_packet(18, b"\x01" + bytes(511), bytes(600))
    expected = encrypted_message(rest)
    assert expected is not None
    walker = Walker()
    for size in sizes:
        walker.feed(rest[:size])
        rest = rest[size:]
    walker.feed(rest)
    assert walker.finish() == expected
