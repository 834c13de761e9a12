"""The parts and attachments of any message, or a refusal; never a crash, and never a long wait."""

import base64
import contextlib
import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.mail.lenient import StructureError, content_type
from sieve_filter.mail.structure import Attachment, Part, read
from tests.support.samples import ARMORED, multipart, part, pgp_mime

PDF = part(
    b'application/pdf; name="report.pdf"',
    base64.encodebytes(b"%PDF" + bytes(100)),
    b"Content-Transfer-Encoding: Base64",
    b'Content-Disposition: attachment; filename="report.pdf"',
)


def test_a_plain_message_is_one_part() -> None:
    structure = read(b"Subject: x\n\nMeet me at noon.\n")
    assert structure.parts == (Part("1", "text/plain", "", 17, ""),)
    assert structure.attachments == ()


def test_parts_have_paths_and_decoded_sizes() -> None:
    inner = part(b"multipart/alternative; boundary=x", b"--x\n\nabc\n--x\nContent-Type: text/html\n\nab\n--x--\n")
    structure = read(multipart(b"multipart/mixed", inner, PDF))
    assert structure.parts == (
        Part("1", "multipart/mixed", "", None, ""),
        Part("1.1", "multipart/alternative", "", None, ""),
        Part("1.1.1", "text/plain", "", 3, ""),
        Part("1.1.2", "text/html", "", 2, ""),
        Part("1.2", "application/pdf", "report.pdf", 104, "base64"),
    )
    assert structure.attachments == (Attachment("report.pdf", "application/pdf", 104),)


def test_encoded_file_names_are_decoded() -> None:
    encoded = part(b"image/png", b"x", b"Content-Disposition: attachment; filename*=utf-8''caf%C3%A9.png")
    assert [one.file_name for one in read(multipart(b"multipart/mixed", encoded)).attachments] == ["café.png"]


def test_an_attachment_without_a_name_gets_none() -> None:
    nameless = part(b"image/png", b"x", b"Content-Disposition: attachment")
    assert read(multipart(b"multipart/mixed", nameless)).attachments == (Attachment("", "image/png", 1),)


def test_an_attached_message_is_a_container() -> None:
    attached = part(b"message/rfc822", b"Subject: y\n\nabc", b"Content-Disposition: attachment")
    structure = read(multipart(b"multipart/mixed", attached))
    assert [one.path for one in structure.parts] == ["1", "1.1", "1.1.1"]
    assert [one.content_type for one in structure.attachments] == ["message/rfc822"]


def test_the_parameters_of_the_content_type_are_told() -> None:
    content = content_type(pgp_mime())
    assert content is not None
    assert content.media_type == b"multipart/encrypted"
    assert content.parameters == {b"protocol": b"application/pgp-encrypted", b"boundary": b"frontier"}
    named = content_type(part(b"text/plain; name*=utf-8''%C3%A9", b""))
    assert named is not None
    assert named.parameters[b"name"] == "é".encode()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00\r\r\n\xfe", id="octets"),
        pytest.param(b"Date: \xff\nReceived: \xff from by\nFrom: <<>>, \xff@\n\n", id="damaged-fields"),
        pytest.param(part(b"text/plain; charset=undefined", b"\xff"), id="codec-that-always-fails"),
        pytest.param(part(b"text/plain; charset=\xff", b"\xff"), id="codec-of-no-name"),
        pytest.param(part(b"text/plain; charset=idna", b"\xff" * 200), id="codec-for-something-else"),
        pytest.param(part(b"multipart/mixed; boundary=", b"x"), id="no-boundary"),
        pytest.param(part(b"text/plain", b"A", b"Content-Transfer-Encoding: base64"), id="cut-base64"),
        pytest.param(part(b"text/plain", b"\xff", b"Content-Transfer-Encoding: uuencode"), id="no-uuencode"),
        pytest.param(multipart(b"multipart/mixed", epilogue=b"--frontier\n\nx\n--frontier--\n"), id="epilogue"),
    ],
)
def test_damaged_messages_are_read_all_the_same(raw: bytes) -> None:
    assert read(raw).parts


@pytest.mark.parametrize(
    ("text", "size"),
    [(b"QUJDRA", 4), (b"QUJDREU", 5), (b"QUJDRA=", 4), (b"QUJDR", 5), (b"QUJDRA==\n\nfooter", 4), (b"\xff\xff", 0)],
)
def test_badly_padded_base64_is_measured_as_far_as_it_goes(text: bytes, size: int) -> None:
    name = b"Content-Disposition: attachment; filename=a.pdf"
    attached = part(b"application/pdf", text, b"Content-Transfer-Encoding: base64", name)
    structure = read(multipart(b"multipart/mixed", part(b"text/plain", b"Hi!"), attached))
    assert [one.size for one in structure.parts] == [None, 3, size]
    assert structure.attachments == (Attachment("a.pdf", "application/pdf", size),)


