"""Reads the structure of a message with mail-parser, for people who want to see inside one. No delivery does."""

import logging
from binascii import a2b_base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from mailparser import MailParser
from mailparser.utils import decode_header_part

from sieve_filter.mail import lenient

if TYPE_CHECKING:
    from email.message import Message as EmailMessage

logging.getLogger("mailparser").setLevel(logging.CRITICAL + 1)  # its log lines quote the message


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
    """The parts of a message from the outside to the inside, and its attachments."""

    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]


def read(raw: bytes) -> Structure:
    """The structure of the message `raw`. Raises StructureError, and nothing else, for any bytes at all."""
    with lenient.parsed(raw) as root:
        parts = _parts(root)
        return Structure(tuple(part for part, _ in parts), _attachments(root, parts))


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
    return Part(
        path,
        part.get_content_type(),
        decode_header_part(part.get_filename()),
        None if part.is_multipart() else len(part.get_payload(decode=True)),
        str(part.get("content-transfer-encoding", "")).strip().lower(),
    )


def _attachments(root: "EmailMessage", parts: list[tuple[Part, bool]]) -> tuple[Attachment, ...]:
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
