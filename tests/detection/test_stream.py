"""What a large message is, is told while it goes by; never otherwise than of one that is there as a whole."""

import os
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter.detection.classify import Kind, Shape, classify
from sieve_filter.detection.stream import Skim
from sieve_filter.mail.message import split
from tests.support.encrypted import ENCRYPTED
from tests.support.samples import (
    ARMORED,
    CIPHERTEXT,
    CONTROL,
    KEY_ID,
    PKESK,
    Home,
    armor,
    home,
    multipart,
    noise,
    packet,
    part,
    pgp_mime,
)

__all__ = ["home"]

LARGE = PKESK + packet(18, b"\x01" + noise(300_000))
LONG = armor(LARGE)
TEXT = b"This can be read.\n"


def skimmed(raw: bytes, beginning: int, *cuts: int) -> Shape | None:
    """The verdict on a message that comes in pieces, cut at these places behind its beginning of that length.

    The beginning is longer where it must be to have the header section; no verdict where there is nothing more.
    """
    settled = (length for length in range(beginning, len(raw) + 1) if split(raw[:length]).settled)
    beginning = next(settled, -1)
    if beginning < 0:
        return None
    skim = Skim(split(raw[:beginning]))
    places = sorted(beginning + cut % (len(raw) - beginning + 1) for cut in cuts)
    for start, end in pairwise([beginning, *places, len(raw)]):
        skim.feed(raw[start:end])
    return skim.finish()


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pgp_mime(LONG), id="PGP/MIME"),
        pytest.param(pgp_mime(LONG, preamble=b"This is a multi-part message in MIME format."), id="preamble"),
        pytest.param(pgp_mime(LONG, epilogue=b"\n \n"), id="epilogue"),
        pytest.param(pgp_mime(LONG).replace(b"\n--frontier--\n", b"\n"), id="not-closed"),
        pytest.param(pgp_mime(armor(LARGE, checksum=False)), id="no-checksum"),
        pytest.param(
            multipart(b"multipart/mixed", part(b"text/plain", b""), CONTROL, part(b"application/octet-stream", LONG)),
            id="as-exchange-leaves-it",
        ),
        pytest.param(part(b"text/plain", LONG), id="inline"),
        pytest.param(multipart(b"multipart/mixed", part(b"text/plain", LONG), part(b"x/y", ARMORED)), id="attachment"),
        pytest.param(
            multipart(b"multipart/mixed", part(b"text/plain", ARMORED), part(b"x/y", LONG)), id="large-attachment"
        ),
    ],
)
def test_usual_forms_are_told_while_they_go_by(raw: bytes, eol: bytes) -> None:
    raw = raw.replace(b"\n", eol)
    expected = classify(split(raw))
    assert expected.encrypted
    assert expected.key_ids == (KEY_ID,)
    for beginning in (50_000, 100_000, 100_001, 100_030, 401_000):
        for size in (1_000, 65_536, 1_000_000):
            assert skimmed(raw, beginning, *range(size, len(raw) - beginning, size)) == expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pgp_mime(LONG, epilogue=TEXT), id="text-in-the-epilogue"),
        pytest.param(pgp_mime(LONG + TEXT), id="text-behind-the-armor"),
        pytest.param(pgp_mime(LONG + b"MeetMeAtNoon\n"), id="base64-behind-the-armor"),
        pytest.param(pgp_mime(LONG, epilogue=b"MeetMeAtNoon\n"), id="base64-in-the-epilogue"),
        pytest.param(pgp_mime(LONG).replace(b"\n--frontier--\n", b"\n--frontier\n\nMeetMeAtNoon\n"), id="third-part"),
        pytest.param(pgp_mime(LONG[:-20]), id="broken-end"),
        pytest.param(pgp_mime(LONG.replace(LONG[-40:-35], b"\n=AAAA")), id="wrong-checksum"),
        pytest.param(pgp_mime(LONG[:200_000] + LONG[200_004:]), id="octets-are-missing"),
        pytest.param(pgp_mime(LONG[:200_000] + b"MeetMeAtNoon" + LONG[200_000:]), id="octets-too-many"),
        pytest.param(pgp_mime(armor(os.urandom(300_000))), id="no-ciphertext"),
        pytest.param(pgp_mime(armor(LARGE[:200_000] + TEXT * 50 + LARGE[200_000 + 50 * len(TEXT) :])), id="text-in-it"),
        pytest.param(pgp_mime(armor(PKESK + packet(18, b"\x01" + bytes(300_000)))), id="zeros"),
        pytest.param(pgp_mime(LONG)[:300_000], id="cut"),
    ],
)
def test_what_only_claims_to_be_encrypted_is_told_while_it_goes_by(raw: bytes) -> None:
    expected = classify(split(raw))
    assert expected.kind is Kind.CLAIMS_ENCRYPTED
    assert skimmed(raw, 100_000, *range(0, len(raw), 10_000)) == expected


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(part(b"multipart/encrypted; boundary=frontier", b"\n" * 60_000), id="no-part-for-long"),
        pytest.param(pgp_mime(LONG.replace(b"\n", b"")), id="lines-too-long"),
        pytest.param(pgp_mime(LONG, epilogue=b"\n" * 60_000), id="much-behind"),
        pytest.param(pgp_mime(LONG, preamble=TEXT), id="text-in-the-preamble"),
        pytest.param(pgp_mime(LONG, control=CONTROL.replace(b"1", b"2")), id="version-2"),
        pytest.param(pgp_mime(packet(18, bytes(200_000))), id="binary"),
        pytest.param(part(b"application/pkcs7-mime", LONG), id="S/MIME"),
        pytest.param(part(b"text/plain", TEXT * 10_000), id="text"),
        pytest.param(part(b"?", LONG), id="unclear-type"),
    ],
)
def test_what_has_another_form_is_not_told(raw: bytes) -> None:
    assert skimmed(raw, 50_000, *range(0, len(raw), 10_000)) is None


