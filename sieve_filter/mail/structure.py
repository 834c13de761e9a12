"""Reads the structure of a message with Python's email package and mail-parser, which forgive more than mime.py does.

It is slow to import, and Python's email parser below it needs more than linear time for some inputs; so it is for
messages about which the bytes say too little, and for people who want to see inside one.
"""

import re
from binascii import a2b_base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from sieve_filter import limits
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import ContentType

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

_CONTENT_FIELD = rb"\ncontent-[^\n]*+(?:\n++[ \t][^\n]*+)*+"  # compiled where it is used, which is seldom


class StructureError(Exception):
    """The message is too damaged to be taken apart, or it would take too long."""


class Part(NamedTuple):
    """A part of a message.

    `path` is "1" for the message itself, "1.2" for the second part of that, and so on. `file_name` is empty where there
    is none, and so is `transfer_encoding`. `size` counts decoded octets, and is None for what holds parts.
    """

    path: str
    content_type: str
    file_name: str
    size: int | None
    transfer_encoding: str


class Attachment(NamedTuple):
    """What mail-parser takes for an attachment; `size` counts decoded octets, `file_name` may be empty.

    Where mail-parser fails, it is a part that calls itself one or has a file name; `size` is as in the part.
    """

    file_name: str
    content_type: str
    size: int | None


class Structure(NamedTuple):
    """The Content-Type of a message, its parts from the outside to the inside, and its attachments."""

    content: ContentType
    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]


def read(raw: bytes) -> Structure:
    """The structure of the message `raw`. Raises StructureError, and nothing else, for any bytes at all."""
    content = _without_other_fields(split(raw))
    _check_limits(content)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _read(content)
        except Exception as error:  # the parsers below raise whatever a sender can provoke
            raise StructureError("it is too damaged to be taken apart") from error


def content_type(raw: bytes) -> ContentType | None:
    """The Content-Type of the message `raw`; None where it is too damaged to have one."""
    try:
        return read(raw).content
    except StructureError:
        return None


def _without_other_fields(message: Message) -> bytes:
    """The message with no other fields than Content-*: mail-parser would read, and may stumble over, all."""
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


def _read(raw: bytes) -> Structure:
    from email import message_from_bytes

    root = message_from_bytes(raw)
    parts = _parts(root)
    return Structure(_content_type(root), tuple(part for part, _ in parts), _attachments(root, parts))


def _parts(root: "EmailMessage") -> list[tuple[Part, bool]]:
    """Each part of `root`, in the order of the message, and whether it calls itself attached."""
    parts: list[tuple[Part, bool]] = []
    waiting = [("1", root)]
    while waiting:
        path, part = waiting.pop()
        parts.append((_part(path, part), part.get_content_disposition() == "attachment"))
        if part.is_multipart():
            inner = [(f"{path}.{number}", child) for number, child in enumerate(part.get_payload(), 1)]
            waiting.extend(reversed(inner))
    return parts


def _part(path: str, part: "EmailMessage") -> Part:
    from mailparser.utils import decode_header_part

    return Part(
        path,
        part.get_content_type(),
        decode_header_part(part.get_filename()),
        None if part.is_multipart() else len(part.get_payload(decode=True)),
        str(part.get("content-transfer-encoding", "")).strip().lower(),
    )


def _attachments(root: "EmailMessage", parts: list[tuple[Part, bool]]) -> tuple[Attachment, ...]:
    import logging

    from mailparser import MailParser

    # Its log lines quote the message.
    logging.getLogger("mailparser").setLevel(logging.CRITICAL + 1)
    try:
        attachments = MailParser(root).parse().attachments
    except Exception:  # it decodes all texts too, and stumbles over an unknown charset or a multipart without an end
        found = (part for part, attached in parts if attached or part.file_name)
        return tuple(Attachment(part.file_name, part.content_type, part.size) for part in found)
    names = {part.file_name for part, _ in parts} | {attachment["content-id"] for attachment in attachments}
    return tuple(_attachment(attachment, names) for attachment in attachments)


def _attachment(attachment: dict[str, Any], names: set[str]) -> Attachment:
    """An attachment as mail-parser tells of it, without the random name that it gives to one without any."""
    name, payload = attachment["filename"], attachment["payload"]
    size = _decoded_size(payload) if attachment["binary"] else len(payload.encode("utf-8", "surrogateescape"))
    return Attachment(name if name in names else "", attachment["mail_content_type"], size)


def _decoded_size(base64: str) -> int:
    """The octets that Python's email package takes from `base64`, however it is padded."""
    text = "".join(base64.splitlines()).encode("ascii", "replace")
    for padded in (text, text + b"=="):
        with suppress(ValueError):
            return len(a2b_base64(padded))
    return len(text)


def _content_type(root: "EmailMessage") -> ContentType:
    from email.utils import collapse_rfc2231_value

    parameters: dict[bytes, bytes] = {}
    for name, value in (root.get_params() or [])[1:]:
        octets = collapse_rfc2231_value(value).encode("utf-8", "surrogateescape")
        parameters.setdefault(name.lower().encode("utf-8", "surrogateescape"), octets)
    return ContentType(root.get_content_type().encode("utf-8", "surrogateescape"), parameters)
