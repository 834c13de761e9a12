"""Finds in a message what its sender wants done with keys: keys or certificates to set up, or a command in its
Subject. Pure.

The message is one that a mailbox owner saved to say so, but it may as well be any other that ended there by mistake.
Nothing here decides whether a key may be used.
"""

import binascii
import re
from collections.abc import Iterable, Iterator
from email.errors import HeaderParseError
from email.header import decode_header
from html import unescape
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.detection import secrets
from sieve_filter.mail.message import Message, split
from sieve_filter.mail.mime import ContentType, content_type, decode, split_multipart, transfer_encoding
from sieve_filter.openpgp import blocks, certificate
from sieve_filter.openpgp.certificate import Certificate, Reading
from sieve_filter.smime import certificate as x509
from sieve_filter.smime import cms
from sieve_filter.smime.certificate import X509

_TEXT = ContentType(b"text/plain")  # RFC 2045 section 5.2
_KEYS = b"application/pgp-keys"  # RFC 3156 section 7
_MESSAGE = b"message/rfc822"
_HTML = b"text/html"

_ENCRYPTED = b"application/pgp-encrypted"  # RFC 3156 section 4
# RFC 8551 sections 3.2 and 3.5: encrypted, or signed with the message in it; and signatures beside the message.
_CMS = (b"application/pkcs7-mime", b"application/x-pkcs7-mime")
_SIGNED = (*_CMS, b"application/pkcs7-signature", b"application/x-pkcs7-signature")
_CERTIFICATES = re.compile(rb"application/(?:pkix-cert|x-x509-[a-z-]*cert|(?:x-)?pkcs7-certificates|x-pem-file)")
# The first octet of a binary key (RFC 9580 section 4.2): packet type 5 or 6, in the old format or the new one.
_BINARY = frozenset(bytes([octet]) for octet in (*range(0x94, 0x9C), 0xC5, 0xC6))
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # what PowerShell makes of `gpg --armor --export > file`

_LINE_BREAKS = re.compile(rb"<(?:br|/?p|/?div|/?pre)(?![a-z])[^<>]*+>", re.IGNORECASE)
_MARKS = re.compile(rb"<[^<>]*+>")
_SPACES = re.compile(rb"[ \t\xa0]*+\n[ \t\xa0]*+")

# What mail programs put before the Subject of an answer is a short word in any language: Re:, AW:, Rép :, Fwd:, RV[2]:
_COMMAND = re.compile(
    r"(?:[^\s:]{1,8}\s{0,2}[:\uff1a]\s*)*(?:(remove|confirm|choose)(?:\s+(.*))?|(status|try|test|keep|off))",
    re.IGNORECASE | re.DOTALL,
)
REMOVE, CONFIRM, CHOOSE = "remove", "confirm", "choose"
STATUS, TRY, TEST, KEEP, OFF = "status", "try", "test", "keep", "off"
_FINGERPRINT = re.compile(r"(?:0X)?([0-9A-F]{40}|[0-9A-F]{64})")
_CODE = re.compile(r"[0-9]{6}")
_BETWEEN_DIGITS = re.compile(r"[\s:.-]+")
_AS_IS = "raw-unicode-escape"  # how decode_header gives back what was not encoded
_SUBJECT_OCTETS = 1_000  # more than a fingerprint needs in any encoding
_ADDRESS = re.compile(r"[^\s<>@\"]+@[^\s<>@\"]+")


class Autocrypt(NamedTuple):
    """The key of an Autocrypt header field: the address that it claims to be for, lower case, and what can be read."""

    address: str
    certificates: tuple[Certificate, ...]


class Command(NamedTuple):
    """What a Subject says is to be done, one of the words above, or empty; behind `remove` a fingerprint in upper case,
    behind `confirm` the six digits of a code, behind `choose` a setting's name and a value, with a space between.
    """

    word: str = ""
    argument: str = ""


class KeyMail(NamedTuple):
    """What a message asks for.

    Where `secret` is true there is a secret key in it, and nothing else is told. `certificates` are those attached or
    in the text, each once, and `smime` those for S/MIME. `autocrypt` is that of the header section, and `signers` are
    certificates that came with signatures: both are looked at only where there are no others, and no command but `try`.
    `problems` says in words what could not be read. `encrypted` says that some of it is encrypted: a key may be in
    there.
    """

    secret: bool = False
    certificates: tuple[Certificate, ...] = ()
    autocrypt: Autocrypt | None = None
    command: Command = Command()
    problems: tuple[str, ...] = ()
    encrypted: bool = False
    smime: tuple[X509, ...] = ()
    signers: tuple[X509, ...] = ()


