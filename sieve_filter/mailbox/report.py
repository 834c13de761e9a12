"""What `cryptomail mailbox audit` tells. Pure: what was found in, text out."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from sieve_filter.keys.status import CRITICAL, NAMES, OK, UNKNOWN, WARNING, counted, labels
from sieve_filter.mailbox.audit import FolderAudit, MailboxAudit

HEAD = ("user", "folder", "messages", "encrypted", "foreign", "clear", "undecidable", "drafts")
_WORSE = (OK, WARNING, UNKNOWN, CRITICAL)
_KINDS = ("encrypted", "foreign", "clear", "undecidable")


class Audit(NamedTuple):
    """Mailboxes that were looked at; `residue` is what the server keeps of all users; `failures` are the users who
    could not be looked at, each with the reason, and `passed_over` the number of accounts that are no owners'.
    """

    mailboxes: Sequence[MailboxAudit]
    residue: tuple[str, ...] = ()
    failures: Sequence[tuple[str, str]] = ()
    passed_over: int = 0


def state_of(mailbox: MailboxAudit) -> int:
    """WARNING where an owner with a key has mail in clear that is no draft, or such that cannot be judged; else OK."""
    readable = sum(one.clear - one.drafts + one.undecidable for one in mailbox.folders)
    return WARNING if mailbox.keyed and readable else OK


def worst(audit: Audit) -> int:
    """The worst state of all; UNKNOWN where somebody could not be looked at, or nobody was."""
    states = [state_of(one) for one in audit.mailboxes]
    states += [UNKNOWN] if audit.failures or not audit.mailboxes else []
    return max(states, key=_WORSE.index)


def rows(audit: Audit) -> list[tuple[str, ...]]:
    """A row for each folder: the user, and the folder's values in the order of HEAD."""
    return [(mailbox.user, *map(str, folder)) for mailbox in audit.mailboxes for folder in mailbox.folders]


def summary(audit: Audit) -> str:
    """One line in the manner of Nagios' plugins: state, numbers, and behind a bar the numbers for a machine."""
    totals = _totals([folder for one in audit.mailboxes for folder in one.folders])
    text = f"{counted(len(audit.mailboxes), 'mailbox').replace('boxs', 'boxes')}: "
    text += f"{totals['clear']} of {counted(totals['messages'], 'message')} in clear"
    text += f" ({counted(totals['drafts'], 'draft')})" if totals["drafts"] else ""
    text += f", {totals['undecidable']} undecidable" if totals["undecidable"] else ""
    text += f"; {counted(len(audit.failures), 'mailbox').replace('boxs', 'boxes')} unknown" if audit.failures else ""
    text += f" ({counted(audit.passed_over, 'account')} passed over)" if audit.passed_over else ""
    numbers = " ".join(f"{name}={count}" for name, count in totals.items())
    return f"MAILBOX {NAMES[worst(audit)]} - {text} | mailboxes={len(audit.mailboxes)} {numbers}"


def lines(audit: Audit) -> list[str]:
    """A line for each residue, and for each user who could not be looked at."""
    said = [f"residue: {text}" for text in audit.residue]
    said += [f"residue: {one.user}: {text}" for one in audit.mailboxes for text in one.residue]
    return said + [f"UNKNOWN: {user}: {why}" for user, why in audit.failures]


def as_json(audit: Audit) -> str:
    """An object with `users`: each with the counts of each folder, and `residue`, the server's own included."""
    users = [
        {
            "user": mailbox.user,
            "folders": [
                {"name": one.name, "messages": one.messages} | {kind: getattr(one, kind) for kind in _KINDS}
                for one in mailbox.folders
            ],
            "residue": [*mailbox.residue, *audit.residue],
        }
        for mailbox in audit.mailboxes
    ]
    failed = [{"user": user, "error": why} for user, why in audit.failures]
    return json.dumps({"users": users} | ({"failed": failed} if failed else {}), indent=2)


def as_prometheus(audit: Audit) -> str:
    """The same in Prometheus' text format, for node_exporter's textfile collector: of users, not of folders."""
    out = [
        "# HELP cryptomail_mailbox_state The worst of all: 0 OK, 1 warning, 3 unknown.",
        "# TYPE cryptomail_mailbox_state gauge",
        f"cryptomail_mailbox_state {worst(audit)}",
        "# HELP cryptomail_mailbox_messages Stored messages by what they are; drafts are among those in clear.",
        "# TYPE cryptomail_mailbox_messages gauge",
    ]
    for mailbox in audit.mailboxes:
        totals = _totals(mailbox.folders)
        out += [
            f"cryptomail_mailbox_messages{labels({'user': mailbox.user, 'kind': kind})} {totals[kind]}"
            for kind in (*_KINDS, "drafts")
        ]
    out += [
        "# HELP cryptomail_mailbox_residue Places in which there may be clear text of what was removed.",
        "# TYPE cryptomail_mailbox_residue gauge",
    ]
    out += [
        f"cryptomail_mailbox_residue{labels({'user': one.user})} {len(one.residue) + len(audit.residue)}"
        for one in audit.mailboxes
    ]
    return "\n".join(out)


def _totals(folders: Sequence[FolderAudit]) -> dict[str, int]:
    return {name: sum(getattr(one, name) for one in folders) for name in ("messages", *_KINDS, "drafts")}
