"""A message is encrypted when all of its body is ciphertext. Whatever it claims, and wherever there is a byte more."""

import base64
import quopri
import time
import tracemalloc
from collections.abc import Callable
from email.encoders import encode_7or8bit, encode_base64, encode_noop
from email.message import Message as PythonMessage
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.detection.classify import Kind, Reader, Shape, classify, may_be_encrypted
from sieve_filter.mail import lenient
from sieve_filter.mail.message import split
from sieve_filter.mail.mime import ContentType
from tests.support.samples import (
    ARMORED,
    CIPHERTEXT,
    CONTROL,
    KEY_ID,
    LITERAL,
    Home,
    Smime,
    armor,
    encryption_key_ids,
    home,
    multipart,
    packet,
    part,
    pgp_mime,
    pkesk,
    smime,
)

__all__ = ["home", "smime"]

TEXT = b"Meet me at noon.\n"
PLAIN_PART = part(b"text/plain", TEXT)
OCTETS = part(b"application/octet-stream", ARMORED)
BASE64 = b"Content-Transfer-Encoding: base64"
QUOTED = b"Content-Transfer-Encoding: quoted-printable"
ENCRYPTED_TYPE = b'multipart/encrypted; protocol="application/pgp-encrypted"'
OTHER_KEY_ID = "FEDCBA9876543210"
OTHER_ARMORED = armor(packet(1, pkesk(OTHER_KEY_ID)) + CIPHERTEXT)
PREAMBLE = b"This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)"


def shape(raw: bytes) -> Shape:
    return classify(split(raw))


def encoded(data: bytes) -> bytes:
    return base64.encodebytes(data)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pgp_mime(), id="as-in-the-standard"),
        pytest.param(pgp_mime().replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(pgp_mime(CIPHERTEXT), id="binary"),
        pytest.param(pgp_mime(preamble=PREAMBLE), id="boilerplate"),
        pytest.param(pgp_mime(preamble=PREAMBLE.replace(b"4880", b"2440")), id="older-boilerplate"),
        pytest.param(pgp_mime(preamble=b"This is a multi-part message in MIME format."), id="mime-boilerplate"),
        pytest.param(pgp_mime(preamble=b"\n \n", epilogue=b"\n\n \t\n"), id="white-space-around"),
        pytest.param(pgp_mime().replace(b"\n--frontier--\n", b"\n"), id="not-closed"),
        pytest.param(multipart(b"multipart/encrypted", CONTROL, OCTETS), id="no-protocol"),
        pytest.param(multipart(ENCRYPTED_TYPE.upper(), CONTROL, OCTETS), id="upper-case"),
        pytest.param(
            multipart(b"multipart/encrypted (x);\n\tprotocol=application/pgp-encrypted", CONTROL, OCTETS), id="folded"
        ),
        pytest.param(multipart(ENCRYPTED_TYPE, CONTROL, part(b"text/plain", ARMORED)), id="other-type-of-payload"),
        pytest.param(multipart(ENCRYPTED_TYPE, CONTROL, b"\n" + ARMORED), id="payload-without-header"),
        pytest.param(
            multipart(ENCRYPTED_TYPE, CONTROL, part(b"application/octet-stream", encoded(ARMORED), BASE64)), id="base64"
        ),
        pytest.param(
            multipart(ENCRYPTED_TYPE, CONTROL, part(b"application/octet-stream", encoded(CIPHERTEXT), BASE64)),
            id="binary-in-base64",
        ),
        pytest.param(
            pgp_mime(control=part(b"application/pgp-encrypted", b"\r\n version : 1 \r\n\r\n")), id="version-with-space"
        ),
        pytest.param(pgp_mime().replace(b"MIME-Version: 1.0\n", b""), id="no-mime-version"),
        pytest.param(b"Content-Type: multipart/mixed; boundary=frontier\n" + pgp_mime(), id="second-content-type"),
        pytest.param(b"From bob Mon Jan  1 00:00:00 2024\n" + pgp_mime(), id="mbox-line"),
        pytest.param(
            b"Received: by us\nFrom bob Mon Jan  1 00:00:00 2024\n" + pgp_mime(), id="mbox-line-below-fields-of-ours"
        ),
    ],
)
def test_pgp_mime_is_encrypted(raw: bytes) -> None:
    assert shape(raw).kind is Kind.PGP_MIME
    assert shape(raw).encrypted
    assert shape(raw).key_ids == (KEY_ID,)


