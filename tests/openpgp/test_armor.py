"""Armor comes off an OpenPGP message, whole or in pieces, and off nothing else."""

import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter.openpgp.armor import Content, content_start, dearmor
from sieve_filter.openpgp.encrypted import encrypted_message
from tests.support.samples import ARMORED, CIPHERTEXT, LITERAL, Home, armor, crc24, home

__all__ = ["home"]


@pytest.mark.parametrize(
    "armored",
    [
        ARMORED,
        armor(CIPHERTEXT, eol=b"\r\n"),
        armor(CIPHERTEXT, checksum=False),
        armor(CIPHERTEXT, b"Version: GnuPG v2", b"Comment: https://example.org/"),
        b"\r\n \t" + ARMORED + b"\n\n\n",
        ARMORED.replace(b"\n", b" \t\n"),
        ARMORED.replace(b"\n", b"\n\n", 3),
        armor(CIPHERTEXT, *[b"Comment: " + b"x" * 199] * 8),
    ],
    ids=["lf", "crlf", "no-checksum", "headers", "white-space-around", "trailing-space", "empty-lines", "most-headers"],
)
def test_armor_is_taken_off(armored: bytes) -> None:
    assert dearmor(armored) == CIPHERTEXT


BODY = ARMORED.split(b"\n\n", 1)[1]


@pytest.mark.parametrize(
    "armored",
    [
        pytest.param(b"Hello,\n" + ARMORED, id="text-above"),
        pytest.param(ARMORED + b"-- \nAlice\n", id="signature-below"),
        pytest.param(ARMORED + ARMORED, id="two"),
        pytest.param(b"> " + ARMORED.replace(b"\n", b"\n> "), id="quoted"),
        pytest.param(b"-----BEGIN PGP MESSAGE-----\n\nHi!\n-----END PGP MESSAGE-----\n", id="around-hi"),
        pytest.param(ARMORED.replace(b"\n\n", b"\nSecret: meet me at noon\n\n"), id="text-as-header"),
        pytest.param(ARMORED.replace(b"\n\n", b"\nMeet me at noon\n\n"), id="text-for-header"),
        pytest.param(ARMORED.replace(b"\n\n", b"\n\nMeet me at noon, please\n"), id="text-in-base64"),
        pytest.param(armor(CIPHERTEXT, *[b"Comment: x"] * 9), id="too-many-headers"),
        pytest.param(armor(CIPHERTEXT, b"Comment: " + b"x" * 300), id="header-too-long"),
        pytest.param(ARMORED.replace(b"\n\n", b"\n", 1), id="no-empty-line"),
        pytest.param(ARMORED.replace(b"MESSAGE", b"SIGNED MESSAGE"), id="signed"),
        pytest.param(ARMORED.replace(b"PGP MESSAGE", b"PGP PUBLIC KEY BLOCK"), id="key"),
        pytest.param(ARMORED.replace(b"END PGP MESSAGE", b"END PGP SIGNATURE"), id="ends-differ"),
        pytest.param(ARMORED[: len(ARMORED) // 2], id="cut"),
        pytest.param(ARMORED.replace(b"=" + BODY.split(b"=")[-1][:4], b"=AAAA"), id="wrong-checksum"),
        pytest.param(ARMORED.replace(b"\n-----END", b"-----END"), id="tail-not-on-its-own-line"),
    ],
)
def test_armor_around_or_beside_anything_else_is_refused(armored: bytes) -> None:
    assert dearmor(armored) is None


def test_armor_around_readable_packets_is_no_encryption() -> None:
    assert dearmor(armor(LITERAL)) == LITERAL
    assert encrypted_message(LITERAL) is None


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_the_standard(data: bytes) -> None:
    assert dearmor(armor(data)) == data
    wrong = bytes([crc24(data)[0] ^ 1]) + crc24(data)[1:]
    assert crc24(data) != wrong


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 2**21 + 100_000])
def test_the_checksum_of_megabytes_is_that_of_gnupg(home: Home, size: int) -> None:
    data = os.urandom(size)
    armored = home.gpg("--enarmor", data=data).replace(b"PGP ARMORED FILE", b"PGP MESSAGE")
    assert armored.count(b"\n=") == 1
    assert dearmor(armored) == data
    changed = data[:-1] + bytes([data[-1] ^ 1])
    wrong = home.gpg("--enarmor", data=changed).replace(b"PGP ARMORED FILE", b"PGP MESSAGE")
    checksum = armored[armored.rindex(b"\n=") :][:6]
    assert dearmor(wrong[: wrong.rindex(b"\n=")] + checksum + wrong[wrong.rindex(b"\n=") + 6 :]) is None


