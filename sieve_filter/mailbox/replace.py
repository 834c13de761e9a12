"""Replaces messages of the selected folder by others, so that none is ever missing and none stays twice.

A message's octets cannot change under its UID (RFC 9051 section 2.3.1.1). So the new one is saved first, with the same
flags and date, and read back; then the old one is removed, if nobody has changed it meanwhile. Who moves or deletes the
old one meanwhile has done so: the new one is taken away again. Of what others do between the two commands that mark the
old one and remove it, IMAP does not tell: a move leaves the new one besides then, and a flag is lost. Two runs at the
same time, over two ways, are told by CONDSTORE (RFC 7162) which of them may remove it: the first that marks it as
deleted. Where its owner has done that already, marking it changes nothing, so a keyword is set too.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from sieve_filter.dovecot import imap
from sieve_filter.dovecot.imap import Draft, Response, Session
from sieve_filter.errors import ImapRefusalError, ServiceError
from sieve_filter.mailbox import messages
from sieve_filter.mailbox.journal import Entry, Journal, Note
from sieve_filter.mailbox.task import Made
from sieve_filter.mailbox.walk import Folder

_DELETED = b"\\deleted"
# How often it is tried to remove a message that others change meanwhile, of which so often only after those; seconds.
_ATTEMPTS, _WAITED, _PAUSE = 8, 3, 0.3
_AT_ONCE = 500  # UIDs
_MODIFIED = re.compile(rb"[( ]MODSEQ \(([0-9]+)\)")


class Abilities(NamedTuple):
    """What a server can do: MULTIAPPEND, LITERAL+, CONDSTORE and BINARY."""

    multiappend: bool
    literal_plus: bool
    condstore: bool
    binary: bool


class New(NamedTuple):
    """What is to take a message's place: that one's UID, flags and date; and what was made of it."""

    uid: int
    flags: tuple[bytes, ...]
    date: bytes
    made: Made


class _State(NamedTuple):
    """What a message is like now: its flags without TAKEN, and whether it has that."""

    flags: frozenset[bytes]
    modified: int
    taken: bool = False


_UNKNOWN = _State(frozenset(), 0)


def abilities(session: Session) -> Abilities:
    """Raises ServiceError where the server has not the least that it takes: UIDPLUS (RFC 4315)."""
    found = session.capabilities()
    if b"UIDPLUS" not in found:
        raise ServiceError("the server has no UIDPLUS, without which no message can be removed alone")
    return Abilities(*(name in found for name in (b"MULTIAPPEND", b"LITERAL+", b"CONDSTORE", b"BINARY")))


def replace(
    session: Session,
    folder: Folder,
    selected: imap.Selected,
    news: Sequence[New],
    journal: Journal,
    can: Abilities,
    meanwhile: Callable[[], None],
    *,
    secret: bool,
) -> tuple[int, list[str]]:
    """Replace those messages. Returns how many were, and for each that was left, why.

    While the server saves them, `meanwhile` is called, which must not talk to it. Where they are `secret`, nothing is
    noted of what takes their place.

    Several at once take a server that has MULTIAPPEND. Raises ImapRefusalError where it does not take them, and nothing
    was changed; ServiceError.
    """
    entries = tuple(Entry(one.uid) if secret else Entry(one.uid, one.made.size, one.made.digest) for one in news)
    journal.write(Note(folder.name.decode("latin-1"), selected.uid_validity, selected.uid_next, entries))
    drafts = [Draft(one.flags, one.date, one.made.size, one.made.octets, one.made.binary) for one in news]
    try:
        saved = session.append(folder.name, drafts, can.literal_plus, meanwhile)
    except ImapRefusalError:
        journal.clear()
        raise
    if len(saved) != len(news):
        raise ServiceError("the server does not say which UID a message got; run this again")
    read = digests(session, saved, can)
    wrong = {new.uid for new, uid in zip(news, saved, strict=True) if read.get(uid) != new.made.digest}
    if wrong:  # somebody else's script changed it, say
        undo(session, [uid for new, uid in zip(news, saved, strict=True) if new.uid in wrong])
    good = {new.uid: uid for new, uid in zip(news, saved, strict=True) if new.uid not in wrong}
    flags = {new.uid: frozenset(new.flags) for new in news}
    count = finish(session, good, flags, can)
    journal.clear()
    return count, ["the server did not store what takes its place as it was given"] * len(wrong)


def finish(session: Session, pairs: dict[int, int], known: dict[int, frozenset[bytes]], can: Abilities) -> int:
    """Remove old messages, each of which has a new one that is as it should be; `known` are the flags that these got.

    Changes of flags that others made are carried over. Where an old one has gone, the new one is taken away again; so
    it is where others do not stop changing the old one. Returns how many were replaced.
    """
    left, flags, count = dict(pairs), dict(known), 0
    for attempt in range(_ATTEMPTS):
        now = states(session, left, can)
        undo(session, [new for old, new in left.items() if old not in now])
        left = {old: new for old, new in left.items() if old in now}
        same: list[int] = []
        for old, new in left.items():
            marked_by_others = now[old].taken or _DELETED in _lowered(now[old].flags - flags[old])
            if marked_by_others and attempt < _WAITED:
                continue  # another run may be about to remove it: who marks a message first does so
            if now[old].flags != flags[old]:
                _set(session, new, now[old].flags)
                flags[old] = now[old].flags
            same.append(old)
        marked = _mark(session, {old: now[old] for old in same}, can)
        for old, state in marked.items():
            if more := {flag for flag in state.flags if flag.lower() != _DELETED} - flags[old]:
                _set(session, left[old], flags[old] | more)
        if marked:
            session.run(b"UID EXPUNGE " + imap.sequence(marked))
        count += len(marked)
        left = {old: new for old, new in left.items() if old not in marked}
        if not left:
            return count
        time.sleep(_PAUSE)
    undo(session, left.values())
    return count


def undo(session: Session, saved: Iterable[int]) -> None:
    """Take away again what was saved."""
    if numbers := imap.sequence(saved):
        session.run(b"UID STORE %b +FLAGS.SILENT (\\Deleted)" % numbers)
        session.run(b"UID EXPUNGE " + numbers)


def states(session: Session, uids: Iterable[int], can: Abilities) -> dict[int, _State]:
    """What those of the messages that are there are like now."""
    asked = set(uids)
    if not asked:
        return {}
    modified = b" MODSEQ" if can.condstore else b""
    found = _told(session.run(b"UID FETCH %b (UID FLAGS%b)" % (imap.sequence(asked), modified)))
    return {uid: state for uid, state in found.items() if uid in asked}


def digests(session: Session, uids: Iterable[int], can: Abilities) -> dict[int, str]:
    """The SHA-256 of those of the messages that are there, and whose octets can be known."""
    found: dict[int, str] = {}
    large: list[int] = []
    asked = list(uids)
    for start in range(0, len(asked), _AT_ONCE):  # no server takes any number of them in a line
        for one in messages.stored(session, imap.sequence(asked[start : start + _AT_ONCE])):
            if one.whole and not one.doubtful:
                found[one.uid] = sha256(one.beginning).hexdigest()
            else:
                large.append(one.uid)
    for uid in large:
        if section := messages.section(session, uid, can.binary):
            digest = sha256()
            for piece in messages.pieces(session, uid, section):
                digest.update(piece)
            found[uid] = digest.hexdigest()
    return found


def _mark(session: Session, before: Mapping[int, _State], can: Abilities) -> dict[int, _State]:
    """Mark as deleted those of the messages that nobody has changed since. Returns what these are like now.

    The server tells in its answer; time for others to change them is short then.
    """
    old = [uid for uid, state in before.items() if _DELETED in _lowered(state.flags)]
    other = [uid for uid in before if uid not in set(old)]
    modified = max((state.modified for state in before.values()), default=0)
    marked = _marked(session, other, b"\\Deleted", modified, can)
    return marked | _marked(session, old, b"\\Deleted " + messages.TAKEN, modified, can)


def _marked(session: Session, uids: Sequence[int], marks: bytes, modified: int, can: Abilities) -> dict[int, _State]:
    if not uids:
        return {}
    unchanged = b"(UNCHANGEDSINCE %d) " % modified if can.condstore else b""
    done = session.run(b"UID STORE %b %b+FLAGS (%b)" % (imap.sequence(uids), unchanged, marks))
    refused = re.search(rb"\[MODIFIED ([0-9:,]+)\]", done[-1].text)
    others = set(imap.uids(refused[1])) if refused else set()
    now = _told(done)
    untold = [uid for uid in uids if uid not in others and _DELETED not in _lowered(now.get(uid, _UNKNOWN).flags)]
    now |= states(session, untold, can)
    return {uid: now[uid] for uid in uids if uid in now and uid not in others}


def _told(responses: Iterable[Response]) -> dict[int, _State]:
    """What the server says of messages in these responses; the last counts."""
    found: dict[int, _State] = {}
    for response in responses:
        if (read := messages.uid_and_flags(response)) is not None:
            uid, flags = read
            modified = _MODIFIED.search(response.text)
            kept = messages.without_taken(flags)
            found[uid] = _State(frozenset(kept), int(modified[1]) if modified else 0, len(kept) < len(flags))
    return found


def _set(session: Session, uid: int, flags: Iterable[bytes]) -> None:
    session.run(b"UID STORE %d FLAGS.SILENT (%b)" % (uid, b" ".join(sorted(flags))))


def _lowered(flags: Iterable[bytes]) -> set[bytes]:
    return {flag.lower() for flag in flags}