def written_by_python(encode: Callable[[PythonMessage], None], charset: str | None) -> bytes:
    """PGP/MIME made with Python's own email package, which writes "MIME-Version: 1.0" into each part."""
    whole = MIMEMultipart("encrypted", protocol="application/pgp-encrypted")
    whole["Subject"] = "hello"
    for data, subtype in ((b"Version: 1\n", "pgp-encrypted"), (ARMORED, "octet-stream")):
        inner = MIMEApplication(data.decode(), subtype, encode)
        if charset:
            inner.set_charset(charset)
        whole.attach(inner)
    return whole.as_bytes()


@pytest.mark.parametrize("encode", [encode_noop, encode_7or8bit, encode_base64])
@pytest.mark.parametrize("charset", [None, "us-ascii"], ids=["plain", "as-alot-does"])
def test_pgp_mime_as_python_programs_write_it_is_encrypted(
    encode: Callable[[PythonMessage], None], charset: str | None
) -> None:
    raw = written_by_python(encode, charset)
    assert raw.count(b"MIME-Version: 1.0\n") == 3
    assert shape(raw).kind is Kind.PGP_MIME
    assert not shape(raw.replace(b"MIME-Version: 1.0", b"MIME-Version: at noon")).encrypted


@pytest.mark.parametrize(
    "line", [b"Meet me at noon", b"Our meeting: at noon", b"Meeting : noon", b">From bob Mon Jan  1 00:00:00 2024"]
)
def test_a_header_section_that_some_clients_show_as_text_is_not_encrypted(line: bytes) -> None:
    verdict = shape(b"Received: by us\n" + line + b"\nX-Where: at the mill\n" + pgp_mime())
    assert verdict.kind is Kind.CLAIMS_ENCRYPTED


def test_a_line_end_that_python_takes_for_an_empty_line_is_not_encrypted() -> None:
    assert shape(b"Received: by us\r\r\nX-Note: meet me at noon\r\n" + pgp_mime()).kind is Kind.CLAIMS_ENCRYPTED


