"""Dovecot's script protocol: how Pigeonhole calls a program that listens on a socket. Pure: bytes in, values out.

    VERSION <tab> script <tab> 4 <tab> MINOR
    env_NAME=VALUE              a line for each variable, tab-escaped
    -                           or `noreply`
    ARGUMENT                    a line for each, tab-escaped
                                an empty line ends the head; the message follows, until the client ends its side

The answer is the program's output, and then a line that says whether it succeeded. Dovecot's documents do not have it;
this is what 2.3 and 2.4 send (lib-program-client).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# Dovecot sets a dozen variables; a Sieve script gives 16 arguments of 1,024 octets (RFC 5228 names no limits).
HEAD_OCTETS = 100_000

SUCCESS, FAILURE = b"+\n", b"-\n"

_VERSION = re.compile(rb"VERSION\tscript\t4\t[0-9]{1,4}")
_ESCAPED = re.compile(rb"\x01(.?)", re.DOTALL)
_MEANING = {b"0": b"\0", b"1": b"\x01", b"t": b"\t", b"r": b"\r", b"n": b"\n"}


class ProtocolError(ValueError):
    """The client does not speak this protocol."""


class Request(NamedTuple):
    """What Pigeonhole would have given to a program: its environment, and its arguments."""

    environment: Mapping[str, str]
    arguments: tuple[str, ...]


def split_head(received: bytes) -> tuple[bytes, bytes] | None:
    """The head, and what has been received of the message behind it; None where the head has not ended.

    Raises ProtocolError where it has become too long.
    """
    head, end, message = received.partition(b"\n\n")
    if len(head) > HEAD_OCTETS:
        raise ProtocolError(f"the head has more than {HEAD_OCTETS} octets")
    return (head, message) if end else None


def parse(head: bytes) -> Request:
    """The request that `head` (see `split_head`) makes. Raises ProtocolError."""
    version, *lines = head.split(b"\n")
    if not _VERSION.fullmatch(version):
        raise ProtocolError("the first line is not that of version 4 of the script protocol")
    environment: dict[str, str] = {}
    while lines and lines[0].startswith(b"env_"):
        name, equals, value = lines.pop(0).removeprefix(b"env_").partition(b"=")
        if not equals:
            raise ProtocolError("a variable has no value")
        environment[_text(name)] = _text(value)
    if not lines or lines.pop(0) != b"-":
        raise ProtocolError("the client does not wait for an answer")
    return Request(environment, tuple(_text(line) for line in lines))


def _text(escaped: bytes) -> str:
    return _ESCAPED.sub(_meaning, escaped).decode("utf-8", "surrogateescape")


def _meaning(escaped: re.Match[bytes]) -> bytes:
    if escaped[1] not in _MEANING:
        raise ProtocolError("a line has an escape that does not exist")
    return _MEANING[escaped[1]]
