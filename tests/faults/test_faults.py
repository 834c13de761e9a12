"""The fault matrix: whatever fails, no message is stored in clear, and none is lost."""

import os
import shutil
import time
from collections.abc import Callable

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, Person
from tests.faults import dovecot, search, sender
from tests.faults.account import account
from tests.faults.dovecot import NAMES, USERS, WORKER, mode, version
from tests.faults.faults import DELIVERED, FAULTS, REFUSED, Fault, Load
from tests.faults.sender import Canaries
from tests.faults.table import LONG, Row
from tests.support.system_users import settle

# Faults of the worker take restarts of Dovecot, which are slow: the short version has only those that are its own.
# Those of the program, and of system users, it causes in turns, one with Dovecot 2.3 and the next with 2.4.
_SHORT = LONG not in os.environ
_CASES = [
    pytest.param((name, by), fault, id=f"{name}-{NAMES[by]}-{fault.sentence}")
    for place, name in enumerate(DOVECOTS)
    for by in NAMES
    for number, fault in enumerate(fault for fault in FAULTS if by in fault.modes)
    if not _SHORT or fault.modes == (WORKER,) or (by != WORKER and number % len(DOVECOTS) == place)
]


def _owner(lab: Lab, new_person: NewPerson) -> Person:
    """Somebody with a key and an empty mailbox."""
    if mode(lab) == USERS:
        shutil.rmtree(lab.home(dovecot.owner(lab)), ignore_errors=True)
        return settle(new_person, lab, dovecot.owner(lab))
    person = new_person(lab)
    person.set_up_key()
    return person


@pytest.mark.parametrize(("lab", "fault"), _CASES, indirect=["lab"], scope="session")
def test_no_message_leaks_or_is_lost_when(
    fault: Fault, lab: Lab, new_person: NewPerson, record_property: Callable[[str, object], None]
) -> None:
    person = _owner(lab, new_person)
    load = fault.long_load if LONG in os.environ else fault.load
    canaries = Canaries.new()
    since = time.time() - 1
    messages = canaries.messages(load.messages, load.size)
    log_before = len(lab.log.read_text())
    with fault.cause(person):
        fault.deliver(person, messages, load)
        leaks = search.leaks(lab, canaries, since)
        found = account(person, canaries, messages)
    leaked = set().union(*leaks.values())
    row = Row(
        fault.sentence,
        NAMES[mode(lab)],
        version(lab),
        found.delivered,
        found.refused,
        len(leaked),
        found.lost,
        found.duplicated,
    )
    record_property("fault", list(row))
    said = lab.log.read_text()[log_before:]
    answers = {str(sent.answer) for sent in messages}
    assert leaks == {}, answers
    assert fault.line(mode(lab)) in said
    assert (found.lost, found.damaged) == (0, 0), answers
    assert found.duplicated == 0 or fault.may_duplicate, answers
    if fault.expected == DELIVERED:
        assert found.delivered == len(messages), answers
    elif fault.expected == REFUSED:
        assert found.refused == len(messages), answers
    before = len(person.received())
    for again in canaries.messages(3, 1_000):  # Dovecot may have been told a moment ago to read its settings anew
        sender.deliver(lab, person.address, [again], 1, load.patience)
        if again.accepted:
            break
        time.sleep(1)
    assert again.accepted, again.answer
    assert len(person.received()) == before + 1


_LABS = [pytest.param((name, by), id=f"{name}-{NAMES[by]}") for name in DOVECOTS for by in NAMES]


@pytest.mark.parametrize("lab", _LABS, indirect=True, scope="session")
def test_a_fault_that_does_not_bite_is_seen(lab: Lab, new_person: NewPerson) -> None:
    """Where all goes well, no line is in the log that a fault is known by."""
    person = _owner(lab, new_person)
    log_before = len(lab.log.read_text())
    messages = Canaries.new().messages(3, 1_000)
    sender.deliver(lab, person.address, messages, 3, Load().patience)
    assert [sent.answer for sent in messages if not sent.accepted] == []
    said = lab.log.read_text()[log_before:]
    assert [fault.sentence for fault in FAULTS if mode(lab) in fault.modes and fault.line(mode(lab)) in said] == []
