"""Splitting: where a header section ends, whatever a message looks like."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.mail import protection
from sieve_filter.mail.header_policy import no_confidentiality
from sieve_filter.mail.message import split
from tests.support.messages import any_message

MBOX = b"From a@b Thu Jan  1 00:00:00 1970"


@given(any_message)
def test_every_byte_of_any_message_is_accounted_for(raw: bytes) -> None:
    message = split(raw)
    end = 0
    for field in message.fields:
        assert field.raw == raw[field.start : field.end]
        assert field.start >= end
        end = field.end
    assert end <= message.header_end <= message.body_start <= len(raw)
    assert raw[message.header_end : message.body_start] in (b"", b"\r", b"\n", b"\r\n", b"\r\r\n")
    assert message.body == raw[message.body_start :]


@pytest.mark.parametrize(
    ("raw", "names", "body"),
    [
        pytest.param(b"", [], b"", id="empty"),
        pytest.param(b"A: b\r\n\r\nbody", [b"a"], b"body", id="crlf"),
        pytest.param(b"A: b\n\nbody", [b"a"], b"body", id="lf"),
        pytest.param(b"A: b\rC: d\r\rbody", [b"a", b"c"], b"body", id="cr"),
        pytest.param(b"A: b\r\r\nC: d\r\r\n\r\nbody", [b"a", b"c"], b"body", id="cr-cr-lf"),
        pytest.param(b"\r\nbody", [], b"body", id="no-header"),
        pytest.param(b"just text\r\nA: b\r\n", [], b"just text\r\nA: b\r\n", id="no-header-no-empty-line"),
        pytest.param(b"A: b\r\nsecret text\r\n", [b"a"], b"secret text\r\n", id="no-empty-line"),
        pytest.param(b"A: b", [b"a"], b"", id="no-body-no-line-end"),
        pytest.param(b"A : b\r\n\r\n", [b"a"], b"", id="space-before-the-colon"),
        pytest.param(b"A B: c\r\n\r\n", [], b"A B: c\r\n\r\n", id="space-in-the-name"),
        pytest.param(b"\xc3\xa9: c\r\n\r\n", [], b"\xc3\xa9: c\r\n\r\n", id="8-bit-name"),
        pytest.param(b"%s\r\nA: b\r\n\r\nbody" % MBOX, [b"a"], b"body", id="mbox-line"),
        pytest.param(b"A: b\r\n>%s\r\nC: d\r\n\r\nbody" % MBOX, [b"a", b"c"], b"body", id="mbox-line-below"),
        pytest.param(b"%s\r\nbody" % MBOX, [], b"body", id="mbox-line-and-no-header"),
        pytest.param(b"From here on\r\nA: b\r\n\r\n", [], b"From here on\r\nA: b\r\n\r\n", id="no-mbox-line"),
        pytest.param(b" x\r\nA: b\r\n", [], b" x\r\nA: b\r\n", id="begins-with-a-continuation"),
        pytest.param(b"A: b\r\nx\r\n y\r\nTo: c\r\n\r\nbody", [b"a", b"to"], b"body", id="stray-before-a-field"),
        pytest.param(b"x\r\nTo: c\r\nA: b\r\ny\r\n\r\nbody", [b"to", b"a"], b"y\r\n\r\nbody", id="two-strays"),
        pytest.param(b"A: b\r\nx\r\n\r\nTo: c\r\n", [b"a"], b"x\r\n\r\nTo: c\r\n", id="stray-before-the-body"),
    ],
)
def test_header_section_ends_where_it_is_certain_to(raw: bytes, names: list[bytes], body: bytes) -> None:
    message = split(raw)
    assert [field.name for field in message.fields] == names
    assert message.body == body


@pytest.mark.parametrize(
    ("raw", "agreed"),
    [
        (b"A: b\nTo: c\n\n", b"A: b\nTo: c\n"),
        (b"A: b\n%s\nTo: c\n\n" % MBOX, b"A: b\n%s\nTo: c\n" % MBOX),
        (b"A: b\n>%s\nTo: c\n\n" % MBOX, b"A: b\n"),
        (b"A: b\nFrom here on\nTo: c\n\n", b"A: b\n"),
        (b"A: b\nTo : c\nC: d\n\n", b"A: b\n"),
        (b"A: b\nno field\nTo: c\n\n", b"A: b\n"),
        (b"A: b\nno field\n\n", b"A: b\n"),
    ],
)
def test_it_is_known_how_far_all_mail_clients_agree(raw: bytes, agreed: bytes) -> None:
    """Python's email package and mutt, Dovecot and notmuch go on for different lengths."""
    assert raw[: split(raw).agreed_end] == agreed