def test_what_gnupg_writes_is_told_while_it_goes_by(home: Home) -> None:
    armored = home.gpg("--armor", "--encrypt", "-r", "elliptic@example.org", data=os.urandom(200_000))
    for eol in (b"\n", b"\r\n"):
        raw = pgp_mime(armored).replace(b"\n", eol)
        verdict = skimmed(raw, 60_000, *range(0, len(raw), 4_096))
        assert verdict == classify(split(raw))
        assert verdict is not None
        assert verdict.encrypted


@pytest.mark.parametrize("behind", [b"", b"--", b"-- \t"])
def test_no_boundary_divides_lines_that_have_gone_by(behind: bytes) -> None:
    """One of several lines could be found in the message, and not in what is left of it."""
    head, lines = LONG.split(b"\n\n", 1)
    boundary = head[2:] + b"\n\n" + lines[:64]
    field = b"boundary*=''" + boundary.replace(b"\n", b"%0A").replace(b" ", b"%20")
    head = b"Content-Type: multipart/encrypted; " + field + b"\n\n"
    raw = (
        head
        + b"".join(b"\n--" + boundary + b"\n" + one for one in (CONTROL, b"\n" + LONG))
        + b"\n--"
        + boundary
        + behind
    )
    for beginning in range(300, 1_000):
        assert skimmed(raw, beginning, 1_000) in (None, classify(split(raw)))


SHORT = armor(CIPHERTEXT, b"Comment: x")
MESSAGES = [
    *(raw for name, raw in ENCRYPTED.items() if "all escaped" not in name),
    pgp_mime(SHORT),
    pgp_mime(SHORT).replace(b"\n", b"\r\n"),
    pgp_mime(armor(CIPHERTEXT, checksum=False)),
]
SNIPPETS = st.sampled_from(
    [
        *(b"", b"\n", b"\r\n", b"\r", b" ", b"\v", b"=", b"==", b"-", b"--", b"AAAA", b"AAAA\n", b"\n=AAAA\n", TEXT),
        *(b"\n--frontier\n", b"\n--frontier--\n", b"--frontier--", b"\r\n--frontier \t\r\n", b"frontier"),
        *(b"-----BEGIN PGP MESSAGE-----\n\n", b"\n-----END PGP MESSAGE-----\n", ARMORED, CIPHERTEXT, CONTROL),
        *(b"Content-Type: text/plain\n\n", b"Content-Transfer-Encoding: base64\n", b"Comment: x\n"),
    ]
)
CHANGES = st.lists(st.tuples(st.integers(0, 2_000), st.sampled_from([0, 0, 1, 2, 60]), SNIPPETS), max_size=3)


@settings(max_examples=1_000, deadline=None)
@given(st.sampled_from(MESSAGES), CHANGES, st.integers(100, 1_200), st.lists(st.integers(0, 2_000), max_size=6))
def test_the_verdict_is_the_one_on_the_whole_message(
    raw: bytes, changes: list[tuple[int, int, bytes]], beginning: int, cuts: list[int]
) -> None:
    for place, count, snippet in changes:
        raw = raw[:place] + snippet + raw[place + count :]
    verdict = skimmed(raw, beginning, *cuts)
    assert verdict is None or verdict == classify(split(raw))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"A" * 20_000_000, id="one-line"),
        pytest.param(b"\n" * 20_000_000, id="empty-lines"),
        pytest.param(LONG.removesuffix(b"\n") + b" " * 20_000_000, id="spaces-behind"),
        pytest.param(LONG + b"\n--frontier" + b" " * 20_000_000, id="spaces-behind-a-delimiter"),
        pytest.param(LONG + b"\n=" * 10_000_000, id="equals"),
        pytest.param(LONG + TEXT * 1_000_000, id="text"),
    ],
)
def test_takes_linear_time(body: bytes) -> None:
    for raw in (pgp_mime(body), pgp_mime(LONG[:60_000] + body)):
        skim = Skim(split(raw[:70_000]))
        start = time.process_time()
        for place in range(70_000, len(raw), 4_096):
            skim.feed(raw[place : place + 4_096])
        skim.finish()
        assert time.process_time() - start < 3
