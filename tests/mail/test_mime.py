"""Content-Type, transfer encodings and multipart bodies, as they are and as they should not be."""

import base64
import quopri
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.mail.mime import (
    ContentType,
    Multipart,
    content_type,
    decode,
    is_version_1,
    split_multipart,
    transfer_encoding,
)

MIXED = ContentType(b"multipart/mixed", {b"boundary": b"a b"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text/plain", ContentType(b"text/plain")),
        (b"TEXT/Plain;", ContentType(b"text/plain")),
        (b"text / plain ; charset = UTF-8", ContentType(b"text/plain", {b"charset": b"UTF-8"})),
        (b'Multipart/Mixed; Boundary="a b"', MIXED),
        (b'multipart/mixed;\r\n\tboundary="a\\ b"', MIXED),
        (b'(a (nested \\) one)) multipart/mixed (;) ; boundary (x) = (y) "a b" (z)', MIXED),
        (b"multipart/mixed; boundary*=us-ascii'en'a%20b", MIXED),
        (b'multipart/mixed; boundary*1="b"; boundary*0="a "', MIXED),
        (b"multipart/mixed; boundary*0*=''a%20; boundary*1=b", MIXED),
        (b'multipart/mixed; boundary="a b"; boundary="other"', MIXED),
        (b'multipart/mixed; boundary="a b"; boundary*0="other"', MIXED),
        (
            b"multipart/mixed; boundary=----=_Part/1:2",
            ContentType(b"multipart/mixed", {b"boundary": b"----=_Part/1:2"}),
        ),
        (b'text/plain; name="\xe9"', ContentType(b"text/plain", {b"name": b"\xe9"})),
    ],
)
def test_content_type_is_read_in_every_spelling(value: bytes, expected: ContentType) -> None:
    assert content_type(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text",
        b"text/",
        b"/plain",
        b"text/plain charset=x",
        b"text/plain; charset",
        b"text/plain; charset=",
        b'text/plain; charset="x',
        b"text/plain (comment",
        b"text/plain; ; charset=x",
        b"=?utf-8?q?text?=/plain, x",
        b"text/plain; name=" + b"x" * limits.CONTENT_TYPE_OCTETS,
    ],
)
def test_a_content_type_that_is_not_clear_is_not_guessed(value: bytes) -> None:
    assert content_type(value) is None


def test_transfer_encoding_is_read_in_every_spelling() -> None:
    assert transfer_encoding(b"Base64") == b"base64"
    assert transfer_encoding(b" (x) 7bit (y) ") == b"7bit"
    assert transfer_encoding(b"base64;") is None
    assert transfer_encoding(b"") is None
    assert transfer_encoding(b"x" * (limits.CONTENT_TYPE_OCTETS + 1)) is None


@pytest.mark.parametrize("value", [b"1.0", b"1.0 (produced by MetaSend Vx.x)", b"(x) 1.0", b"1.(x)0"])
def test_mime_version_is_read_in_every_spelling_of_the_rfc(value: bytes) -> None:
    assert is_version_1(value)


@pytest.mark.parametrize("value", [b"", b"RFC-XXXX", b"2.0", b"1", b"1.0, 1.0", b"1.0 (", b" " * 9_000 + b"1.0"])
def test_what_is_not_clearly_version_1_is_not(value: bytes) -> None:
    assert not is_version_1(value)


