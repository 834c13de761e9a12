"""Brings to an end what an earlier run was killed at: the journal says where to look, the server what is so."""

from collections.abc import Iterable, Mapping

from sieve_filter.dovecot.imap import Session
from sieve_filter.errors import BusyError, ImapRefusalError
from sieve_filter.mailbox import messages, replace
from sieve_filter.mailbox.journal import Entry, Journal
from sieve_filter.mailbox.replace import Abilities
from sieve_filter.mailbox.task import Task


def recover(session: Session, journal: Journal, can: Abilities, task: Task) -> int:
    """Have each message of the journal's note there once. Returns how many messages were replaced.

    Where the new one is there, octet for octet, the old one is removed; where it is not, nothing is to be done, and
    nothing where the old one is gone. Where UIDs have become others', nothing can be told; then what was about to be
    replaced may be there twice. Raises ServiceError, BusyError where only another task can tell.
    """
    note = journal.read()
    if note is None:
        return 0
    try:
        selected = session.select(note.folder.encode("latin-1"))
    except ImapRefusalError:  # the folder is no more
        journal.clear()
        return 0
    count = 0
    if selected.uid_validity == note.uid_validity:
        old = replace.states(session, [entry.uid for entry in note.entries], can)
        wanted = [_told(session, one, can, task) for one in note.entries if one.uid in old]
        sizes = {entry.size for entry in wanted}
        later = [uid for uid, size in _sizes(session, note.uid_next).items() if size in sizes]
        pairs = paired(wanted, replace.digests(session, later, can))
        new = replace.states(session, pairs.values(), can)
        known = {}
        for uid, other in pairs.items():
            # What owners marked on either is on the new one then; the mark of removal may be the earlier run's.
            known[uid] = old[uid].flags
            more = {flag for flag in old[uid].flags | new[other].flags if flag.lower() != b"\\deleted"}
            deleted = new[other].flags - more
            session.run(b"UID STORE %d FLAGS.SILENT (%b)" % (other, b" ".join(sorted(more | deleted))))
        count = replace.finish(session, pairs, known, can)
    journal.clear()
    return count


def paired(entries: Iterable[Entry], found: Mapping[int, str]) -> dict[int, int]:
    """The old and the new UID of each message whose new one is there; no two have the same, whatever is in them.

    `found` has the digest of each that may be new. What is alike is paired from the end on, in the order of UIDs: the
    first may have been done.
    """
    left: dict[str, list[int]] = {}
    for uid in sorted(found):
        left.setdefault(found[uid], []).append(uid)
    pairs = {}
    for entry in reversed(list(entries)):
        if left.get(entry.digest):
            pairs[entry.uid] = left[entry.digest].pop()
    return dict(reversed(pairs.items()))


def _told(session: Session, entry: Entry, can: Abilities, task: Task) -> Entry:
    """The same with what replaces it, which is made once more where nothing of it was noted."""
    if entry.digest:
        return entry
    section = messages.section(session, entry.uid, can.binary) if task.secret else None
    made = task.make(messages.pieces(session, entry.uid, section)) if section else "it is another command's"
    if made is None or isinstance(made, str):
        reason = made or "a message has gone meanwhile"
        raise BusyError(f"a cryptomail mailbox restore was killed; run that once more, first: {reason}")
    return Entry(entry.uid, made.size, made.digest)


def _sizes(session: Session, first: int) -> dict[int, int]:
    """The octets of each message from that UID on."""
    return {uid: size for uid, size in messages.sizes(session, b"%d:*" % first).items() if uid >= first}