def test_parts_and_attachments_are_told_where_mail_parser_fails() -> None:
    damage = part(b"multipart/mixed; boundary=other", b"no part")
    attached = part(b"message/rfc822", b"Subject: y\n\nabc", b"Content-Disposition: attachment")
    raw = multipart(b"multipart/mixed", damage, PDF, attached).replace(b"--frontier--\n", b"")
    structure = read(raw)
    assert [one.path for one in structure.parts] == ["1", "1.1", "1.2", "1.3", "1.3.1"]
    assert structure.attachments[:1] == (Attachment("report.pdf", "application/pdf", 104),)
    assert [one.content_type for one in structure.attachments] == ["application/pdf", "message/rfc822"]


FRAGMENTS = st.sampled_from(
    [
        *(b"Content-Type: ", b"multipart/mixed", b"multipart/digest", b"message/rfc822", b"; boundary=b", b"\n\n--b\n"),
        *(b"--b--", b"\n", b"\r", b"Content-Transfer-Encoding: base64\n", b"Content-Disposition: attachment"),
        *(b"; filename*0*=", b"=?utf-8?q?=ff?=", b"text/plain; charset=", b"utf-7", b"punycode", b"Content-ID: "),
        *(b"\xff", b"\x00", b"'", b'"', b"%"),
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200) | st.lists(FRAGMENTS, max_size=30).map(b"".join))
def test_any_bytes_at_all_are_a_part(raw: bytes) -> None:
    assert read(raw).parts[0].path == "1"


def test_nothing_of_the_message_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        read(
            multipart(b"multipart/mixed", part(b"x/y", b"SECRET", b"Content-Disposition: attachment; filename=SECRET"))
        )
        read(part(b"text/plain; name==?shift_jis?b?SECRET?=", b"SECRET"))
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\n" * limits.STRUCTURE_LINES, id="lines"),
        pytest.param(b"\n" + b"--x\n" * 5_001, id="dashed-lines"),
        pytest.param(part(b"x/y" + b";" * 30_000, b""), id="long-field"),
        pytest.param(b"\n" + b"multipart/" * 100, id="containers"),
        pytest.param(b"\n" + b"message/" * 29 + b"x" * (limits.STRUCTURE_OCTETS // 30), id="octets"),
    ],
)
def test_what_would_take_long_is_refused_with_the_limit(raw: bytes) -> None:
    with pytest.raises(StructureError, match="limit"):
        read(raw)


def nested(depth: int, media_type: bytes = b"multipart/mixed") -> bytes:
    if media_type == b"message/rfc822":
        return b"Content-Type: message/rfc822\nContent-Disposition: attachment\n\n" * depth
    levels = [b"Content-Type: %s; boundary=b%d\n\n--b%d\n" % (media_type, number, number) for number in range(depth)]
    return b"".join(levels)


ATTACHED = nested(20, b"message/rfc822")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(nested(limits.STRUCTURE_CONTAINERS), id="nested"),
        pytest.param(nested(limits.STRUCTURE_CONTAINERS, b"message/rfc822"), id="nested-messages"),
        pytest.param(nested(limits.STRUCTURE_CONTAINERS, b"multipart/digest"), id="nested-digests"),
        pytest.param(nested(350_000), id="deeply-nested"),
        pytest.param(ATTACHED + b"x" * (limits.STRUCTURE_OCTETS // 22), id="attached-messages"),
        pytest.param(ATTACHED + b"x\n" * (limits.STRUCTURE_LINES // 32), id="lines-in-attached-messages"),
        pytest.param(nested(90) + b"\n" * (limits.STRUCTURE_LINES // 102), id="lines-in-multiparts"),
        pytest.param(nested(90) + b"--x\n" * (limits.STRUCTURE_DASHED_LINES - 91), id="dashed-lines-in-multiparts"),
        pytest.param(b"\n" * (limits.STRUCTURE_LINES // 12), id="lines"),
        pytest.param(b"\n" + b"\r" * (limits.STRUCTURE_LINES // 12), id="cr"),
        pytest.param(part(b"x/y; boundary=b", b"--b\n\nx\n" * 100_000), id="100000-parts"),
        pytest.param(part(b"multipart/mixed; boundary=b", b"--b\n\nx\n" * 4_990), id="most-parts"),
        pytest.param(
            part(b"multipart/mixed; boundary=b", (b"--b\nContent-Type: x/y" + b";" * 300 + b"\n\nx\n") * 4_990),
            id="long-fields",
        ),
        pytest.param(part(b"x/y" + b";" * 1_000_000, b""), id="one-long-field"),
        pytest.param(part(b"(" * 5_000_000, b""), id="one-long-comment"),
        pytest.param(b"Received: " + b"(" * 1_000_000 + b"\nFrom: " + b"<" * 1_000_000 + b"\n\n", id="other-fields"),
        pytest.param(b"\n" + ARMORED * 20_000, id="large-text"),
        pytest.param(b"\n" + b"x" * 20_000_000, id="one-line-of-20-mb"),
    ],
)
def test_takes_linear_time(raw: bytes) -> None:
    start = time.process_time()
    with contextlib.suppress(StructureError):
        read(raw)
    assert time.process_time() - start < 15  # four on a quiet machine; minutes if it were not linear
