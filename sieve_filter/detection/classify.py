"""Decides whether a message is encrypted already: by its structure, never by what it claims to be.

Calling plain text encrypted would store it readable; calling ciphertext plain only encrypts it twice. So a message is
encrypted when every octet of its body is accounted for: ciphertext, or one of the few lines that must be around it.
What has to be ciphertext must look random, and what the sender is free to write around it is short.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import (
    WHITE_SPACE,
    ContentType,
    content_type,
    decode,
    decode_base64,
    split_multipart,
    transfer_encoding,
)
from sieve_filter.mail.randomness import Letters, Randomness
from sieve_filter.openpgp.armor import header_text
from sieve_filter.openpgp.encrypted import EncryptedMessage, encrypted_payload

# RFC 2045 section 5.2: what a message or part without a Content-Type is.
_TEXT = ContentType(b"text/plain")

_PKCS7 = (b"application/pkcs7-mime", b"application/x-pkcs7-mime")  # RFC 8551 section 3.2; the older name
_CONTROL = b"application/pgp-encrypted"  # RFC 3156 section 4

# What mail programs write above the parts of an encrypted message, for readers without MIME. Anything else there is
# text that somebody wrote. Compiled where it is first used: plain mail has no need of it.
_PREAMBLE = (
    rb"(?:This is an OpenPGP/MIME encrypted message \(RFC (?:(?:2440|4880|9580) and )?3156\)\.?"
    rb"|This is a multi-?part message in MIME format\.{0,3}"
    rb"|This is a MIME-encapsulated message\.?"
    rb"|This message is in MIME format(?: and has been PGP encrypted)?\.)?"
)

# What mail programs write into the header sections of parts, in pieces between semicolons. What else is there is
# text that somebody wrote: names of files, for one.
_PARAMETERS = frozenset(
    (b"charset", b"creation-date", b"delsp", b"filename", b"format", b"modification-date", b"name", b"size")
)
_DATE = rb"[a-z]{3}, [0-9]{1,2} [a-z]{3} [0-9]{4} [0-9:]{8} (?:gmt|[+-][0-9]{4})"
# Compiled where it is first used, too.
_USUAL = (
    rb"(?i:application/(?:pgp-encrypted|octet-stream|pgp)|text/(?:plain|html)"
    rb"|7bit|8bit|binary|base64|quoted-printable|inline|attachment|1\.0"
    rb"|us-ascii|utf-8|iso-8859-[0-9]{1,2}|windows-125[0-9]|flowed|yes|no|[0-9]{1,12}|" + _DATE + rb"|"
    rb"(?:open)?pgp/mime versions? identification|(?:openpgp|pgp/mime) encrypted message"
    rb"|this is an encrypted message part\.?"
    rb"|(?:encrypted|message|msg|openpgp-encrypted-message)\.(?:asc|gpg|pgp)|gpgolpgp\.dat|att[0-9]{5}(?:\.[a-z]{3})?)"
)
_PART_FIELDS = frozenset(
    b"content-" + name for name in (b"type", b"transfer-encoding", b"disposition", b"description", b"id", b"language")
)
_MARKER = b"\n-----BEGIN PGP MESSAGE-----"
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"  # RFC 9580 section 7


class Kind(Enum):
    """What a message is. The values are for people, and for the output of `cryptomail inspect`."""

    PLAIN = "plain"
    PGP_MIME = "PGP/MIME"
    INLINE_PGP = "inline PGP"
    SMIME_ENVELOPED = "S/MIME enveloped"
    SIGNED = "signed"
    CLAIMS_ENCRYPTED = "claims to be encrypted but is not"


class Shape(NamedTuple):
    """The verdict. `reason` is one clause without any content of the message.

    `key_ids` are those of the OpenPGP recipients, as packets.EncryptedMessage has them, or of S/MIME's, as in
    smime.recipients; each once. `certain` is False when the Content-Type could not be read; the message counts as not
    encrypted then.
    """

    kind: Kind
    reason: str
    key_ids: tuple[str, ...] = ()
    certain: bool = True

    @property
    def encrypted(self) -> bool:
        return self.kind in (Kind.PGP_MIME, Kind.INLINE_PGP, Kind.SMIME_ENVELOPED)


Reader = Callable[[bytes], ContentType | None]
Opener = Callable[[bytes], EncryptedMessage | None]


def open_payload(data: bytes) -> EncryptedMessage | None:
    """What `data`, armored or binary, is encrypted to; None when it is not one encrypted message or could be text."""
    return encrypted_payload(data, Randomness())


class _Bounded:
    """Opens no more once the header lines of the armors that it was given have more than FREE_OCTETS."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._left = limits.FREE_OCTETS

    def __call__(self, data: bytes) -> EncryptedMessage | None:
        self._left -= len(header_text(data))
        return self._opener(data) if self._left >= 0 else None


