"""A large message is held where all of it has to be looked at, and only then."""

import base64
import os
import quopri
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter.delivery.incoming import look, receive
from sieve_filter.detection.classify import classify, may_be_encrypted
from sieve_filter.limits import SMALL_OCTETS
from sieve_filter.mail.message import split
from tests.support.encrypted import BASE64, ENCRYPTED, QUOTED
from tests.support.messages import any_message
from tests.support.samples import Smime, multipart, part, smime

__all__ = ["smime"]


@pytest.mark.parametrize("name", ENCRYPTED)
def test_no_cut_makes_an_encrypted_message_look_plain(name: str) -> None:
    raw = ENCRYPTED[name]
    assert classify(split(raw)).encrypted
    assert [cut for cut in range(len(raw) + 1) if not may_be_encrypted(split(raw[:cut]))] == []


@pytest.mark.parametrize("kind", [b"application/pkcs7-mime", b"application/x-pkcs7-mime; smime-type=enveloped-data"])
def test_no_cut_makes_an_s_mime_message_look_plain(kind: bytes, smime: Smime) -> None:
    raw = part(kind, base64.encodebytes(smime.encrypted()), BASE64)
    assert classify(split(raw)).encrypted
    assert all(may_be_encrypted(split(raw[:cut])) for cut in range(len(raw) + 1))


@settings(max_examples=300)
@given(any_message | st.sampled_from(list(ENCRYPTED.values())), st.integers(0, 5_000), st.binary(max_size=5))
def test_a_no_is_never_taken_back(raw: bytes, cut: int, change: bytes) -> None:
    changed = raw[:cut] + change + raw[cut:]
    if classify(split(changed)).encrypted:
        assert all(may_be_encrypted(split(changed[:length])) for length in range(0, len(changed), 7))


TEXT = "Grüße, meet me at noon — as ever. \r\n".encode()
MUCH = TEXT * 60_000
PICTURE = base64.encodebytes(b"\xff\xd8\xff\xe0" + os.urandom(2_000_000)).replace(b"\n", b"\r\n")
LARGE = {
    "attachment": multipart(
        b"multipart/mixed", part(b"text/plain", TEXT), part(b"image/jpeg; name=a.jpg", PICTURE, BASE64)
    ),
    "attachment first": multipart(
        b"multipart/mixed", part(b"image/jpeg; name=a.jpg", PICTURE, BASE64), part(b"text/plain", TEXT)
    ),
    "no text, attachment": multipart(
        b"multipart/mixed", part(b"text/plain", b""), part(b"image/jpeg; name=a.jpg", PICTURE, BASE64)
    ),
    "nested": multipart(
        b"multipart/mixed",
        part(b"multipart/alternative; boundary=b", b"--b\n\n" + TEXT + b"--b--\n"),
        part(b"image/jpeg", PICTURE, BASE64),
    ),
    "alternatives": multipart(b"multipart/alternative", part(b"text/plain", MUCH), part(b"text/html", MUCH)),
    "related": multipart(b"multipart/related", part(b"text/html", TEXT), part(b"image/png", PICTURE, BASE64)),
    "signed": multipart(b"multipart/signed", part(b"text/plain", MUCH), part(b"application/pgp-signature", TEXT)),
    "report": multipart(b"multipart/report", part(b"text/plain", TEXT), part(b"message/rfc822", MUCH)),
    "8-bit text": part(b"text/plain; charset=utf-8", MUCH, b"Content-Transfer-Encoding: 8bit"),
    "base64 text": part(b"text/plain; charset=utf-8", base64.encodebytes(MUCH), BASE64),
    "quoted-printable text": part(b"text/plain; charset=utf-8", quopri.encodestring(MUCH), QUOTED),
    "HTML": part(b"text/html", MUCH),
    "no type": b"Subject: s\r\n\r\n" + MUCH,
    "no header": b"\r\n" + MUCH,
    "document": part(b"application/pdf", PICTURE, BASE64),
}


@pytest.mark.parametrize("name", LARGE)
def test_ordinary_large_mail_is_known_by_its_beginning(name: str) -> None:
    beginning = split(LARGE[name][:SMALL_OCTETS])
    assert len(beginning.raw) == SMALL_OCTETS
    assert not may_be_encrypted(beginning)


def pieces(raw: bytes, size: int = 65_536) -> Iterator[bytes]:
    return (raw[start : start + size] for start in range(0, len(raw), size))


@pytest.mark.parametrize("name", LARGE)
def test_little_is_held_of_a_large_message_and_all_of_it_comes(name: str) -> None:
    incoming = receive(pieces(LARGE[name]), 100_000)
    assert not incoming.whole
    assert 100_000 < len(incoming.message.raw) <= 200_000
    assert b"".join(incoming.pieces) == LARGE[name]


class Held:
    """Holds what is written to it, and says how much of it there is."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)


def unexpected() -> Held:
    raise AssertionError


@pytest.mark.parametrize("name", LARGE)
def test_a_large_message_is_not_held_to_be_looked_at(name: str) -> None:
    kind, incoming = look(receive(pieces(LARGE[name]), 100_000), unexpected)
    assert not kind.encrypted
    assert b"".join(incoming.pieces) == LARGE[name]


@pytest.mark.parametrize("name", ENCRYPTED)
@pytest.mark.parametrize("size", [1, 7, 100, 65_536])
def test_all_of_a_large_message_that_may_be_encrypted_is_looked_at(name: str, size: int) -> None:
    for raw in (ENCRYPTED[name], ENCRYPTED[name] + b"This can be read.\n"):
        kind, incoming = look(receive(pieces(raw, size), 50), Held)
        assert kind.encrypted == classify(split(raw)).encrypted
        assert b"".join(incoming.pieces) == raw


@given(any_message, st.integers(1, 50), st.integers(0, 300))
def test_every_message_comes_out_as_it_went_in_when_it_was_looked_at(raw: bytes, size: int, small: int) -> None:
    kind, incoming = look(receive(pieces(raw, size), small), Held)
    assert kind.encrypted == classify(split(raw)).encrypted
    assert b"".join(incoming.pieces) == raw


def test_a_header_section_is_taken_in_however_long_it_is() -> None:
    raw = b"Subject: s\n" * 1_000 + b"\nHi!\n" * 10_000
    incoming = receive(pieces(raw, 100), 50)
    assert not incoming.whole
    assert incoming.message.fields == split(raw).fields
    assert len(incoming.message.raw) < 30_000


@given(any_message, st.integers(1, 50), st.integers(0, 300))
def test_every_message_comes_out_as_it_went_in(raw: bytes, size: int, small: int) -> None:
    incoming = receive(pieces(raw, size), small)
    assert incoming.whole or len(raw) > small
    assert b"".join(incoming.pieces) == raw


@given(any_message, st.integers(1, 50), st.integers(0, 300))
def test_header_section_is_never_cut_in_two(raw: bytes, size: int, small: int) -> None:
    """What follows is encrypted as it comes: a field in there would be lost to mail clients."""
    incoming = receive(pieces(raw, size), small)
    assert incoming.message.fields == split(raw).fields
    assert incoming.message.body_start == split(raw).body_start