@pytest.mark.parametrize(
    "empty", [[], [part(b"text/plain", b"")], [part(b"text/html", b" \r\n\n")], [part(b"text/plain", b"DQo=", BASE64)]]
)
def test_pgp_mime_mangled_by_exchange_is_encrypted(empty: list[bytes]) -> None:
    assert shape(multipart(b"multipart/mixed", *empty, CONTROL, OCTETS)).kind is Kind.PGP_MIME


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(pgp_mime(preamble=TEXT), id="text-in-the-preamble"),
        pytest.param(pgp_mime(preamble=PREAMBLE + b"\n" + TEXT), id="text-below-the-boilerplate"),
        pytest.param(pgp_mime(epilogue=TEXT), id="text-in-the-epilogue"),
        pytest.param(pgp_mime(epilogue=b"--frontier\n\n" + TEXT), id="part-behind-the-end"),
        pytest.param(pgp_mime(TEXT), id="plain-payload"),
        pytest.param(pgp_mime(armor(LITERAL)), id="literal-packet"),
        pytest.param(pgp_mime(armor(packet(8, b"\x00" + LITERAL))), id="compressed-packet"),
        pytest.param(pgp_mime(ARMORED[:-40]), id="broken-armor"),
        pytest.param(pgp_mime(ARMORED + TEXT), id="text-behind-the-armor"),
        pytest.param(
            pgp_mime(b"-----BEGIN PGP MESSAGE-----\n\nHi!\n-----END PGP MESSAGE-----\n"), id="armor-around-hi"
        ),
        pytest.param(pgp_mime(control=PLAIN_PART), id="text-for-version"),
        pytest.param(pgp_mime(control=CONTROL + TEXT), id="text-below-version"),
        pytest.param(pgp_mime(control=CONTROL.replace(b"1", b"2")), id="version-2"),
        pytest.param(multipart(ENCRYPTED_TYPE, CONTROL), id="one-part"),
        pytest.param(multipart(ENCRYPTED_TYPE, CONTROL, OCTETS, PLAIN_PART), id="three-parts"),
        pytest.param(multipart(ENCRYPTED_TYPE, OCTETS, CONTROL), id="wrong-order"),
        pytest.param(multipart(b"multipart/encrypted; protocol=application/x", CONTROL, OCTETS), id="other-protocol"),
        pytest.param(part(ENCRYPTED_TYPE, ARMORED), id="no-boundary"),
        pytest.param(part(ENCRYPTED_TYPE + b"; boundary=x", b""), id="no-body"),
        pytest.param(pgp_mime(control=b"Subject: " + TEXT + CONTROL), id="other-field-in-a-part"),
        pytest.param(pgp_mime(control=b"From " + TEXT + CONTROL), id="line-in-a-part"),
        pytest.param(pgp_mime(control=b"From bob Mon Jan  1 00:00:00 2024\n" + CONTROL), id="mbox-line-in-a-part"),
        pytest.param(pgp_mime(control=b"Content-Id : " + TEXT + CONTROL), id="space-before-the-colon-in-a-part"),
        pytest.param(
            pgp_mime(control=b"Content-Description: " + b"x" * 998 + b"\n" + CONTROL), id="long-field-in-a-part"
        ),
        pytest.param(pgp_mime(control=b"Content-X: hello\n" * 20 + CONTROL), id="many-fields-in-a-part"),
        pytest.param(pgp_mime(control=CONTROL.replace(b"\n\n", b"\n")), id="part-without-empty-line"),
        pytest.param(
            pgp_mime(control=part(b"multipart/mixed; boundary=frontier", b"--frontier\n\n" + TEXT)),
            id="inner-same-boundary",
        ),
        pytest.param(
            multipart(ENCRYPTED_TYPE, CONTROL, part(b"x/y", encoded(ARMORED) + TEXT, BASE64)), id="text-behind-base64"
        ),
        pytest.param(
            multipart(ENCRYPTED_TYPE, CONTROL, part(b"x/y", ARMORED, b"Content-Transfer-Encoding: x-y")),
            id="odd-encoding",
        ),
        pytest.param(multipart(ENCRYPTED_TYPE, CONTROL, part(b"x", ARMORED), *[b"\n"] * 1000), id="too-many-parts"),
    ],
)
def test_pgp_mime_with_anything_readable_only_claims_to_be_encrypted(raw: bytes) -> None:
    assert shape(raw).kind is Kind.CLAIMS_ENCRYPTED
    assert not shape(raw).encrypted
    assert shape(raw).key_ids == ()


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(part(b"text/plain", ARMORED), id="text"),
        pytest.param(b"Subject: hello\n\n" + ARMORED, id="no-content-type"),
        pytest.param(b"\n" + ARMORED, id="no-header"),
        pytest.param(ARMORED, id="no-empty-line"),
        pytest.param(part(b"text/plain; charset=utf-8", b"\r\n\r\n" + ARMORED + b"\r\n"), id="white-space-around"),
        pytest.param(part(b"text/plain", encoded(ARMORED), BASE64), id="base64"),
        pytest.param(part(b"text/plain", quopri.encodestring(ARMORED), QUOTED), id="quoted-printable"),
        pytest.param(part(b"text/plain", ARMORED, b"Content-Type: text/html"), id="second-content-type"),
        pytest.param(multipart(b"multipart/mixed", part(b"text/plain", ARMORED)), id="in-a-multipart"),
        pytest.param(multipart(b"multipart/mixed", part(b"text/plain", ARMORED), OCTETS), id="encrypted-attachment"),
    ],
)
def test_text_that_is_one_encrypted_message_is_encrypted(raw: bytes) -> None:
    assert shape(raw).kind is Kind.INLINE_PGP
    assert shape(raw).encrypted
    assert shape(raw).key_ids == (KEY_ID,)


