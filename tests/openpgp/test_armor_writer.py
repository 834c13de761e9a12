"""Armor is written as RFC 9580 has it, around octets that come in pieces, with the libraries in C and without them."""

import base64
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import anycrc  # type: ignore[import-untyped]
import pybase64
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysequoia import Cert
from pysequoia import encrypt as encrypt_to

from sieve_filter.mail import base64_writer
from sieve_filter.openpgp import armor_writer, checksum
from sieve_filter.openpgp.armor import dearmor
from sieve_filter.openpgp.armor_writer import Writer
from tests.support.samples import Home, crc24, home

__all__ = ["home"]

OWN = (base64_writer._by_line, checksum._folded)
IN_C = (pybase64.encodebytes, anycrc.Model("CRC24-OPENPGP").calc)


@pytest.fixture(params=[OWN, IN_C], ids=["own", "in C"], autouse=True)
def tools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, calculate = request.param
    monkeypatch.setattr(base64_writer, "_lines", lines)
    monkeypatch.setattr(checksum, "_calculate", calculate)


def in_pieces(octets: bytes, cuts: "list[int] | range", eol: bytes = b"\n") -> bytes:
    places = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    text: list[bytes] = []
    writer = Writer(b"MESSAGE", eol, text.append)
    for start, end in pairwise(places):
        writer.feed(octets[start:end])
    writer.finish()
    return b"".join(text)


def plainly(octets: bytes) -> bytes:
    """The armor as the standard library writes it: lines of 76 characters, the checksum by RFC 9580's own algorithm."""
    last = base64.b64encode(crc24(octets))
    lines = base64.encodebytes(octets)
    return b"-----BEGIN PGP MESSAGE-----\n\n" + lines + b"=" + last + b"\n-----END PGP MESSAGE-----\n"


def test_libraries_in_c_are_taken() -> None:
    armor_writer.load()
    assert base64_writer._lines is pybase64.encodebytes
    assert "anycrc" in type(checksum._calculate.__self__).__module__  # type: ignore[attr-defined]


@given(st.binary(max_size=2_000), st.lists(st.integers(0, 2_000), max_size=20), st.sampled_from([b"\n", b"\r\n"]))
@settings(deadline=None)
def test_octets_in_pieces_that_are_cut_anywhere_give_the_same_armor(octets: bytes, cuts: list[int], eol: bytes) -> None:
    armored = in_pieces(octets, cuts, eol)
    assert armored == plainly(octets).replace(b"\n", eol)
    assert dearmor(armored) == octets


@pytest.mark.parametrize("size", [1, 56, 57, 58, 56_999, 57_000, 57_001, 65_536, 1_000_000])
def test_much_of_it_is_the_same_in_pieces_and_as_a_whole(size: int) -> None:
    octets = os.urandom(max(2_000, 3 * size + 1))
    armored = in_pieces(octets, range(size, len(octets), size))
    assert armored == armor_writer.armored(b"MESSAGE", octets)
    assert dearmor(armored) == octets


def test_gpg_opens_messages_of_every_length(home: Home, tmp_path: Path) -> None:
    """Without a checksum, gpg 2.2 would fail for each length that is a multiple of three."""
    if not home.gpg("--list-keys", "--with-colons", "--", "example.org").count(b"lengths@"):
        without_passphrase = ("--passphrase", "")  # it would take time for each message
        home.gpg(*without_passphrase, "--quick-generate-key", "lengths@example.org", "future-default", "default")
    certificate = Cert.from_bytes(home.gpg("--export", "lengths@example.org"))
    lengths = set()
    texts = {f"{size}": os.urandom(size) for size in range(3 * 57)}
    for name, text in texts.items():
        packets = encrypt_to(text, [certificate], armor=False)
        lengths.add(len(packets) % (3 * 57))
        (tmp_path / f"{name}.asc").write_bytes(in_pieces(packets, [], b"\r\n"))
    assert len(lengths) > 150
    home.gpg("--decrypt-files", *(f"{tmp_path}/{name}.asc" for name in texts))
    assert {name: (tmp_path / name).read_bytes() for name in texts} == texts


def test_much_takes_linear_time_and_no_memory() -> None:
    piece = os.urandom(65_536)
    written = 0

    def count(text: bytes) -> None:
        nonlocal written
        assert len(text) < 200_000
        written += len(text)

    writer = Writer(b"MESSAGE", b"\r\n", count)
    started = time.process_time()
    for _ in range(300):
        writer.feed(piece)
    writer.finish()
    assert time.process_time() - started < 4
    assert written > 300 * len(piece) * 4 // 3


def test_the_libraries_are_loaded_where_there_is_much_to_write() -> None:
    """Loading them takes longer than a small message does without."""
    code = (
        "import sys; from sieve_filter.openpgp.armor_writer import armored; armored(b'MESSAGE', bytes(10_000)); "
        "few = 'pybase64' in sys.modules; armored(b'MESSAGE', bytes(2_000_000)); print(few, 'pybase64' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"False True\n"
