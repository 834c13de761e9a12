"""Header confidentiality policies of RFC 9788."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.mail.header_policy import POLICIES, shy
from sieve_filter.mail.message import split

pieces = st.lists(st.sampled_from([b":", b"(", b"<", b'"', b"@", b"Mon, ", b"1 Jan ", b"12:00", b"+", b"9999", b"\\"]))

POLICY_CASES = [
    ("no_confidentiality", b"Subject: s", True),
    ("no_confidentiality", b"Keywords: k", True),
    ("baseline", b"Subject: s", b"[...]"),
    ("baseline", b"Keywords: k", False),
    ("baseline", b"Comments: c", False),
    ("baseline", b"Thread-Topic: s", False),
    ("baseline", b"From: Alice <alice@example.org>", True),
    ("shy", b"Subject: s", b"[...]"),
    ("shy", b"From: Alice <alice@example.org>", b"alice@example.org"),
    ("shy", b'To: A <a@example.org>, "B, C" <b@example.org>', b"a@example.org, b@example.org"),
    ("shy", b"Cc: undisclosed-recipients:;", False),
    ("shy", b"From: \xff\xfe <x@example.org>", b"x@example.org"),
    ("shy", b"Date: Mon, 1 Jan 2024 01:00:00 +0200", b"Sun, 31 Dec 2023 23:00:00 +0000"),
    ("shy", b"Date: at tea time", False),
    ("shy", b"Date: Fri, 31 Dec 9999 23:00:00 -2300", False),
    ("shy", b"To: " + b":" * 1_000, False),
    ("shy", b"Cc: " + b"(" * 5_000, False),
    ("shy", b"Date: " + b"9" * 5_000 + b" Jan 2024 12:00:00 +0000", False),
    ("shy", b"Date: Mon, 1 Jan 2024 01:00:00 +" + b"9" * 30, False),
    ("shy", b"Date: \xff", False),
    ("shy", b"Reply-To: Alice <alice@example.org>", True),
]


@pytest.mark.parametrize(("policy", "line", "shown"), POLICY_CASES, ids=lambda value: str(value)[:40])
def test_policy_shows_just_this_of_a_field(policy: str, line: bytes, shown: bool | bytes) -> None:
    (field,) = split(line + b"\r\n").fields
    assert POLICIES[policy](field) == shown


@given(st.sampled_from([b"From", b"To", b"Cc", b"Date"]), st.binary(max_size=100) | pieces.map(b"".join))
def test_shy_shows_an_address_or_a_date_or_nothing_of_any_bytes_at_all(name: bytes, value: bytes) -> None:
    (field, *_) = split(name + b": " + value.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n").fields
    shown = shy(field)
    assert shown is False or (isinstance(shown, bytes) and b"\n" not in shown)
