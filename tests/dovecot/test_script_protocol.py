"""Dovecot's script protocol, octet for octet."""

import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.dovecot.script_protocol import HEAD_OCTETS, ProtocolError, Request, parse, split_head
from sieve_filter.errors import UsageError
from sieve_filter.owners.owner import identify
from tests.support.workers import head

# As Dovecot 2.3.19.1 sent it.
HEAD = (
    b"VERSION\tscript\t4\t0\n"
    b"env_USER=alice@example.org\n"
    b"env_HOME=/var/mail/alice\n"
    b"env_SENDER=b@example.com\n"
    b"env_RECIPIENT=alice+x@example.org\n"
    b"-\n"
    b"--header-policy\n"
    b"baseline\n"
    b"\n"
)
MESSAGE = b"Subject: s\r\n\r\ntext\r\n\n\n"
ENVIRONMENT = {
    "USER": "alice@example.org",
    "HOME": "/var/mail/alice",
    "SENDER": "b@example.com",
    "RECIPIENT": "alice+x@example.org",
}


def read(received: bytes) -> "tuple[Request, bytes] | None":
    parts = split_head(received)
    return None if parts is None else (parse(parts[0]), parts[1])


def test_request_is_read() -> None:
    assert read(HEAD) == (Request(ENVIRONMENT, ("--header-policy", "baseline")), b"")


def test_message_may_come_right_behind_the_head() -> None:
    assert read(HEAD + MESSAGE) == (Request(ENVIRONMENT, ("--header-policy", "baseline")), MESSAGE)


@pytest.mark.parametrize("length", range(len(HEAD)))
def test_head_that_is_cut_has_not_ended(length: int) -> None:
    assert split_head(HEAD[:length]) is None


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        pytest.param(b"VERSION\tscript\t4\t0\n-\n\n", Request({}, ()), id="nothing"),
        pytest.param(b"VERSION\tscript\t4\t1\n-\n\n", Request({}, ()), id="later-minor-version"),
        pytest.param(b"VERSION\tscript\t4\t0\n-\na\n\n", Request({}, ("a",)), id="no-variables"),
        pytest.param(b"VERSION\tscript\t4\t0\nenv_A=\n-\n\n", Request({"A": ""}, ()), id="empty-variable"),
        pytest.param(b"VERSION\tscript\t4\t0\nenv_A=b=c\n-\n\n", Request({"A": "b=c"}, ()), id="equals-sign"),
        pytest.param(b"VERSION\tscript\t4\t0\nenv_A=b\n-\nenv_C=d\n\n", Request({"A": "b"}, ("env_C=d",)), id="late"),
        pytest.param(b"VERSION\tscript\t4\t0\n-\n-\n-\n\n", Request({}, ("-", "-")), id="hyphens"),
        pytest.param(
            b"VERSION\tscript\t4\t0\nenv_A=1\x01t2\x01n3\x01r4\x010\x0115\n-\n\x01t\n\n",
            Request({"A": "1\t2\n3\r4\0\x015"}, ("\t",)),
            id="escapes",
        ),
        pytest.param(
            b"VERSION\tscript\t4\t0\nenv_A=\xc3\xa4\xff\n-\n\xfe\n\n",
            Request({"A": "ä\udcff"}, ("\udcfe",)),
            id="8-bit",
        ),
    ],
)
def test_every_form_of_a_request_is_read(received: bytes, expected: Request) -> None:
    assert read(received) == (expected, b"")


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(b"\n\n", id="empty"),
        pytest.param(b"GET / HTTP/1.1\n\n", id="other-protocol"),
        pytest.param(HEAD.replace(b"4\t0", b"3\t0"), id="older-version"),
        pytest.param(HEAD.replace(b"4\t0", b"5\t0"), id="later-version"),
        pytest.param(HEAD.replace(b"4\t0", b"4"), id="no-minor-version"),
        pytest.param(HEAD.replace(b"4\t0", b"4\t0\t0"), id="further-version"),
        pytest.param(HEAD.replace(b"script", b"master"), id="other-service"),
        pytest.param(HEAD.replace(b"VERSION", b"VERSION "), id="space"),
        pytest.param(b" " + HEAD, id="space-before"),
        pytest.param(HEAD.replace(b"\n-\n", b"\nnoreply\n"), id="noreply"),
        pytest.param(HEAD.replace(b"\n-\n", b"\n"), id="no-hyphen"),
        pytest.param(HEAD.replace(b"\n-\n", b"\n--\n"), id="two-hyphens"),
        pytest.param(HEAD.replace(b"USER=", b"USER"), id="no-equals-sign"),
        pytest.param(HEAD.replace(b"env_USER", b"ENV_USER"), id="upper-case"),
        pytest.param(HEAD.replace(b"alice@", b"alice\x01@"), id="unknown-escape"),
        pytest.param(HEAD.replace(b"baseline", b"baseline\x01"), id="escape-at-the-end"),
        pytest.param(b"VERSION\tscript\t4\t0\n\n", id="version-only"),
    ],
)
def test_anything_else_is_refused(received: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(received)


@pytest.mark.parametrize("nul", [b"\0", b"\x010"], ids=["plain", "escaped"])
def test_nul_does_not_shorten_a_value_and_names_nobody(nul: bytes) -> None:
    request = read(HEAD.replace(b"alice@", b"alice" + nul + b"@"))
    assert request is not None
    assert request[0].environment["USER"] == "alice\0@example.org"
    with pytest.raises(UsageError, match="control character"):
        identify(request[0].environment, {})


def test_longest_head_is_read_and_a_longer_one_is_not() -> None:
    frame = len(b"VERSION\tscript\t4\t0\n-\n")
    longest = b"VERSION\tscript\t4\t0\n-\n" + b"x" * (HEAD_OCTETS - frame)
    assert read(longest + b"\n\n" + MESSAGE * 100_000) is not None
    for one in (longest + b"x\n\n", longest + b"xx", b"x" * HEAD_OCTETS * 2):
        with pytest.raises(ProtocolError, match="octets"):
            split_head(one)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"VERSION\tscript\t4\t0\n" + data + b"\n\n"))
def test_any_octets_are_a_request_or_refused(data: bytes) -> None:
    try:
        parts = read(data)
    except ProtocolError as error:
        assert "\n" not in str(error)
    else:
        assert parts is None or isinstance(parts[0], Request)


_NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: b"=" not in name)
_VALUES = st.binary(max_size=100)
_ARGUMENTS = st.lists(st.binary(min_size=1, max_size=100), max_size=16)  # an empty one would end the head


@given(st.dictionaries(_NAMES, _VALUES, max_size=8), _ARGUMENTS, st.binary(max_size=50))
def test_whatever_dovecot_sends_arrives(
    environment: Mapping[bytes, bytes], arguments: list[bytes], rest: bytes
) -> None:
    expected = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
    request = Request(expected, tuple(map(os.fsdecode, arguments)))
    assert read(head(environment, *arguments) + rest) == (request, rest)