def classify(message: Message, reader: Reader | None = None, opener: Opener = open_payload) -> Shape:
    """What `message` is. Any message at all has a shape; the time it takes is proportional to its size.

    Where the Content-Type cannot be read from its bytes, `reader` (lenient.content_type) is asked for it, and gets
    the header section. The body is looked at as always, so that no reading of its can hide a byte of it.
    `opener` says what a text that must be OpenPGP is encrypted to.
    """
    shape = _classify(message, reader, opener)
    if shape.encrypted and not message.agreed:
        reason = "encrypted, but for some mail clients its header section ends at a line that is no field"
        return Shape(Kind.CLAIMS_ENCRYPTED, reason)
    return shape


def _classify(message: Message, reader: Reader | None, opener: Opener) -> Shape:
    content = _content(message)
    opener = _Bounded(opener)
    if content is not None:
        return _shape(message, content, opener)
    if reader is not None and (read := reader(message.raw[: message.body_start])) is not None:
        return _shape(message, read, opener)
    return Shape(Kind.PLAIN, "its Content-Type cannot be read", certain=False)


def may_be_encrypted(beginning: Message) -> bool:
    """Whether `classify` may call a message encrypted that begins like this; for large ones, not to hold the others.

    Where the answer is False, no continuation changes it.
    """
    if not beginning.settled:
        return True
    content = _content(beginning)
    if content is None or content.media_type in _PKCS7 or content.media_type == b"multipart/encrypted":
        return True
    if content.media_type == _TEXT.media_type:
        return _may_begin_encrypted(beginning)
    return content.media_type == b"multipart/mixed" and _mixed_may_be_encrypted(beginning, content)


def _mixed_may_be_encrypted(beginning: Message, content: ContentType) -> bool:
    """As _multipart_mixed, with nothing to go by but the parts that have begun."""
    boundary = content.parameters.get(b"boundary")
    multipart = split_multipart(beginning.body, boundary) if boundary else None
    if multipart is None:
        return False
    if not multipart.parts:
        return len(multipart.preamble) < limits.CONTENT_TYPE_OCTETS
    if multipart.closed:
        return not multipart.epilogue.strip()
    first = split(multipart.parts[0])
    if len(multipart.parts) == 1:
        return _is_control_so_far(first) or (first.separated and _may_begin_encrypted(first))
    if _is_empty_text(first):
        return _is_control_so_far(split(multipart.parts[1]))
    return _is_control(first) or _encrypted(first) is not None


def _is_control_so_far(part: Message) -> bool:
    """Whether this may become the part that says "Version: 1", or its header section has not ended yet."""
    if not part.separated:
        return len(part.raw) < limits.CONTENT_TYPE_OCTETS
    return _media_type(part) == _CONTROL


