"""Divides a message into what stays readable and what is encrypted (RFC 9788), and puts it together again. Pure.

The part that is encrypted is the original message with a few insertions: header protection, and the little that a
damaged header section needs so that mail clients can read it. Its first line lists the insertions, so that taking
them out gives back the original, byte for byte:

    X-Cryptomail-Inserted: OFFSET+LENGTH OFFSET+LENGTH ...

Offsets count octets from the end of that line.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter.mail.header_policy import Policy
from sieve_filter.mail.message import ENVELOPE, LINE_END, Field, Message
from sieve_filter.mail.mime import is_version_1

MARK = b"X-Cryptomail"
MARK_VALUE = b"encrypted-at-delivery"

_MANIFEST = rb"X-Cryptomail-Inserted:((?: [0-9]{1,18}\+[0-9]{1,18})*)\r?\n"  # compiled where it is used: in `restore`
_TOKEN = rb"[!#-'*+\-.0-9A-Z^_`a-z{|}~]+"  # RFC 2045 section 5.1
_STRAY = b"X-Stray-Line: "
_MEDIA_TYPE = re.compile(rb"[!-9;-~]+[ \t]*:[ \t\r\n]*" + _TOKEN + b"/" + _TOKEN)


class Protected(NamedTuple):
    """A message made ready: `outside` the header fields that stay readable, `inside` the bytes to encrypt."""

    outside: bytes
    inside: bytes
    eol: bytes


def protect(message: Message, policy: Policy) -> Protected:
    """Divide `message` into what stays readable under `policy` and what is to be encrypted.

    Of a message that is not there as a whole, what follows is to be encrypted behind `inside`.

    Outside are the original's fields in their order, octets untouched, without Content-* (they describe the body),
    without what `policy` hides, without fields in our own name, and without what some reader takes for the body. Only
    what mail clients disagree about is replaced there: line ends that are neither CRLF nor LF, space before the colon.
    """
    eol = message.eol
    visible = [(field, shown) for field in _presentable(message) if (shown := _visible(field, policy, eol))]
    outside = b"".join(shown for _, shown in visible)
    if not any(field.name == b"mime-version" for field, _ in visible):
        outside += b"MIME-Version: 1.0" + eol
    hides_subject = any(field.name == b"subject" and policy(field) is not True for field, _ in visible)
    # RFC 9788 section 2.2: HP-Outer records each non-structural field as it is outside.
    outer = b"".join(b"HP-Outer: " + shown for field, shown in visible if field.name != b"mime-version")
    return Protected(outside, _inside(message, outer, hides_subject), eol)


def marked(message: Message) -> bool:
    """Whether `message` claims to have been encrypted here. Anyone can claim it: nothing may rest on it."""
    return any(field.value == MARK_VALUE for field in message.named(MARK.lower()))


def restore(inside: bytes) -> bytes | None:
    """The original message from the decrypted `inside`; None where `protect` did not make it."""
    manifest = re.match(_MANIFEST, inside)
    if manifest is None:
        return None
    rest = inside[manifest.end() :]
    kept: list[bytes] = []
    position = 0
    for entry in manifest[1].split():
        offset, length = map(int, entry.split(b"+"))
        if offset < position or offset + length > len(rest):
            return None
        kept.append(rest[position:offset])
        position = offset + length
    return b"".join([*kept, rest[position:]])


def _presentable(message: Message) -> Iterator[Field]:
    """The fields that no reader takes for the body's text.

    And those that some do, where an IMAP server lists them and the header section has no other of that name: Dovecot
    shows them to everybody who sees the list of messages. Of MIME-Version only one, and only 1.0: what is outside
    is MIME, whatever the original is.
    """
    version = next((field for field in message.named(b"mime-version") if is_version_1(field.value)), None)
    agreed = {field.name for field in message.fields if field.start < message.agreed_end}
    for field in message.fields:
        if field.name == b"mime-version" and field is not version:
            continue
        if field.start < message.agreed_end or (field.name in ENVELOPE and field.name not in agreed):
            yield field


def _visible(field: Field, policy: Policy, eol: bytes) -> bytes:
    """The field as it is outside, line end included; empty where it does not."""
    if field.name.startswith((b"content-", MARK.lower())):
        return b""
    shown = policy(field)
    if shown is False:
        return b""
    if shown is True:
        return _sound(field, eol)
    return field.raw[: len(field.name)] + b": " + shown + eol


def _sound(field: Field, eol: bytes) -> bytes:
    """The field with line ends that all mail clients know, and nothing before the colon."""
    name_end = len(field.name)
    return field.raw[:name_end] + _sound_line_ends(field.raw[field.raw.index(b":", name_end) :], eol)


def _sound_line_ends(raw: bytes, eol: bytes) -> bytes:
    sound = LINE_END.sub(lambda end: end[0] if end[0] in (b"\n", b"\r\n") else eol, raw)
    return sound if sound.endswith(b"\n") else sound + eol


def _inside(message: Message, outer: bytes, hides_subject: bool) -> bytes:
    """The original with its insertions, under the line that lists them."""
    raw = message.raw
    parameters = b'; hp="cipher"'  # RFC 9788 section 2.1
    if hides_subject:
        parameters += b'; protected-headers="v1"'  # what Thunderbird and K-9 look for before they show it
    typed = [(field, end) for field in message.named(b"content-type") if (end := _end_of_media_type(field.raw))]
    # RFC 2045 section 5.2: without a (sound) Content-Type a message is plain text.
    added = outer if typed else outer + b"Content-Type: text/plain" + parameters + message.eol

    # Of insertions at one offset these must be the first.
    insertions = list(_sound_line_ends_inside(message))
    insertions.append((0, added))
    # HP-Outer inside is our word on what was outside: the sender's own must not pass for it.
    insertions += [(field.start, b"Original-") for field in message.named(b"hp-outer")]
    # A field that not all clients see is there once more, as they do see it. What it was, and what is no field at
    # all, becomes one with a name.
    unsound = (field for field in message.fields if not field.sound)
    insertions += [(field.start, _with_parameters(field, parameters, message.eol) + _STRAY) for field in unsound]
    insertions += [(start, _STRAY) for start in message.strays]
    insertions += [(field.start + end, parameters) for field, end in typed]
    if not message.separated:
        unended = message.header_end > 0 and raw[message.header_end - 1] not in b"\r\n"
        insertions.append((message.body_start, message.eol * 2 if unended else message.eol))
    manifest, inside = _insert(raw, sorted(insertions, key=lambda insertion: insertion[0]))
    return manifest + message.eol + inside


def _sound_line_ends_inside(message: Message) -> Iterator[tuple[int, bytes]]:
    """What makes a bare CR, and CR CR LF (with a folded empty line), line ends that all mail clients know."""
    for end in LINE_END.finditer(message.raw, 0, message.body_start):
        if end[0] == b"\r":
            yield end.end(), b"\n"
        elif end[0] == b"\r\r\n":
            yield end.start() + 1, b"\n " if end.start() < message.header_end else b"\n"


def _with_parameters(field: Field, parameters: bytes, eol: bytes) -> bytes:
    """The field as all mail clients see it; with `parameters`, if it is a Content-Type."""
    sound = _sound(field, eol)
    end = _end_of_media_type(sound) if field.name == b"content-type" else 0
    return sound[:end] + parameters + sound[end:] if end else sound


def _end_of_media_type(field: bytes) -> int:
    """The offset right behind `type/subtype`; a parameter put there wins over a later one. 0 where there is none."""
    matched = _MEDIA_TYPE.match(field)
    return matched.end() if matched else 0


def _insert(raw: bytes, insertions: list[tuple[int, bytes]]) -> tuple[bytes, bytes]:
    """The line that lists `insertions` (offset in `raw`, text; in ascending order), and `raw` with them made."""
    view = memoryview(raw)  # whose slices are no copies
    pieces: list[bytes | memoryview] = []
    listed: list[bytes] = []
    position = inserted = 0
    for offset, text in insertions:
        pieces += (view[position:offset], text)
        listed.append(b" %d+%d" % (offset + inserted, len(text)))
        position, inserted = offset, inserted + len(text)
    return b"".join([b"X-Cryptomail-Inserted:", *listed]), b"".join([*pieces, view[position:]])