def test_recipients_of_all_parts_are_reported_once() -> None:
    raw = multipart(b"multipart/mixed", part(b"text/plain", ARMORED), part(b"application/octet-stream", OTHER_ARMORED))
    assert shape(raw).key_ids == (KEY_ID, OTHER_KEY_ID)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(part(b"text/plain", TEXT + ARMORED), id="text-above"),
        pytest.param(part(b"text/plain", ARMORED + b"_____\nmailing list footer\n"), id="mailing-list-footer"),
        pytest.param(part(b"text/plain", encoded(ARMORED + TEXT), BASE64), id="footer-within-base64"),
        pytest.param(
            part(b"text/plain", quopri.encodestring(ARMORED + TEXT), QUOTED), id="footer-within-quoted-printable"
        ),
        pytest.param(part(b"text/plain", armor(LITERAL)), id="literal-packet"),
        pytest.param(part(b"text/plain", ARMORED + ARMORED), id="two-messages"),
        pytest.param(part(b"text/html", ARMORED), id="html"),
        pytest.param(multipart(b"multipart/mixed", part(b"text/plain", ARMORED), PLAIN_PART), id="readable-attachment"),
        pytest.param(multipart(b"multipart/mixed", part(b"text/plain", ARMORED), OCTETS, epilogue=TEXT), id="epilogue"),
        pytest.param(multipart(b"multipart/mixed", PLAIN_PART, CONTROL, OCTETS), id="text-beside-pgp-mime"),
        pytest.param(multipart(b"multipart/mixed", CONTROL, OCTETS, PLAIN_PART), id="footer-beside-pgp-mime"),
        pytest.param(multipart(b"multipart/alternative", part(b"text/plain", ARMORED), OCTETS), id="alternative"),
        pytest.param(
            multipart(b"multipart/mixed", part(b"multipart/mixed; boundary=x", b"--x\n\n" + ARMORED)), id="nested"
        ),
        pytest.param(
            multipart(b"multipart/report", part(b"text/plain", b"Your message:\n" + ARMORED + b"was refused\n")),
            id="bounce-that-quotes",
        ),
    ],
)
def test_ciphertext_beside_something_readable_only_claims_to_be_encrypted(raw: bytes) -> None:
    assert shape(raw).kind is Kind.CLAIMS_ENCRYPTED
    assert not shape(raw).encrypted


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Subject: encrypted\n\n" + TEXT, id="subject-that-claims"),
        pytest.param(PLAIN_PART, id="text"),
        pytest.param(part(b"text/plain", TEXT + b"> -----BEGIN PGP MESSAGE-----\n"), id="quoted"),
        pytest.param(multipart(b"multipart/mixed", PLAIN_PART, part(b"text/html", TEXT)), id="multipart"),
        pytest.param(part(b"application/octet-stream", CIPHERTEXT), id="ciphertext-of-unknown-type"),
        pytest.param(part(b"text/plain", encoded(TEXT) + TEXT, BASE64), id="base64-followed-by-text"),
        pytest.param(multipart(b"multipart/mixed"), id="no-parts"),
        pytest.param(part(b"multipart/mixed", TEXT), id="no-boundary"),
        pytest.param(
            multipart(b"multipart/mixed", part(b"x", ARMORED.replace(b"--", b"=="))), id="part-of-unclear-type"
        ),
    ],
)
def test_everything_else_is_plain(raw: bytes) -> None:
    assert shape(raw).kind is Kind.PLAIN
    assert not shape(raw).encrypted


@pytest.mark.parametrize("media_type", [b"application/pkcs7-mime", b"Application/X-PKCS7-Mime"])
@pytest.mark.parametrize("smime_type", [b"enveloped-data", b"signed-data"])
def test_enveloped_smime_is_encrypted_whatever_it_is_called(smime: Smime, media_type: bytes, smime_type: bytes) -> None:
    content_type = media_type + b"; smime-type=" + smime_type + b"; name=smime.p7s"
    raw = part(content_type, encoded(smime.encrypted()), BASE64)
    assert shape(raw).kind is Kind.SMIME_ENVELOPED
    assert shape(raw).encrypted
    assert not shape(raw + TEXT).encrypted


def test_smime_messages_as_openssl_writes_them(smime: Smime) -> None:
    assert shape(smime.encrypted(form="SMIME")).kind is Kind.SMIME_ENVELOPED
    assert shape(smime.encrypted("-stream", "-aes-256-gcm", form="SMIME")).kind is Kind.SMIME_ENVELOPED
    assert shape(smime.signed(form="SMIME")).kind is Kind.SIGNED
    assert shape(smime.signed("-nodetach", form="SMIME")).kind is Kind.SIGNED


def test_smime_that_is_not_enveloped_is_not_encrypted(smime: Smime) -> None:
    claim = b"application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m"
    compressed = bytes.fromhex("300d060b2a864886f70d0109100109")
    assert shape(part(claim, encoded(smime.signed("-nodetach")), BASE64)).kind is Kind.SIGNED
    assert shape(part(claim, encoded(compressed), BASE64)).kind is Kind.PLAIN
    assert shape(part(claim, encoded(TEXT), BASE64)).kind is Kind.CLAIMS_ENCRYPTED
    assert shape(part(claim, TEXT)).kind is Kind.CLAIMS_ENCRYPTED
    assert shape(part(claim, encoded(smime.encrypted()) + TEXT, BASE64)).kind is Kind.CLAIMS_ENCRYPTED