def read(raw: bytes) -> KeyMail:
    """What the message `raw` asks for. Any octets at all can be read, in time proportional to their number."""
    if secrets.found(raw):
        return KeyMail(secret=True)
    message = split(raw)
    leaves = list(_leaves(message))
    # HTML mostly repeats the text that is beside it; some mail programs send nothing else.
    plain = [block for kind, data in leaves if kind != _HTML for block in _blocks(kind, data)]
    pieces = plain or [block for kind, data in leaves if kind == _HTML for block in _blocks(kind, _shown(data))]
    found: list[Certificate] = []
    problems: list[str] = []
    if len(pieces) > limits.KEY_MAIL_PARTS:
        problems.append(f"it has more than {limits.KEY_MAIL_PARTS} blocks of keys")
    else:
        for block in pieces:
            reading = certificate.read(block)
            if reading.secret:
                return KeyMail(secret=True)
            found += reading.certificates
            problems += reading.problems
    cards, signers, smime_problems = _smime(leaves)
    problems += smime_problems
    command, problem = _command(message)
    problems += [problem] if problem else []
    headers = [header for field in message.named(b"autocrypt") if (header := _autocrypt(field.value))]
    if any(reading.secret for _, reading in headers):
        return KeyMail(secret=True)
    autocrypt = None
    open_to_others = not found and not cards and not problems and command.word in ("", TRY)
    if len(headers) == 1 and open_to_others:  # of several, Autocrypt says, none counts
        address, reading = headers[0]
        autocrypt = Autocrypt(address, reading.certificates)
    signers = signers if open_to_others else ()
    encrypted = any(_is_encrypted(kind, data) for kind, data in leaves)
    keys, reasons = tuple(dict.fromkeys(found)), tuple(dict.fromkeys(problems))
    return KeyMail(False, keys, autocrypt, command, reasons, encrypted, cards, signers)


def _leaves(root: Message) -> Iterator[tuple[bytes, bytes]]:
    """The media type and the decoded content of each part that holds no others; of attached messages too.

    Beyond the limits, a part counts as a leaf, whatever it holds.
    """
    waiting = [(root, 0)]
    parts = 1
    while waiting:
        part, depth = waiting.pop()
        fields = part.named(b"content-type")
        content = (content_type(fields[0].value) if fields else None) or _TEXT
        inner: tuple[bytes, ...] = ()
        if depth < limits.KEY_MAIL_DEPTH and parts < limits.KEY_MAIL_PARTS:
            boundary = content.parameters.get(b"boundary", b"")
            if content.media_type.startswith(b"multipart/") and boundary:
                multipart = split_multipart(part.body, boundary)
                inner = multipart.parts if multipart else ()
            elif content.media_type == _MESSAGE:
                inner = (_decoded(part),)
        if inner:
            parts += len(inner)
            waiting += [(split(one), depth + 1) for one in reversed(inner)]
        else:
            yield content.media_type, _decoded(part)


