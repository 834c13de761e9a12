"""Two runs over two ways replace the same messages at the same moment: neither knows of the other."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from lab.client import Lab
from sieve_filter.mailbox import messages as stored
from sieve_filter.mailbox import replace, walk
from sieve_filter.mailbox.journal import Journal
from sieve_filter.mailbox.replace import New
from sieve_filter.mailbox.task import Made
from tests.e2e.conftest import NewPerson, Person
from tests.support.mailboxes import messages, numbered, save, session

COUNT = 20


def replaced(person: Person, file: Path, both: threading.Barrier) -> int:
    """Replace each message by one that says who did it, once both runs have read them. Returns how many were."""

    def wait() -> None:
        both.wait(30)

    with session(person) as one, file.open("w+b") as journal:
        [folder] = walk.chosen(walk.folders(one), ["INBOX"])
        selected = one.select(folder.name)
        found = list(stored.stored(one))
        wait()
        made = b"Subject: by " + file.name.encode() + b"\r\n\r\n"
        news: Sequence[New] = [
            New(old.uid, old.flags, old.date, Made([made], len(made), sha256(made).hexdigest())) for old in found
        ]
        can = replace.abilities(one)
        return replace.replace(one, folder, selected, news, Journal(journal.fileno()), can, wait, secret=False)[0]


@pytest.mark.parametrize("flags", ["\\Seen", "\\Seen \\Deleted", "\\Deleted"])
def test_a_message_that_two_runs_replace_is_there_once(
    lab_sealed: Lab, new_person: NewPerson, tmp_path: Path, canary: str, flags: str
) -> None:
    person = new_person(lab_sealed)
    save(person, *(numbered(canary, number) for number in range(COUNT)), flags=flags)
    both = threading.Barrier(2)
    with ThreadPoolExecutor() as pool:
        counts = list(pool.map(lambda name: replaced(person, tmp_path / name, both), ["one", "other"]))
    assert sum(counts) == COUNT
    after = messages(person)
    assert len(after) == COUNT
    assert {one.flags for one in after} == {frozenset(flags.split())}
    assert all(b"Subject: by " in one.octets for one in after)
