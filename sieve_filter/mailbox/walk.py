"""A mailbox's folders, and what each is for (RFC 6154, RFC 2342)."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sieve_filter.dovecot import imap
from sieve_filter.errors import UsageError
from sieve_filter.policy.settings import UNFINISHED

_DRAFTS = b"\\drafts"


class Folder(NamedTuple):
    """A folder: its name as a command has it, and for people; whether it has the owner's drafts, templates or mail that
    is still to be sent (`unfinished`), and whether it is other people's too (`shared`).
    """

    name: bytes
    label: str
    unfinished: bool
    shared: bool


def folders(session: imap.Session) -> list[Folder]:
    """All folders that can be selected, by name. Raises ServiceError."""
    special = b"SPECIAL-USE" in session.capabilities()
    _, others = session.namespaces()
    found = session.listing(b" RETURN (SPECIAL-USE)" if special else b"")
    return sorted((_folder(one, others) for one in found), key=lambda one: one.label)


def chosen(found: Sequence[Folder], names: Iterable[str]) -> list[Folder]:
    """Those of the folders that have these names; all where there are no names. Raises UsageError where one is not
    there.
    """
    wanted = set(names)
    if missing := wanted - {one.label for one in found}:
        raise UsageError(f"there is no folder {min(missing)!r}")
    return [one for one in found if not wanted or one.label in wanted]


def _folder(listed: imap.Listed, others: Sequence[bytes]) -> Folder:
    label = imap.label(listed.name)
    separator = listed.separator.decode("utf-8", "replace")
    last = (label.rpartition(separator)[2] if separator else label).lower()
    shared = any(label.startswith(prefix.decode("utf-8", "replace")) for prefix in others if prefix)
    return Folder(listed.name, label, _DRAFTS in listed.attributes or last in UNFINISHED, shared)
