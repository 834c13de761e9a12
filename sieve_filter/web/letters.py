"""What the page saves in an owner's folder for keys, and what the answer says: octets in, octets out. Pure."""

import json
import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple

_REASON = re.compile(r"^  - (.+)$", re.MULTILINE)
_WORD = re.compile(r"<[0-9a-f]{32}@cryptomail-page>")


class Answer(NamedTuple):
    """The Subject of an answer; the reasons in it, if something was not done; its whole text; and, of the answer to
    `status`, the facts, which are empty else.
    """

    subject: str
    reasons: tuple[str, ...]
    text: str
    facts: dict[str, Any]


def letter(user: str, command: str, word: str, key: bytes = b"") -> bytes:
    """A message of that user with that command for its Subject, and those keys attached.

    `word` makes its Message-ID: see `message_id`.
    """
    one = EmailMessage(policy=policy.SMTP)
    one["From"] = one["To"] = (
        user if re.fullmatch(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,250}", user) else "me@localhost"
    )
    one["Subject"] = command
    one["Message-ID"] = message_id(word)
    one.set_content("Saved by the page for your keys.\n")
    if key:
        one.add_attachment(key, "application", "pgp-keys", filename="key.asc")
    return one.as_bytes()


def message_id(word: str) -> str:
    """The Message-ID of such a message. `word` has 32 hexadecimal digits. Raises ValueError where it has not."""
    made = f"<{word}@cryptomail-page>"
    if not _WORD.fullmatch(made):
        raise ValueError("that is no word for a Message-ID")
    return made


def answer(raw: bytes) -> Answer:
    """What an answer says. Any octets can be read."""
    read = message_from_bytes(raw, policy=policy.default)
    text, facts = "", {}
    parts = list(read.walk())[1:3] if read.is_multipart() else [read]
    for part in parts:
        if part.get_content_type() == "text/plain" and not text:
            text = _content(part).decode("utf-8", "replace")
        elif part.get_content_type() == "application/json":
            facts = _facts(_content(part))
    subject = re.sub(r"\s+", " ", str(read["Subject"] or ""))[:200]
    text = text.replace("\r\n", "\n")
    return Answer(subject, tuple(_REASON.findall(text)), text, facts)


def _content(part: Any) -> bytes:
    content = part.get_payload(decode=True)
    return content if isinstance(content, bytes) else b""


def _facts(data: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}
