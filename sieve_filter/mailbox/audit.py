"""What of a mailbox can still be read, message by message: the verdict is the filter's own. Nothing is changed."""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.delivery import incoming
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.detection import classify
from sieve_filter.detection.classify import Kind, Shape
from sieve_filter.dovecot import imap
from sieve_filter.mail import protection
from sieve_filter.mail.message import split
from sieve_filter.mailbox import messages, walk
from sieve_filter.mailbox.messages import Doubt, Stored
from sieve_filter.mailbox.throttle import Throttle
from sieve_filter.mailbox.walk import Folder
from sieve_filter.openpgp.packets import key_id
from sieve_filter.system.spool import MemoryFile

ENCRYPTED, FOREIGN, CLEAR, UNDECIDABLE = "encrypted", "foreign", "clear", "undecidable"

Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


class FolderAudit(NamedTuple):
    """How many messages of a folder are what. `messages` are all; of those in clear, `drafts` are not finished."""

    name: str
    messages: int
    encrypted: int
    foreign: int
    clear: int
    undecidable: int
    drafts: int


class MailboxAudit(NamedTuple):
    """What an audit of one mailbox found. `residue` says where else there is something to read, in words; `keyed`
    whether the owner has a key, so that nothing should be.
    """

    user: str
    folders: tuple[FolderAudit, ...]
    residue: tuple[str, ...]
    keyed: bool


class Verdict(NamedTuple):
    """What the filter would say of a message, and whether `cryptomail` says that it encrypted it."""

    shape: Shape
    marked: bool

    def among(self, key_ids: Container[str] | None) -> str:
        """One of the four words for it, where the owner's keys have these IDs; None where these are not known."""
        if not self.shape.encrypted:
            return CLEAR if self.shape.certain else UNDECIDABLE
        own = key_ids is None or all(key_id(one) in key_ids for one in self.shape.key_ids)
        return ENCRYPTED if self.marked and own else FOREIGN


def audit(
    session: imap.Session,
    names: Sequence[str],
    key_ids: Container[str] | None,
    throttle: Throttle,
    progress: Progress,
) -> tuple[FolderAudit, ...]:
    """Look at all messages in the folders with these names; in all folders where there are none.

    Raises ServiceError, UsageError where there is no such folder.
    """
    folders = walk.chosen(walk.folders(session), names)
    with progress(sum(_count(session, one) for one in folders)) as advance:
        return tuple(_audit_folder(session, one, key_ids, throttle, advance) for one in folders)


def verdict_of(message: Stored) -> Verdict | None:
    """The verdict on what has been read of a message; None where more of it is needed."""
    taken = Incoming(split(message.beginning), message.whole, ())
    if not taken.whole and classify.may_be_encrypted(taken.message):
        return None
    shape, _ = incoming.look(taken, MemoryFile)
    if message.doubtful and not shape.encrypted:
        return None
    return Verdict(shape, protection.marked(taken.message))


def verdict_on_all(session: imap.Session, uid: int, binary: bool) -> Verdict | None:
    """The verdict on a message, all of which is read for it; None where it has gone. `binary`: see `messages.section`.

    Where its octets cannot be known, and it claims to be encrypted, that is not certain.
    """
    doubt = Doubt()
    verdict = _verdict(doubt.passing(messages.pieces(session, uid)))
    if verdict is None or verdict.shape.encrypted or not doubt.there:
        return verdict
    section = messages.section(session, uid, binary)
    if section is not None:
        return _verdict(messages.pieces(session, uid, section))
    certain = verdict.shape.kind is not Kind.CLAIMS_ENCRYPTED
    return verdict._replace(shape=verdict.shape._replace(certain=certain))


def _verdict(pieces: Iterator[bytes]) -> Verdict | None:
    taken = incoming.receive(pieces, limits.SMALL_OCTETS)
    if not taken.message.raw:
        return None
    shape, _ = incoming.look(taken, MemoryFile)
    return Verdict(shape, protection.marked(taken.message))


def _audit_folder(
    session: imap.Session,
    folder: Folder,
    key_ids: Container[str] | None,
    throttle: Throttle,
    advance: Callable[[int], None],
) -> FolderAudit:
    session.run(b"EXAMINE " + folder.name)
    counts = dict.fromkeys((ENCRYPTED, FOREIGN, CLEAR, UNDECIDABLE), 0)
    drafts = 0
    later: list[tuple[int, bool]] = []

    def count(verdict: Verdict, draft: bool) -> None:
        nonlocal drafts
        word = verdict.among(key_ids)
        counts[word] += 1
        drafts += draft and word == CLEAR
        advance(1)

    for message in messages.stored(session):
        draft = folder.unfinished or message.draft
        verdict = verdict_of(message)
        if verdict is None:
            later.append((message.uid, draft))
        else:
            count(verdict, draft)
        throttle.pause()
    binary = b"BINARY" in session.capabilities()
    for uid, draft in later:
        verdict = verdict_on_all(session, uid, binary)
        if verdict is not None:
            count(verdict, draft)
        throttle.pause()
    return FolderAudit(folder.label, sum(counts.values()), drafts=drafts, **counts)


def _count(session: imap.Session, folder: Folder) -> int:
    """How many messages there are, about."""
    return session.status(folder.name).get(b"MESSAGES", 0)