def _may_begin_encrypted(beginning: Message) -> bool:
    """Whether a body that begins like this, without its transfer encoding, may be an armored OpenPGP message."""
    encoding = _encoding(beginning)
    body = beginning.body[: limits.CONTENT_TYPE_OCTETS]
    if encoding == b"base64":
        packed = b"".join(body.split())
        body = decode_base64(packed[: len(packed) // 4 * 4]) or b""
    text = body.lstrip()
    return not text or text.startswith((b"-", b"=") if encoding == b"quoted-printable" else b"-")


def _shape(message: Message, content: ContentType, opener: Opener) -> Shape:
    """What `message` is, given its Content-Type."""
    if content.media_type == b"multipart/signed":
        return Shape(Kind.SIGNED, "multipart/signed")
    if content.media_type in _PKCS7:
        return _smime(message)
    if content.media_type == b"multipart/encrypted":
        return _multipart_encrypted(message, content, opener)
    shape = None
    if content.media_type == b"multipart/mixed":
        shape = _multipart_mixed(message, content, opener)
    elif content.media_type == _TEXT.media_type:
        shape = _text(message, opener)
    return shape or _plain(message.body)


def _plain(text: bytes) -> Shape:
    """Not encrypted; but perhaps it looks so to a program that searches for a line."""
    if _MARKER in b"\n" + text:
        return Shape(Kind.CLAIMS_ENCRYPTED, "a line begins a PGP message, but the body is not wholly one")
    return Shape(Kind.PLAIN, "its body is not encrypted as a whole")


def _smime(message: Message) -> Shape:
    """S/MIME (RFC 8551): smime-type and file name are claims, the CMS structure is what counts."""
    from sieve_filter.smime import cms, recipients  # other mail does without

    data = _decoded(message)
    if data is not None and cms.enveloped(data) and not _is_in_letters(message):
        return Shape(Kind.SMIME_ENVELOPED, "S/MIME with enveloped (encrypted) data", recipients.key_ids(data))
    claimed = None if data is None else cms.content_type(data)
    if claimed == cms.SIGNED_DATA:
        return Shape(Kind.SIGNED, "S/MIME with signed data")
    if claimed == cms.COMPRESSED_DATA:
        return Shape(Kind.PLAIN, "S/MIME with compressed data")
    return Shape(Kind.CLAIMS_ENCRYPTED, "an S/MIME type, but the content is not wholly enveloped data")


def _multipart_encrypted(message: Message, content: ContentType, opener: Opener) -> Shape:
    """PGP/MIME (RFC 3156 section 4): exactly two parts, "Version: 1" and the encrypted message."""
    protocol = content.parameters.get(b"protocol", _CONTROL)
    if protocol.strip().lower() != _CONTROL:
        return Shape(Kind.CLAIMS_ENCRYPTED, "multipart/encrypted, but its protocol is not OpenPGP")
    parts = _parts(message, content)
    if parts is None:
        return Shape(Kind.CLAIMS_ENCRYPTED, "multipart/encrypted, but not all of it is in well-formed parts")
    if len(parts) != 2:
        return Shape(Kind.CLAIMS_ENCRYPTED, "multipart/encrypted, but it does not have two parts")
    if not _is_control(parts[0]):
        return Shape(Kind.CLAIMS_ENCRYPTED, "multipart/encrypted, but its first part is not the version")
    encrypted = _encrypted(parts[1], opener)
    if encrypted is None:
        reason = "multipart/encrypted, but its second part is not an OpenPGP encrypted message"
        return Shape(Kind.CLAIMS_ENCRYPTED, reason)
    return Shape(Kind.PGP_MIME, "PGP/MIME with an OpenPGP encrypted message", _key_ids([encrypted]))


def _multipart_mixed(message: Message, content: ContentType, opener: Opener) -> Shape | None:
    """PGP/MIME as Exchange leaves it, or inline PGP with attachments that are encrypted each by itself."""
    parts = _parts(message, content)
    if not parts:
        return None
    rest = parts[1:] if _is_empty_text(parts[0]) else parts
    if len(rest) == 2 and _is_control(rest[0]) and (encrypted := _encrypted(rest[1], opener)):
        return Shape(
            Kind.PGP_MIME,
            "PGP/MIME with an OpenPGP encrypted message, its type changed to multipart/mixed",
            _key_ids([encrypted]),
        )
    if _media_type(parts[0]) != _TEXT.media_type:
        return None
    messages = [encrypted for part in parts if (encrypted := _encrypted(part, opener))]
    if len(messages) < len(parts):
        return None
    return Shape(Kind.INLINE_PGP, "its text and each attachment are OpenPGP encrypted messages", _key_ids(messages))


def _text(message: Message, opener: Opener) -> Shape | None:
    """Inline PGP: text that is one encrypted message, or is signed in the clear; None when it cannot be decoded."""
    text = _decoded(message)
    if text is None:
        return None
    if text.lstrip().startswith(_CLEARSIGNED):
        return Shape(Kind.SIGNED, "text signed in the clear")
    encrypted = opener(text) if _is_armored(text) else None
    if encrypted is None or _is_in_letters(message):
        return _plain(text)
    return Shape(Kind.INLINE_PGP, "its text is one OpenPGP encrypted message", _key_ids([encrypted]))


def _parts(message: Message, content: ContentType) -> list[Message] | None:
    """The parts of a multipart, or None when there is anything besides: the places where text could be."""
    boundary = content.parameters.get(b"boundary")
    multipart = split_multipart(message.body, boundary) if boundary else None
    if multipart is None or multipart.epilogue.strip() or not re.fullmatch(_PREAMBLE, multipart.preamble.strip()):
        return None
    if not boundary or len(boundary) > limits.BOUNDARY_OCTETS:
        return None
    parts: list[Message] = []
    free = 0
    for raw in multipart.parts:
        part = split(raw)
        if not _has_bare_header(part):  # before the next one is split: one with many fields takes memory
            return None
        free += _free_octets(part)
        parts.append(part)
    return parts if free <= limits.FREE_OCTETS else None


def _has_bare_header(part: Message) -> bool:
    """Whether the part's header section is a few short Content-* fields, and an empty line ends it.

    Python's email package, and so alot and others, write MIME-Version into parts too.
    """
    return (
        part.separated
        and part.agreed
        and not part.strays
        and len(part.fields) <= limits.PART_FIELDS
        and all(
            field.name in _PART_FIELDS or (field.name == b"mime-version" and field.value == b"1.0")
            for field in part.fields
        )
        and all(len(field.raw) <= limits.PART_FIELD_OCTETS for field in part.fields)
    )


def _free_octets(part: Message) -> int:
    """How much text there is in the part's header section that mail programs do not always write there.

    The name of a file counts once, though it is given twice.
    """
    return sum(map(len, {_free_text(piece) for field in part.fields for piece in field.value.split(b";")}))


def _free_text(piece: bytes) -> bytes:
    """What a piece of a field's value says; nothing where that is usual."""
    name, equals, value = piece.partition(b"=")
    known = equals and name.strip().rstrip(b"*0123456789").lower() in _PARAMETERS
    text = b" ".join((value if known else piece).split()).strip(b'"')
    return b"" if re.fullmatch(_USUAL, text) else text


def _is_control(part: Message) -> bool:
    """Whether this is the part that says "Version: 1" (RFC 3156 section 4)."""
    text = _decoded(part) if _media_type(part) == _CONTROL else None
    return text is not None and b"".join(text.split()).lower() == b"version:1"


def _is_empty_text(part: Message) -> bool:
    text = _decoded(part) if _media_type(part) in (b"text/plain", b"text/html") else None
    return text is not None and not text.strip()


def _encrypted(part: Message, opener: Opener = open_payload) -> EncryptedMessage | None:
    data = _decoded(part)
    if data is None or (_media_type(part) == _TEXT.media_type and not _is_armored(data)):
        return None
    encrypted = opener(data)
    return None if encrypted is None or _is_in_letters(part) else encrypted


def _is_armored(text: bytes) -> bool:
    """Whether this could be OpenPGP in ASCII, as text must be: who takes binary data for text, reads it."""
    return text.lstrip().startswith(b"-----")


def _content(message: Message) -> ContentType | None:
    """The Content-Type; where the field is repeated, the first."""
    fields = message.named(b"content-type")
    return content_type(fields[0].value) if fields else _TEXT


def _media_type(part: Message) -> bytes | None:
    content = _content(part)
    return content.media_type if content else None


def _decoded(message: Message) -> bytes | None:
    """The body without its transfer encoding, or None when that is unknown or does not fit."""
    return decode(message.body, _encoding(message))


def _encoding(message: Message) -> bytes | None:
    fields = message.named(b"content-transfer-encoding")
    return transfer_encoding(fields[0].value) if fields else b"7bit"


def _is_in_letters(message: Message) -> bool:
    """Whether the body is base64 in which there are words."""
    if _encoding(message) != b"base64":
        return False
    letters = Letters()
    letters.feed(message.body.translate(None, WHITE_SPACE))
    return not letters.finish()


def _key_ids(messages: list[EncryptedMessage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key_id for message in messages for key_id in message.key_ids))