def test_signed_messages_are_not_encrypted() -> None:
    clearsigned = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + TEXT
    for raw in (multipart(b"multipart/signed", PLAIN_PART, OCTETS), part(b"text/plain", b"\n" + clearsigned)):
        assert shape(raw).kind is Kind.SIGNED
        assert not shape(raw).encrypted


@pytest.mark.parametrize("user_id", ["elliptic@example.org", "rsa@example.org"])
def test_what_gnupg_encrypts_is_recognised_inline_and_as_pgp_mime(home: Home, user_id: str) -> None:
    armored = home.gpg("--armor", "--encrypt", "--sign", "-r", user_id, data=TEXT)
    for raw in (pgp_mime(armored), part(b"text/plain", armored), part(b"text/plain", encoded(armored), BASE64)):
        assert shape(raw).encrypted
        assert set(shape(raw).key_ids) == encryption_key_ids(home, user_id)


@pytest.mark.parametrize("options", [["--store"], ["--sign"], ["--clearsign"]])
def test_what_gnupg_does_not_encrypt_is_not(home: Home, options: list[str]) -> None:
    armored = home.gpg("--armor", *options, data=TEXT)
    assert not shape(pgp_mime(armored)).encrypted
    assert not shape(part(b"text/plain", armored)).encrypted


UNCLEAR = pgp_mime().replace(b"multipart/encrypted;", b"multipart/encrypted; ;")


def test_an_unclear_content_type_is_not_encrypted_unless_a_lenient_parser_can_read_it() -> None:
    assert shape(UNCLEAR) == Shape(Kind.PLAIN, "its Content-Type cannot be read", certain=False)
    understood = classify(split(UNCLEAR), lenient.content_type)
    assert understood.kind is Kind.PGP_MIME
    assert understood.certain


def test_what_a_lenient_parser_reads_does_not_hide_a_byte() -> None:
    for raw in (UNCLEAR + TEXT, UNCLEAR.replace(b"\n--frontier\n", TEXT + b"\n--frontier\n", 1)):
        assert classify(split(raw), lenient.content_type).kind is Kind.CLAIMS_ENCRYPTED


def test_the_lenient_parser_gets_nothing_but_the_header_section() -> None:
    """Of a large message, it would make many copies."""
    given: list[bytes] = []

    def reader(raw: bytes) -> ContentType | None:
        given.append(raw)
        return lenient.content_type(raw)

    assert classify(split(UNCLEAR), reader).encrypted
    assert given == [UNCLEAR[: split(UNCLEAR).body_start]]


def test_a_clear_content_type_needs_no_lenient_parser() -> None:
    def unexpected(raw: bytes) -> ContentType:
        raise AssertionError

    assert classify(split(pgp_mime()), unexpected).encrypted


def test_a_message_that_no_parser_can_read_is_not_encrypted() -> None:
    assert not classify(split(UNCLEAR), lambda raw: None).certain


def test_a_reason_never_quotes_the_message() -> None:
    raw = multipart(b"multipart/encrypted; protocol=SECRET", part(b"SECRET/SECRET", b"SECRET"))
    assert "SECRET" not in classify(split(raw), lenient.content_type).reason


MESSAGES = st.sampled_from([pgp_mime(), pgp_mime(CIPHERTEXT), part(b"text/plain", ARMORED), PLAIN_PART, UNCLEAR])


@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise_an_error(data: bytes) -> None:
    shape(data)
    for media_type in (ENCRYPTED_TYPE, b"multipart/mixed", b"text/plain", b"application/pkcs7-mime"):
        shape(part(media_type + b"; boundary=b", data))
        shape(part(media_type + b"; boundary=b", b"--b\n" + data + b"\n--b\n\n" + data))
    shape(b"Content-Type: " + data)


@given(st.sampled_from([pgp_mime(), part(b"text/plain", ARMORED)]), st.data())
def test_a_message_cut_within_the_ciphertext_is_not_encrypted(raw: bytes, data: st.DataObject) -> None:
    end = raw.index(b"-----END") + len(b"-----END PGP MESSAGE----")
    assert not shape(raw[: data.draw(st.integers(0, end))]).encrypted


@given(st.sampled_from([pgp_mime(), part(b"text/plain", ARMORED)]), st.text(min_size=1))
def test_a_message_with_text_behind_it_is_not_encrypted(raw: bytes, text: str) -> None:
    tail = text.encode("utf-8", "replace")
    assert shape(raw + tail).encrypted is (not tail.strip())


