"""What `cryptomail inspect` tells about a message: its kind, its parts, and what the filter would do. Pure."""

import json
from typing import NamedTuple

from sieve_filter.detection import classify
from sieve_filter.mail import lenient, protection, structure
from sieve_filter.mail.lenient import StructureError
from sieve_filter.mail.message import split
from sieve_filter.mail.structure import Attachment, Part
from sieve_filter.system import stdio


class Inspection(NamedTuple):
    """`kind` is a value of `classify.Kind`; `structure_error` says why there are no parts, and is empty else."""

    kind: str
    reason: str
    encrypted: bool
    encrypted_at_delivery: bool
    key_ids: tuple[str, ...]
    parts: tuple[Part, ...]
    attachments: tuple[Attachment, ...]
    structure_error: str

    @property
    def verdict(self) -> str:
        """What the filter would do, and why."""
        if self.encrypted:
            return f"leave it alone: {self.reason}"
        return f"encrypt it, if its owner has a key: {self.reason}"


def inspect(raw: bytes) -> Inspection:
    """Everything that can be said about the message `raw` without a key. Any bytes at all can be inspected."""
    message = split(raw)
    kind = classify.classify(message, lenient.content_type)
    parts: tuple[Part, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    structure_error = ""
    try:
        parts, attachments = structure.read(raw)
    except StructureError as error:
        structure_error = str(error)
    return Inspection(
        kind=kind.kind.value,
        reason=kind.reason,
        encrypted=kind.encrypted,
        encrypted_at_delivery=kind.encrypted and protection.marked(message),
        key_ids=kind.key_ids,
        parts=parts,
        attachments=attachments,
        structure_error=structure_error,
    )


def as_json(inspection: Inspection) -> str:
    """`inspection` as a JSON object, with the names of its attributes; each part and attachment is an object too."""
    fields = inspection._asdict() | {
        "parts": [part._asdict() for part in inspection.parts],
        "attachments": [attachment._asdict() for attachment in inspection.attachments],
        "verdict": inspection.verdict,
    }
    return json.dumps(fields, indent=2)


def as_text(inspection: Inspection) -> str:
    """`inspection` for a person. A file name is a sender's text: what a terminal might act on is escaped."""
    lines = [
        f"kind:         {inspection.kind}",
        f"encrypted to: {', '.join(inspection.key_ids) or '-'}",
        f"filter would: {inspection.verdict}",
    ]
    if inspection.encrypted_at_delivery:
        lines.append("encrypted by: cryptomail, at delivery (so says its header section; anybody can write that)")
    if inspection.structure_error:
        lines.append(f"parts:        not read: {inspection.structure_error}")
    for part in inspection.parts:
        encoding = f" ({part.transfer_encoding})" if part.transfer_encoding else ""
        lines.append(f"part {part.path}: {part.content_type}{_octets(part.size)}{encoding}{_named(part.file_name)}")
    lines += [
        f"attachment: {attachment.content_type}{_octets(attachment.size)}{_named(attachment.file_name)}"
        for attachment in inspection.attachments
    ]
    return "\n".join(map(stdio.for_terminal, lines))


def _octets(size: int | None) -> str:
    return "" if size is None else f" {size} octets"


def _named(file_name: str) -> str:
    return f" {file_name!r}" if file_name else ""
