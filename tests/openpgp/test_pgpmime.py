"""The format: what is outside, what inside, and that taking it apart gives back the original."""

import email
import email.policy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.mail import protection
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.mail.message import split
from sieve_filter.openpgp import pgpmime
from tests.support.messages import any_message

ARMOR = b"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n"
policies = st.sampled_from(list(POLICIES))


def protect(raw: bytes, policy: str = "no_confidentiality") -> protection.Protected:
    return protection.protect(split(raw), POLICIES[policy])


def compose(raw: bytes, policy: str = "no_confidentiality") -> bytes:
    protected = protect(raw, policy)
    header, before, behind = pgpmime.frame(protected, b"_b_")
    return header + before + ARMOR.replace(b"\n", protected.eol) + behind


@given(any_message, policies)
def test_any_message_comes_back_byte_for_byte(raw: bytes, policy: str) -> None:
    assert protection.restore(protect(raw, policy).inside) == raw


@given(any_message, policies)
def test_the_result_is_pgp_mime_to_every_parser_whatever_came_in(raw: bytes, policy: str) -> None:
    stored = compose(raw, policy)
    ours = split(stored)
    assert len(ours.named(b"content-type")) == 1
    assert [field.value[:3] for field in ours.named(b"mime-version")] == [b"1.0"]
    assert ours.body.startswith(b"--_b_")
    theirs = email.message_from_bytes(stored, policy=email.policy.compat32)
    assert theirs.get_content_type() == "multipart/encrypted"
    assert not theirs.defects
    assert [part.get_content_type() for part in theirs.walk()][1:] == [
        "application/pgp-encrypted",
        "application/octet-stream",
    ]


@given(any_message, policies)
def test_the_inside_is_a_mime_part_with_protected_header_whatever_came_in(raw: bytes, policy: str) -> None:
    inside = split(protect(raw, policy).inside)
    assert any(b'hp="cipher"' in field.value for field in inside.named(b"content-type"))
    assert inside.separated or not inside.body
    assert inside.agreed
    assert not inside.strays


@given(st.binary(max_size=100), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), max_size=4))
def test_a_forged_list_of_insertions_is_refused_or_obeyed_but_never_a_crash(
    rest: bytes, entries: list[tuple[int, int]]
) -> None:
    listed = b"".join(b" %d+%d" % entry for entry in entries)
    restored = protection.restore(b"X-Cryptomail-Inserted:" + listed + b"\r\n" + rest)
    assert restored is None or len(restored) == len(rest) - sum(length for _, length in entries)


def test_outside_stand_all_fields_but_those_on_content_in_order_and_untouched() -> None:
    raw = (
        b"Received: one\r\nReceived: two\r\nSUBJECT:  \xf0\x9f\x98\x80  \r\nContent-Type: text/plain\r\n"
        b"MIME-Version: 1.0 (odd)\r\nX-Folded: a\r\n\tb\r\nContent-Language: en\r\nReceived: three\r\n\r\nbody\r\n"
    )
    kept = (
        b"Received: one\r\nReceived: two\r\nSUBJECT:  \xf0\x9f\x98\x80  \r\n"
        b"MIME-Version: 1.0 (odd)\r\nX-Folded: a\r\n\tb\r\nReceived: three\r\n"
    )
    assert compose(raw).startswith(kept + b"X-Cryptomail: encrypted-at-delivery\r\nContent-Type: multipart/encrypted;")


STRAY_CASES = [
    pytest.param(b"From a@b Thu Jan  1 00:00:00 1970", b"Received: x\r\nX-A: b\r\nTo: c\r\nMIME-V", id="mbox-line"),
    pytest.param(b"lost words", b"Received: x\r\nTo: c\r\nMIME-V", id="line-without-a-colon"),
    pytest.param(b"Lost Words: x\r\n y", b"Received: x\r\nTo: c\r\nMIME-V", id="name-with-spaces"),
    pytest.param(b"Words : x", b"Received: x\r\nTo: c\r\nMIME-V", id="space-before-the-colon"),
    pytest.param(b"Cc : x", b"Received: x\r\nCc: x\r\nTo: c\r\nMIME-V", id="space-before-the-colon-of-cc"),
]


@pytest.mark.parametrize(("line", "outside"), STRAY_CASES)
def test_fields_behind_a_line_that_is_no_field_are_listed_and_nothing_that_may_be_text(
    line: bytes, outside: bytes
) -> None:
    protected = protect(b"Received: x\r\n" + line + b"\r\nX-A: b\r\nTo: c\r\n\r\nbody")
    assert protected.outside.startswith(outside)


def test_what_is_perhaps_a_quoted_message_in_the_body_does_not_stand_outside() -> None:
    outside = protect(b"Subject: s\r\nTo: c\r\nHi!\r\nSubject: in secret\r\nTo: d\r\n\r\nbody").outside
    assert outside == b"Subject: s\r\nTo: c\r\nMIME-Version: 1.0\r\n"


@pytest.mark.parametrize(("line", "outside"), STRAY_CASES)
def test_inside_all_mail_clients_see_every_field(line: bytes, outside: bytes) -> None:
    raw = b"Received: x\r\n" + line + b"\r\nContent-Type : text/html\r\nX-A: b\r\nTo: c\r\n\r\nbody"
    inside = email.message_from_bytes(protect(raw).inside)
    assert not inside.defects
    assert (inside["to"], inside["x-a"], inside.get_payload()) == ("c", "b", "body")
    assert (inside.get_content_type(), inside.get_param("hp")) == ("text/html", "cipher")