@settings(max_examples=300)
@given(st.integers(0, len(ARMORED) - 1), st.integers(1, 255))
def test_armor_with_a_changed_octet_is_refused_or_means_the_same(index: int, change: int) -> None:
    changed = bytearray(ARMORED)
    changed[index] ^= change
    assert dearmor(bytes(changed)) in (None, CIPHERTEXT)


def by_lines(data: bytes, *cuts: int) -> bytes | None:
    """What comes out of an armor whose content is cut before these lines."""
    start = content_start(data)
    if start is None:
        return None
    content = Content()
    octets = b""
    line_ends = [place for place in range(start, len(data)) if data[place] == ord("\n")]
    for end in sorted({line_ends[cut % len(line_ends)] for cut in cuts}):
        try:
            octets += content.feed(data[start:end])
        except ValueError:
            break
        start = end
    rest = content.finish(data[start:])
    return None if rest is None else octets + rest


CHANGES = st.sampled_from(
    [b"", b"\n", b" ", b"\t\r", b"\v", b"\f\n", b"=", b"==", b"=AAAA", b"\n=AAAA", b"A", b"AAAA", b"-"]
)


@settings(max_examples=1_000)
@given(
    st.binary(max_size=60),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2), CHANGES), max_size=3),
    st.lists(st.integers(0, 20), max_size=5),
)
def test_lines_may_come_one_after_the_other(
    data: bytes, eol: bytes, checksum: bool, changes: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    armored = armor(data, eol=eol, checksum=checksum)
    for place, count, change in changes:
        armored = armored[:place] + change + armored[place + count :]
    assert by_lines(armored, *cuts) == dearmor(armored)


@pytest.fixture(scope="module")
def written(home: Home) -> list[bytes]:
    """Armor as the real gpg writes it, of messages of many sizes."""
    return [
        home.gpg("--armor", "--encrypt", "-r", "elliptic@example.org", data=os.urandom(size))
        for size in (0, 1, 2, 3, 10, 46, 47, 48, 49, 1_000, 10_000)
    ]


def test_lines_may_be_many(written: list[bytes]) -> None:
    for armored in written:
        assert dearmor(armored) is not None
        assert by_lines(armored, *range(500)) == dearmor(armored)
        assert by_lines(armored.replace(b"\n", b"\r\n"), *range(0, 500, 3)) == dearmor(armored)


HEAD = b"-----BEGIN PGP MESSAGE-----\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(HEAD + b"Comment: x\n" * 100_000 + b"\n", id="1-mb-of-headers"),
        pytest.param(HEAD + b"Comment: " + b"x" * 1_000_000 + b"\n", id="1-mb-header"),
        pytest.param(HEAD + b"\r" * 5_000_000, id="cr"),
        pytest.param(HEAD + b" " * 5_000_000, id="spaces"),
        pytest.param(HEAD + b" \n" * 2_500_000, id="empty-lines"),
        pytest.param(HEAD * 200_000, id="heads"),
        pytest.param(b"-" * 5_000_000, id="dashes"),
        pytest.param(HEAD + b"\n" + b"=" * 5_000_000 + b"\n-----END PGP MESSAGE-----", id="equals"),
        pytest.param(HEAD + b"\n" + b"A" * 20_000_000 + b"\n=AAAA\n-----END PGP MESSAGE-----", id="20-mb"),
    ],
)
def test_armor_takes_linear_time(data: bytes) -> None:
    start = time.process_time()
    assert dearmor(data) is None
    assert time.process_time() - start < 2


@given(st.binary(max_size=400))
def test_no_octets_at_all_raise_an_error(data: bytes) -> None:
    dearmor(data)
    dearmor(b"-----BEGIN PGP MESSAGE-----\n\n" + data + b"\n-----END PGP MESSAGE-----")
