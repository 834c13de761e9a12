"""Looks for a message that was delivered a moment ago, says what it is, and takes it away again."""

from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter.dovecot import imap
from sieve_filter.dovecot.imap import Session
from sieve_filter.mailbox import audit, messages, walk
from sieve_filter.mailbox.walk import Folder


class Probe(NamedTuple):
    """What to look for: the Message-ID of the message, in angle brackets, and a word of its text, which nothing that is
    stored may have.
    """

    message_id: bytes
    word: bytes


class Sighting(NamedTuple):
    """Where the message was, and as what: the key IDs to which it is encrypted; `clear` where it can be read, or is not
    one encrypted message.
    """

    folder: str
    clear: bool
    key_ids: tuple[str, ...]


def take(session: Session, probe: Probe) -> list[Sighting]:
    """Each place in which that message is now; it is in none of them afterwards. Raises ServiceError."""
    found = []
    for folder in walk.folders(session):
        for uid in _there(session, folder, probe.message_id):
            if (sighting := _sight(session, folder, uid, probe.word)) is not None:
                found.append(sighting)
            session.expunge(uid)
    return found


def _there(session: Session, folder: Folder, message_id: bytes) -> Iterator[int]:
    session.select(folder.name)
    yield from session.search(b"HEADER Message-ID " + imap.quoted(message_id))


def _sight(session: Session, folder: Folder, uid: int, word: bytes) -> Sighting | None:
    verdict = audit.verdict_on_all(session, uid, binary=False)
    if verdict is None:
        return None
    readable = word in b"".join(messages.pieces(session, uid))
    return Sighting(folder.label, readable or not verdict.shape.encrypted, verdict.shape.key_ids)
