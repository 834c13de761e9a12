"""Reads a message with Python's email package, which forgives more than mime.py does.

It is slow to import, and needs more than linear time for some inputs; so it is for messages about which the bytes say
too little.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sieve_filter import limits
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import ContentType

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

_CONTENT_FIELD = rb"\ncontent-[^\n]*+(?:\n++[ \t][^\n]*+)*+"  # compiled where it is used, which is seldom


class StructureError(Exception):
    """The message is too damaged to be taken apart, or it would take too long."""


@contextmanager
def parsed(raw: bytes) -> Iterator["EmailMessage"]:
    """The message `raw` with no other fields than Content-*, to be looked at inside of the block.

    Raises StructureError, and nothing else, for any bytes at all, and whatever goes wrong in the block.
    """
    content = _without_other_fields(split(raw))
    _check_limits(content)
    import warnings
    from email import message_from_bytes

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield message_from_bytes(content)
        except Exception as error:  # the parser raises whatever a sender can provoke
            raise StructureError("it is too damaged to be taken apart") from error


def content_type(raw: bytes) -> ContentType | None:
    """The Content-Type of the message `raw`; None where it is too damaged to have one."""
    try:
        with parsed(raw) as root:
            return _content_type(root)
    except StructureError:
        return None


def _without_other_fields(message: Message) -> bytes:
    """The message with no other fields than Content-*: parsers would read, and may stumble over, all."""
    fields = [field for field in message.fields if field.name.startswith(b"content-")]
    return b"".join(b"%s: %s\r\n" % (field.name, field.value) for field in fields) + b"\r\n" + message.body


def _check_limits(raw: bytes) -> None:
    """Raise StructureError when the parsers would need more than a few seconds, or more than Python's stack."""
    text = b"\n" + raw.lower().replace(b"\r", b"\n")  # Python's parser takes CR for a line end too
    containers = 1 + text.count(b"multipart/") + text.count(b"message/")
    squares = sum((field.end() - field.start()) ** 2 for field in re.finditer(_CONTENT_FIELD, text))
    for what, measured, limit in (
        ("containers", containers, limits.STRUCTURE_CONTAINERS),
        ("octets times containers", len(text) * containers, limits.STRUCTURE_OCTETS),
        ("lines times containers", text.count(b"\n") * (containers + 10), limits.STRUCTURE_LINES),
        ("lines that may divide parts", text.count(b"\n--"), limits.STRUCTURE_DASHED_LINES),
        ("squared octets of Content fields", squares, limits.STRUCTURE_FIELD_SQUARES),
    ):
        if measured > limit:
            raise StructureError(f"{measured} {what}; the limit is {limit}")


def _content_type(root: "EmailMessage") -> ContentType:
    from email.utils import collapse_rfc2231_value

    parameters: dict[bytes, bytes] = {}
    for name, value in (root.get_params() or [])[1:]:
        octets = collapse_rfc2231_value(value).encode("utf-8", "surrogateescape")
        parameters.setdefault(name.lower().encode("utf-8", "surrogateescape"), octets)
    return ContentType(root.get_content_type().encode("utf-8", "surrogateescape"), parameters)