def _decoded(part: Message) -> bytes:
    """The body without its transfer encoding, as far as that can be undone: no secret key may hide behind a slip."""
    fields = part.named(b"content-transfer-encoding")
    encoding = transfer_encoding(fields[0].value) if fields else b"7bit"
    body = part.body
    data = decode(body, encoding)
    if data is None and encoding == b"quoted-printable":
        data = binascii.a2b_qp(body)
    elif data is None and encoding == b"base64":
        packed = re.sub(rb"[^A-Za-z0-9+/]+", b"", body)
        data = binascii.a2b_base64(packed[: len(packed) // 4 * 4])
    data = body if data is None else data
    return data[2:].replace(b"\x00", b"") if data.startswith(_UTF_16) else data


def _is_encrypted(kind: bytes, data: bytes) -> bool:
    if kind == _ENCRYPTED or (kind in _CMS and cms.content_type(data) != cms.SIGNED_DATA):
        return True
    return any(line.begins and line.kind == blocks.MESSAGE for line in blocks.lines(data))


def _smime(leaves: Iterable[tuple[bytes, bytes]]) -> tuple[tuple[X509, ...], tuple[X509, ...], tuple[str, ...]]:
    """The certificates for S/MIME that are attached, or in the text; those that came with signatures; and what in the
    former cannot be read. Of what is not called a certificate, only what is one counts.
    """
    attached: list[X509] = []
    signers: list[X509] = []
    problems: list[str] = []
    for kind, data in leaves:
        binary = data[:1] == b"\x30"
        text = _shown(data) if kind == _HTML else data
        if kind in _SIGNED:
            signers += x509.read(data).certificates if binary else ()
        elif x509.holds(text) and not (binary and kind.startswith(b"text/")):
            reading = x509.read(text)
            attached += reading.certificates
            problems += reading.problems if not binary or _CERTIFICATES.fullmatch(kind) else ()
    return x509.without_issuers(attached), x509.without_issuers(signers), tuple(problems)


def _blocks(kind: bytes, data: bytes) -> Iterator[bytes]:
    """What in a leaf is meant to be keys: armored, with nothing around it, or binary."""
    lines = [line for line in blocks.lines(data) if line.kind == blocks.PUBLIC_KEY]
    begun: int | None = None
    for line in lines:
        if line.begins and begun is None:
            begun = line.start
        elif not line.begins and begun is not None:
            yield data[begun : line.end]
            begun = None
    if begun is not None:
        yield data[begun:]
    armored = any(line.begins for line in lines)
    if not armored and ((kind == _KEYS and data.strip()) or (not kind.startswith(b"text/") and data[:1] in _BINARY)):
        yield data


def _shown(html: bytes) -> bytes:
    """The text of HTML, as far as a key needs it: its lines without marks, and without spaces around them."""
    text = _MARKS.sub(b"", _LINE_BREAKS.sub(b"\n", html.translate(None, b"\r")))
    return _SPACES.sub(b"\n", unescape(text.decode("latin-1")).encode("latin-1", "replace"))


def _command(message: Message) -> tuple[Command, str]:
    """The command in the Subject; else what is wrong with it, if it is meant for one."""
    subjects = message.named(b"subject")
    found = _COMMAND.fullmatch(_words(subjects[0].value)) if subjects else None
    if found is None:
        return Command(), ""
    word = (found[1] or found[3]).casefold()
    if word == CHOOSE:
        choice = (found[2] or "").replace("=", " ").lower().split()
        if len(choice) != 2:
            return Command(), "behind “choose”, the Subject must have a setting and a value"
        return Command(word, " ".join(choice)), ""
    argument = _BETWEEN_DIGITS.sub("", found[2] or "").upper()
    if word == REMOVE:
        if (fingerprint := _FINGERPRINT.fullmatch(argument)) is None:
            why = "behind “remove”, the Subject must name a key's full fingerprint: 40 or 64 hexadecimal digits"
            return Command(), why
        argument = fingerprint[1]
    if word == CONFIRM and not _CODE.fullmatch(argument):
        return (
            Command(),
            "behind “confirm”, the Subject must have the code of six digits from the message about your key",
        )
    return Command(word, argument), ""


def _words(value: bytes) -> str:
    """A field's text, its encoded words (RFC 2047) decoded; empty where they cannot be, or there is too much of it."""
    if len(value) > _SUBJECT_OCTETS:
        return ""
    try:
        pieces = decode_header(value.decode("utf-8", "replace"))
        return "".join(
            one if isinstance(one, str) else one.decode(charset or _AS_IS) for one, charset in pieces
        ).strip()
    except (ValueError, LookupError, HeaderParseError):
        return ""


def _autocrypt(value: bytes) -> tuple[str, Reading] | None:
    """The address and the key in an Autocrypt header field (Autocrypt Level 1, "The Autocrypt Header").

    None where it is malformed, or says anything that its readers must understand and do not.
    """
    attributes: dict[str, bytes] = {}
    for attribute in value.split(b";"):
        name, equals, content = attribute.strip().partition(b"=")
        attributes.setdefault(name.strip().decode("ascii", "replace").lower(), content)
        if not equals and attribute.strip():
            return None
    attributes.pop("", None)
    if any(name not in ("addr", "keydata", "prefer-encrypt") and not name.startswith("_") for name in attributes):
        return None
    address = attributes.get("addr", b"").strip().decode("utf-8", "replace").lower()
    data = decode(attributes.get("keydata", b""), b"base64")
    return (address, certificate.read(data)) if _ADDRESS.fullmatch(address) and data else None