@pytest.mark.parametrize("end", [b"\r", b"\r\r\n", b"\r\n", b"\n"], ids=repr)
def test_inside_all_mail_clients_know_the_line_ends(end: bytes) -> None:
    raw = end.join([b"Received: x", b"Content-Type: text/html", b"To: c", b"", b"body"])
    inside = email.message_from_bytes(protect(raw).inside)
    assert not inside.defects
    assert (inside["to"].strip(), inside.get_content_type()) == ("c", "text/html")
    assert str(inside.get_payload()).strip() == "body"


def test_nobody_can_forge_hp_outer_with_a_space() -> None:
    inside = split(protect(b"HP-Outer : Subject: forged\r\nTo: c\r\n\r\nb").inside)
    assert [field.value for field in inside.named(b"hp-outer")] == [b"To: c"]


def test_mime_version_is_added_where_it_is_missing() -> None:
    assert split(compose(b"Subject: s\r\n\r\nb")).named(b"mime-version")[0].value == b"1.0"


@pytest.mark.parametrize(
    ("fields", "outside"),
    [
        (b"MIME-Version: RFC-XXXX\r\n", b"MIME-Version: 1.0\r\n"),
        (b"MIME-Version: 1.0\r\nMIME-Version: 1.0\r\n", b"MIME-Version: 1.0\r\n"),
        (b"MIME-Version: 2.0\r\nMIME-Version: 1.0 (x)\r\n", b"MIME-Version: 1.0 (x)\r\n"),
        (b"lost words\r\nMIME-Version: 1.0 (x)\r\n", b"MIME-Version: 1.0\r\n"),
    ],
)
def test_outside_stands_one_mime_version_and_the_original_inside(fields: bytes, outside: bytes) -> None:
    protected = protect(fields + b"\r\nb")
    assert protected.outside == outside
    assert protection.restore(protected.inside) == fields + b"\r\nb"


def test_nobody_can_forge_our_own_field() -> None:
    stored = split(compose(b"X-Cryptomail: forged\r\nx-cryptomail-inserted: 0+1\r\nSubject: s\r\n\r\nb"))
    assert [field.value for field in stored.named(b"x-cryptomail")] == [b"encrypted-at-delivery"]
    assert not stored.named(b"x-cryptomail-inserted")


def test_hidden_subject_stands_inside_only_and_clients_are_told_to_show_it() -> None:
    raw = b"Subject: the secret\r\nThread-Topic: the secret\r\nContent-Type: text/plain\r\n\r\nb"
    protected = protect(raw, "baseline")
    assert protected.outside.startswith(b"Subject: [...]\r\n")
    assert b"secret" not in protected.outside
    assert b'Content-Type: text/plain; hp="cipher"; protected-headers="v1"\r\n' in protected.inside
    assert b"HP-Outer: Subject: [...]\r\n" in protected.inside


def test_visible_subject_needs_no_protected_headers_parameter() -> None:
    assert b"protected-headers" not in protect(b"Subject: s\r\n\r\nb").inside


def test_each_visible_field_is_recorded_inside_but_structural_ones() -> None:
    inside = protect(b"From: a\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\nTo: b\r\n c\r\n\r\nx").inside
    recorded = [line for line in inside.split(b"\r\n") if line.startswith(b"HP-Outer")]
    assert recorded == [b"HP-Outer: From: a", b"HP-Outer: To: b"]
    assert b"HP-Outer: To: b\r\n c\r\n" in inside


def test_a_senders_hp_outer_does_not_pass_for_ours() -> None:
    inside = split(protect(b"HP-Outer: Subject: forged\r\nSubject: s\r\n\r\nb").inside)
    assert [field.value for field in inside.named(b"hp-outer")] == [b"HP-Outer: Subject: forged", b"Subject: s"]
    assert inside.named(b"original-hp-outer")


@pytest.mark.parametrize(
    ("field", "inside"),
    [
        (b"Content-Type: text/plain", b'Content-Type: text/plain; hp="cipher"'),
        (b"content-TYPE:text/html;", b'content-TYPE:text/html; hp="cipher";'),
        (b"Content-Type:\r\n text/html;\r\n x=y", b'Content-Type:\r\n text/html; hp="cipher";\r\n x=y'),
        (b'Content-Type: text/plain; hp="clear"', b'Content-Type: text/plain; hp="cipher"; hp="clear"'),
        (b"Content-Type: nonsense", b'Content-Type: text/plain; hp="cipher"\r\nContent-Type: nonsense'),
    ],
)
def test_header_protection_parameter_fits_any_content_type(field: bytes, inside: bytes) -> None:
    assert inside in protect(field + b"\r\n\r\nbody").inside


def test_every_duplicate_of_content_type_gets_the_parameter_for_readers_differ_in_which_counts() -> None:
    inside = protect(b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nb").inside
    assert inside.count(b'; hp="cipher"') == 2


def test_line_ends_follow_the_message() -> None:
    assert b"\r" not in compose(b"Subject: s\n\nbody\n")
    assert compose(b"Subject: s\r\n\r\nbody\r\n").count(b"\n") == compose(b"Subject: s\r\n\r\nbody\r\n").count(b"\r\n")


def test_only_a_message_that_says_so_is_marked() -> None:
    assert protection.marked(split(compose(b"Subject: s\r\n\r\nb")))
    assert not protection.marked(split(b"Subject: s\r\n\r\nb"))


@pytest.mark.parametrize(
    "unit", [b"A: b\r\n", b"Content-Type: a/b\n", b"A: b\r", b"A: \r\r\n", b"HP-Outer: x\n"], ids=repr
)
def test_a_megabyte_of_header_takes_seconds(unit: bytes) -> None:
    raw = unit * (1_000_000 // len(unit))
    started = time.process_time()
    assert protection.restore(protect(raw).inside) == raw
    assert time.process_time() - started < 10