@given(st.binary(max_size=200))
def test_transfer_encodings_are_undone(data: bytes) -> None:
    assert decode(data, b"binary") == data
    assert decode(base64.encodebytes(data), b"base64") == data
    assert decode(quopri.encodestring(data.replace(b"\r", b"")), b"quoted-printable") == data.replace(b"\r", b"")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        pytest.param(b"QUJD\nHi!", b"base64", id="text-in-base64"),
        pytest.param(b"QUI=\nQUJD", b"base64", id="base64-behind-the-padding"),
        pytest.param(b"QUJ", b"base64", id="cut-base64"),
        pytest.param(b"QUJD\n\n-- \nfooter", b"base64", id="footer"),
        pytest.param(b"QUI===", b"base64", id="too-much-padding"),
        pytest.param(b"a=\rHidden from binascii\nb", b"quoted-printable", id="text-in-a-soft-line-break"),
        pytest.param(b"a=zz", b"quoted-printable", id="no-octet"),
        pytest.param(b"begin 644 x\n", b"x-uuencode", id="unknown"),
        pytest.param(b"a", None, id="unclear"),
    ],
)
def test_nothing_is_decoded_when_a_byte_does_not_belong(text: bytes, encoding: bytes | None) -> None:
    assert decode(text, encoding) is None


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_a_multipart_body_is_taken_apart(eol: bytes) -> None:
    lines = [
        b"before",
        b"--b",
        b"",
        b"one",
        b"--b \t",
        b"",
        b"--bb",
        b"two",
        b"--b--",
        b"after",
        b"--b",
        b"still after",
    ]
    expected = Multipart(b"before", (eol + b"one", eol + b"--bb" + eol + b"two"), eol.join(lines[-3:]), True)
    assert split_multipart(eol.join(lines), b"b") == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", Multipart(b"", (), b"", False)),
        (b"--b", Multipart(b"", (b"",), b"", False)),
        (b"--b--", Multipart(b"", (), b"", True)),
        (b"--b\n--b\n--b--", Multipart(b"", (b"", b""), b"", True)),
        (b"--b\nx\n--b-", Multipart(b"", (b"x\n--b-",), b"", False)),
        (b" --b\n", Multipart(b" --b\n", (), b"", False)),
        (b"--B\n", Multipart(b"--B\n", (), b"", False)),
    ],
)
def test_odd_multipart_bodies_lose_no_byte(body: bytes, expected: Multipart) -> None:
    assert split_multipart(body, b"b") == expected


def test_a_boundary_with_special_characters_is_taken_literally() -> None:
    assert split_multipart(b"--.*\nx\n--.*--", b".*") == Multipart(b"", (b"x",), b"", True)
    assert split_multipart(b"--ab\nx", b".*") == Multipart(b"--ab\nx", (), b"", False)


def test_a_boundary_of_two_lines_divides_nothing() -> None:
    content = content_type(b"multipart/mixed; boundary*=''a%0Ab")
    assert content is not None
    assert split_multipart(b"--a\nb\nx\n--a\nb--", content.parameters[b"boundary"]) is None


def test_more_parts_than_the_limit_are_not_taken_apart() -> None:
    most = split_multipart(b"--b\nx\n" * limits.MULTIPART_PARTS + b"--b--", b"b")
    assert most is not None
    assert len(most.parts) == limits.MULTIPART_PARTS
    assert split_multipart(b"--b\nx\n" * (limits.MULTIPART_PARTS + 1) + b"--b--", b"b") is None


@given(st.binary(max_size=200))
def test_no_bytes_at_all_raise_an_error(data: bytes) -> None:
    content_type(data)
    content_type(b"text/plain;" + data)
    is_version_1(data)
    encoding = transfer_encoding(data)
    decode(data, encoding)
    decode(data, b"base64")
    decode(data, b"quoted-printable")
    split_multipart(data, data[:3])


@pytest.mark.parametrize(
    "unit", [b"\r", b"\n", b"-", b" ", b"(", b"=", b"\\", b'"', b";", b"a=b;", b"--b\n", b"\n--b x", b"\n--b  "]
)
def test_takes_linear_time(unit: bytes) -> None:
    data = unit * (5_000_000 // len(unit))
    start = time.process_time()
    content_type(b"text/plain;" + data)
    content_type((b"text/plain;" + data)[: limits.CONTENT_TYPE_OCTETS])
    transfer_encoding(data)
    for encoding in (b"base64", b"quoted-printable"):
        decode(data, encoding)
    split_multipart(data, b"b")
    split_multipart(data, b"-" * 10)
    assert time.process_time() - start < 2
