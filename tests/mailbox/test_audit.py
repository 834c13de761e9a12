"""The audit's verdict on what it has read of a message is the filter's on all of it."""

import json

import pytest
from hypothesis import given

from sieve_filter import limits
from sieve_filter.delivery import incoming
from sieve_filter.mailbox import audit, messages, report
from sieve_filter.mailbox.audit import FolderAudit, MailboxAudit
from sieve_filter.mailbox.messages import Stored
from sieve_filter.mailbox.report import Audit
from sieve_filter.system.spool import MemoryFile
from tests.support.corpus import CORPUS
from tests.support.encrypted import ENCRYPTED
from tests.support.messages import any_message

_CUT = 200
SAMPLES = {file.name: file.read_bytes() for file in CORPUS if file.suffix == ".eml"} | ENCRYPTED


def check(octets: bytes) -> None:
    """Where the first octets are enough for a verdict, it is the filter's."""
    shape, _ = incoming.look(incoming.receive(iter([octets]), limits.SMALL_OCTETS), MemoryFile)
    stored = Stored(1, (), b"", len(octets), octets[: messages.BEGINNING])
    verdict = audit.verdict_of(stored)
    if verdict is None:
        assert not stored.whole or stored.doubtful
    elif stored.whole:
        assert verdict.shape == shape
    else:
        assert not verdict.shape.encrypted
        assert not shape.encrypted


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("cut", [_CUT, 1000, 100_000])
def test_samples(name: str, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "BEGINNING", cut)
    check(SAMPLES[name])


@given(any_message)
def test_any_message(octets: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check(octets)
        patch.setattr(messages, "BEGINNING", _CUT)
        check(octets)


def test_who_encrypted_a_message_counts_by_mark_and_key() -> None:
    shape, _ = incoming.look(incoming.receive(iter([ENCRYPTED["PGP/MIME"]]), limits.SMALL_OCTETS), MemoryFile)
    [key_id] = shape.key_ids
    marked, unmarked = audit.Verdict(shape, marked=True), audit.Verdict(shape, marked=False)
    assert marked.among({key_id, "other"}) == marked.among(None) == "encrypted"
    assert marked.among({"other"}) == unmarked.among({key_id}) == unmarked.among(None) == "foreign"


INBOX = FolderAudit("INBOX", 10, 4, 2, 3, 1, 3)


@pytest.mark.parametrize(
    ("folder", "keyed", "state"),
    [
        (INBOX, True, 1),
        (INBOX, False, 0),
        (INBOX._replace(undecidable=0), True, 0),
        (INBOX._replace(undecidable=0, drafts=2), True, 1),
    ],
)
def test_what_owners_with_a_key_have_in_clear_is_a_warning_but_for_drafts(
    folder: FolderAudit, keyed: bool, state: int
) -> None:
    assert report.worst(Audit([MailboxAudit("ann", (folder,), (), keyed)])) == state


def test_who_cannot_be_looked_at_is_unknown() -> None:
    assert report.worst(Audit([])) == 3
    done = Audit([MailboxAudit("ann", (INBOX,), (), True)], failures=[("bob", "no")], passed_over=2)
    assert report.worst(done) == 3
    assert report.summary(done) == (
        "MAILBOX UNKNOWN - 1 mailbox: 3 of 10 messages in clear (3 drafts), 1 undecidable; 1 mailbox unknown "
        "(2 accounts passed over) | mailboxes=1 messages=10 encrypted=4 foreign=2 clear=3 undecidable=1 drafts=3"
    )
    assert report.lines(done) == ["UNKNOWN: bob: no"]
    assert json.loads(report.as_json(done)) == {
        "users": [
            {
                "user": "ann",
                "folders": [
                    {"name": "INBOX", "messages": 10, "encrypted": 4, "foreign": 2, "clear": 3, "undecidable": 1}
                ],
                "residue": [],
            }
        ],
        "failed": [{"user": "bob", "error": "no"}],
    }