def test_text_behind_a_bare_cr_is_not_taken_for_a_part_of_the_subject() -> None:
    message = split(b"Subject: x\rthe body, in secret\r\n")
    assert message.fields[0].value == b"x"
    assert message.body == b"the body, in secret\r\n"


def test_folded_values_are_unfolded() -> None:
    assert split(b"A: b\r\n c\r\n\td\r\n\r\n").fields[0].value == b"b c\td"


@pytest.mark.parametrize("unit", [b"\r", b"\n", b"A: b\r\n", b" \r\n", b":", b"A", b"From ", b"\r\r\n"], ids=repr)
def test_five_megabytes_of_anything_are_split_in_seconds(unit: bytes) -> None:
    started = time.process_time()
    split(b"A: b\r\n" + unit * (5_000_000 // len(unit)))
    assert time.process_time() - started < 5


@given(any_message, st.integers(0, 5_000))
@example(b"Content-Type: text/html\r\n\r\r\nHi!", 27)
@example(b"no field at all: ", 10)
def test_header_section_is_settled_when_nothing_can_change_it(raw: bytes, length: int) -> None:
    beginning, message = split(raw[:length]), split(raw)
    if beginning.settled:
        assert beginning.fields == message.fields
        assert beginning[2:] == message[2:]


@pytest.mark.parametrize(
    ("raw", "settled"),
    [
        (b"", False),
        (b"A: b", False),
        (b"A: b\r\n\r\n", False),
        (b"A: b\r\n\r\nx", True),
        (b"A: b\nno", False),
        (b"A: b\nno field\n", False),
        (b"A: b\nno field\n\nx", True),
        (b"A: b\n\r", False),
        (b"A: b\n\r\r", False),
        (b"A: b\n\r\r\r\r", True),
        (b"A: b\n\r\rx", True),
    ],
)
def test_header_section_is_settled_with_the_first_octet_of_the_body(raw: bytes, settled: bool) -> None:
    assert split(raw).settled is settled


@given(any_message | st.text("a: \r\n", max_size=40).map(str.encode), st.integers(0, 300), st.integers(3, 40))
def test_header_section_above_the_limits_is_settled_when_nothing_changes_it(raw: bytes, end: int, limit: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "HEADER_OCTETS", 3 * limit)
        patched.setattr(limits, "HEADER_LINES", limit // 3)
        beginning, message = split(raw[:end]), split(raw)
        assert message.header_end <= 3 * limit
        assert len(message.fields) + len(message.strays) <= limit // 3 + 1
        if beginning.settled:
            assert beginning.fields == message.fields
            assert beginning[2:] == message[2:]
        assert beginning.settled or len(beginning.raw) <= 3 * limit + 3
        assert protection.restore(protection.protect(message, no_confidentiality).inside) == raw


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"A: b\n" * limits.HEADER_LINES + b"\nx", limits.HEADER_LINES),
        (b"A: b\n" * (limits.HEADER_LINES + 5) + b"\nx", limits.HEADER_LINES),
        (b"A: b\n" + b"B: c\n" + b" d\n" * limits.HEADER_LINES + b"\nx", 1),
        (b"A: b\nB: " + b"c" * limits.HEADER_OCTETS + b"\nC: d\n\nx", 1),
        (b"A" * limits.HEADER_OCTETS + b": b\n\nx", 0),
    ],
    ids=["most", "too-many-lines", "too-many-folded-lines", "too-long-field", "too-long-name"],
)
def test_what_is_too_much_for_a_header_section_is_body_by_the_whole_field(raw: bytes, names: int) -> None:
    message = split(raw)
    assert len(message.fields) == names
    assert raw[message.header_end - 1 : message.header_end] in (b"", b"\n")
    assert message.settled
