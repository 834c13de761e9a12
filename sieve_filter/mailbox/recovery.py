"""Brings to an end what an earlier run was killed at: the journal says where to look, the server what is so."""

from sieve_filter.dovecot.imap import Session
from sieve_filter.errors import ImapRefusalError
from sieve_filter.mailbox import messages, replace
from sieve_filter.mailbox.journal import Journal
from sieve_filter.mailbox.replace import Abilities


def recover(session: Session, journal: Journal, can: Abilities) -> int:
    """Have each message of the journal's note there once. Returns how many messages were replaced.

    Where the new one is there, octet for octet, the old one is removed; where it is not, nothing is to be done, and
    nothing where the old one is gone. Where UIDs have become others', nothing can be told; then what was about to be
    replaced may be there twice. Raises ServiceError.
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
        sizes = {entry.size for entry in note.entries}
        later = [uid for uid, size in _sizes(session, note.uid_next).items() if size in sizes]
        uids = {digest: uid for uid, digest in replace.digests(session, later, can).items()}
        pairs = {one.uid: uids[one.digest] for one in note.entries if one.digest in uids}
        old = replace.states(session, pairs, can)
        new = replace.states(session, pairs.values(), can)
        known = {}
        for uid, other in list(pairs.items()):
            if uid not in old:
                del pairs[uid]
                continue
            # What owners marked on either is on the new one then; the mark of removal may be the earlier run's.
            known[uid] = old[uid].flags
            more = {flag for flag in old[uid].flags | new[other].flags if flag.lower() != b"\\deleted"}
            deleted = new[other].flags - more
            session.run(b"UID STORE %d FLAGS.SILENT (%b)" % (other, b" ".join(sorted(more | deleted))))
        count = replace.finish(session, pairs, known, can)
    journal.clear()
    return count


def _sizes(session: Session, first: int) -> dict[int, int]:
    """The octets of each message from that UID on."""
    return {uid: size for uid, size in messages.sizes(session, b"%d:*" % first).items() if uid >= first}