@settings(max_examples=300)
@given(st.sampled_from([pgp_mime(), part(b"text/plain", ARMORED)]), st.data())
def test_a_readable_line_anywhere_in_the_body_is_never_labelled_as_encrypted(raw: bytes, data: st.DataObject) -> None:
    message = split(raw)
    lines = message.body.split(b"\n")
    number = data.draw(st.integers(0, len(lines)))
    changed = raw[: message.body_start] + b"\n".join([*lines[:number], TEXT.strip(), *lines[number:]])
    assert not shape(changed).encrypted


@settings(max_examples=300)
@given(st.data())
def test_a_changed_line_outside_the_ciphertext_is_never_labelled_as_encrypted(data: st.DataObject) -> None:
    message = split(pgp_mime(preamble=PREAMBLE))
    lines = message.body.split(b"\n")
    visible = [number for number, line in enumerate(lines) if line and not line.startswith(b"Content-")]
    number = data.draw(st.sampled_from(visible))
    lines[number] = data.draw(st.text(min_size=5).filter(str.strip)).encode("utf-8", "replace") + b" at noon"
    assert not shape(message.raw[: message.body_start] + b"\n".join(lines)).encrypted


def nested(boundary: bytes) -> bytes:
    """20 MB of multiparts, each in the one before; "%d" in `boundary` becomes the depth."""
    level = b"--" + boundary + b"\nContent-Type: multipart/mixed; boundary=" + boundary + b"\n\n"
    levels = (level.replace(b"%d", b"%d" % depth) for depth in range(20_000_000 // len(level)))
    return part(b"multipart/mixed; boundary=" + boundary.replace(b"%d", b"0"), b"".join(levels))


@pytest.mark.parametrize("reader", [None, lenient.content_type])
@pytest.mark.parametrize(
    "media_type", [b"multipart/mixed", ENCRYPTED_TYPE, b"text/plain", b"application/pkcs7-mime", b";"]
)
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nested(b"b%d"), id="20-mb-nested-multiparts"),
        pytest.param(nested(b"b"), id="nested-with-one-boundary"),
        pytest.param(b"--b\n\nx\n" * 100_000, id="100000-parts"),
        pytest.param(b"--b\n\nx\n" * 400 + b"x" * 20_000_000, id="20-mb-part"),
        pytest.param(b"-----BEGIN PGP MESSAGE-----\n" + b"Comment: x\n" * 100_000, id="1-mb-of-armor-headers"),
        pytest.param(b"-----BEGIN PGP MESSAGE-----\n" * 100_000, id="armor-heads"),
        *[pytest.param(unit * 5_000_000, id=f"5-mb-of-{unit!r}") for unit in (b"\r", b"\n", b"-", b" ", b"(")],
        pytest.param(b"--b\n" + b"\r" * 5_000_000, id="cr-in-a-part"),
        pytest.param(b"--b\nContent-Type: (" + b"(" * 5_000_000, id="comment-in-a-part"),
    ],
)
def test_takes_linear_time(media_type: bytes, body: bytes, reader: Reader | None) -> None:
    message = split(part(media_type + b"; boundary=b", body))
    start = time.process_time()
    assert not classify(message, reader).encrypted
    assert time.process_time() - start < 3


def test_a_part_with_many_folded_lines_takes_linear_time() -> None:
    folded = b"Content-Description: x\n" + b" x\n" * 500_000
    start = time.process_time()
    assert not shape(pgp_mime(control=folded + CONTROL)).encrypted
    assert time.process_time() - start < 3


def test_header_sections_of_many_parts_take_little_memory() -> None:
    raw = multipart(b"multipart/mixed", *[b"a:\n" * 1_300 + b"\n"] * 490)
    message = split(raw)
    tracemalloc.start()
    assert not classify(message).encrypted
    may_be_encrypted(message)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(raw)


def test_the_limit_on_parts_counts_as_not_encrypted() -> None:
    text = part(b"text/plain", ARMORED)
    assert shape(multipart(b"multipart/mixed", *[text] * limits.MULTIPART_PARTS)).encrypted
    assert not shape(multipart(b"multipart/mixed", *[text] * (limits.MULTIPART_PARTS + 1))).encrypted


def test_the_reader_need_not_be_mail_parser() -> None:
    content = ContentType(b"text/plain")
    assert classify(split(part(b"?", ARMORED)), lambda raw: content).kind is Kind.INLINE_PGP
