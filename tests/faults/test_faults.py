"""The fault matrix: whatever fails, no message is stored in clear, and none is lost."""

import os
import time
from collections.abc import Callable

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson
from tests.faults import search, sender
from tests.faults.account import account
from tests.faults.dovecot import NAMES, PROGRAM, WORKER, mode, version
from tests.faults.faults import DELIVERED, FAULTS, REFUSED, Fault
from tests.faults.sender import Canaries
from tests.faults.table import LONG, Row

# Faults of the worker take restarts of Dovecot, which are slow: the short version has only those that are its own.
# Those of the program it causes in turns, one with Dovecot 2.3 and the next with 2.4.
_SHORT = LONG not in os.environ
_CASES = [
    pytest.param((name, by), fault, id=f"{name}-{NAMES[by]}-{fault.sentence}")
    for place, name in enumerate(DOVECOTS)
    for by in (WORKER, PROGRAM)
    for number, fault in enumerate(fault for fault in FAULTS if by in fault.modes)
    if not _SHORT or fault.modes == (WORKER,) or (by == PROGRAM and number % len(DOVECOTS) == place)
]


@pytest.mark.parametrize(("lab", "fault"), _CASES, indirect=["lab"], scope="session")
def test_no_message_leaks_or_is_lost_when(
    fault: Fault, lab: Lab, new_person: NewPerson, record_property: Callable[[str, object], None]
) -> None:
    person = new_person(lab)
    person.set_up_key()
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
    assert fault.says in said
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
