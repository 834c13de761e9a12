"""The IMAP client, with what servers say written out."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.dovecot import imap
from sieve_filter.dovecot.imap import Listed, Session
from sieve_filter.errors import ImapRefusalError, ServiceError


def session(*answers: bytes, sent: io.BytesIO | None = None, most: int = 100) -> Session:
    """A session with a server that says this, whatever it is asked."""
    said = io.BytesIO(b"* PREAUTH ready\r\n" + b"".join(answers))
    return Session(said, sent or io.BytesIO(), most)


def test_folders_are_listed_whatever_their_names() -> None:
    found = session(
        b'* LIST (\\HasNoChildren \\Drafts) "/" "My drafts"\r\n',
        b'* LIST (\\Noselect) "/" above\r\n',
        b'* LIST () "." {6}\r\na"b\\c.\r\n',
        b"* LIST () NIL INBOX\r\n",
        b"c1 OK done\r\n",
    ).listing()
    assert found == [
        Listed(b'"My drafts"', frozenset({b"\\hasnochildren", b"\\drafts"}), b"/"),
        Listed(b'"a\\"b\\\\c."', frozenset(), b"."),
        Listed(b"INBOX", frozenset(), b""),
    ]


@pytest.mark.parametrize(
    ("answer", "own", "others"),
    [
        (b'(("" "/")) NIL NIL', [b""], []),
        (
            b'(("INBOX." ".")) (("user." ".")) (("public." ".") ("news." "."))',
            [b"INBOX."],
            [b"user.", b"public.", b"news."],
        ),
        (b'(("" "/" "X-PARAM" ("FLAG1" "FLAG2"))) NIL (("a\\"b/" "/"))', [b""], [b'a"b/']),
        (b'NIL NIL (("" "."))', [], [b""]),
    ],
)
def test_namespaces_are_told_apart(answer: bytes, own: list[bytes], others: list[bytes]) -> None:
    assert session(b"* NAMESPACE " + answer + b"\r\n", b"c1 OK done\r\n").namespaces() == (own, others)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_folder_s_name_is_shown_as_it_was_meant(name: str) -> None:
    assert imap.label(imap.mailbox(name)) == name


def test_what_is_no_modified_utf_7_is_shown_as_it_is() -> None:
    assert imap.label(b"&AP") == "&AP"
    assert imap.label(b"&A-") == "&A-"
    assert imap.label(b"\xff") == "\\xff"


@given(st.sets(st.integers(1, 4_294_967_295) | st.integers(1, 50)))
def test_a_set_of_uids_has_these_and_no_others(numbers: set[int]) -> None:
    text = imap.sequence(numbers)
    assert (imap.uids(text) if text else []) == sorted(numbers)


def test_uids_that_follow_one_another_take_one_word() -> None:
    assert imap.sequence(range(1, 100_000)) == b"1:99999"
    assert imap.uids(b"4,7:9,2") == [4, 7, 8, 9, 2]


def test_messages_are_saved_at_once() -> None:
    sent = io.BytesIO()
    drafts = [imap.Draft([b"\\Seen", b"$a"], b"01-Jan-2020 00:00:00 +0000", 3, [b"a", b"bc"])] * 2
    said = b"c1 OK [APPENDUID 9 4:5] done\r\n"
    assert session(said, sent=sent).append(b"INBOX", drafts, at_once=True) == [4, 5]
    one = b' (\\Seen $a) "01-Jan-2020 00:00:00 +0000" {3+}\r\nabc'
    assert sent.getvalue() == b"c1 APPEND INBOX" + one + one + b"\r\n"
    with pytest.raises(ImapRefusalError, match="TRYCREATE"):
        session(b"c1 NO [TRYCREATE] none\r\n").append(b"INBOX", drafts, at_once=False)


def test_a_refusal_says_why() -> None:
    with pytest.raises(ImapRefusalError, match=r"IMAP APPEND was refused: NO \[OVERQUOTA\] Quota exceeded") as refused:
        session(b"c1 NO [OVERQUOTA] Quota exceeded\r\n").run(b"APPEND x")
    assert refused.value.response_code == "OVERQUOTA"


def test_what_a_server_asks_for_is_sent() -> None:
    sent = io.BytesIO()
    session(b"+ go on\r\n", b"c1 OK done\r\n", sent=sent).run(b"APPEND x", b"octets")
    assert sent.getvalue() == b"c1 APPEND x {6}\r\noctets\r\n"


@pytest.mark.parametrize(
    "answers",
    [b"", b"* 1 FETCH (BODY[] {5}\r\nab", b"* 1 FETCH (BODY[] {101}\r\n", b"no line end", b"* " + b"x" * 200_000],
)
def test_what_is_cut_short_or_too_long_ends_the_session(answers: bytes) -> None:
    with pytest.raises(ServiceError):
        session(answers).run(b"NOOP")
