"""Workers and their supervisor are killed while messages come: everybody has an answer, and lmtp does not panic."""

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lab import client
from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person, assert_nowhere_in_clear, message
from tests.faults import dovecot

MESSAGES, CONNECTIONS, KILLS = 60, 4, 25
ANSWER_SECONDS = 10
BROKEN = 0  # instead of an answer: the connection that has ended


def children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def kill_one(lab: Lab, dice: random.Random, supervisor_too: bool) -> str:
    """Kill a worker, or now and then the supervisor. Returns which of them; nothing where there was none."""
    for supervisor in dovecot.processes(lab, "worker"):
        chosen = "supervisor" if supervisor_too and dice.random() < 0.15 else "worker"
        victims = [supervisor] if chosen == "supervisor" else children(supervisor)
        if victims:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(victims), signal.SIGKILL)
                return chosen
    return ""


@pytest.mark.parametrize(
    ("size", "supervisor_too"), [(1_000_000, False), (1_000, True)], ids=["workers", "supervisor too"]
)
def test_each_recipient_has_an_answer_whatever_is_killed(
    size: int, supervisor_too: bool, lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    people = [new_person(lab_sealed) for _ in range(2)]
    for person in people:
        person.set_up_key()
    before = lab_sealed.log.read_text()
    answers: dict[tuple[int, str], int] = {}
    killed: Counter[str] = Counter()
    slowest = 0.0
    done = threading.Event()

    def send(number: int) -> None:
        nonlocal slowest
        started = time.monotonic()
        sent = message(f"{canary}{number:04}x", f"Message-ID: <{number}@example.com>") + b"0123456789\r\n" * (
            size // 12
        )
        try:
            codes = [reply.code for reply in client.lmtp(lab_sealed, sent, [person.address for person in people])]
        # Nobody was left to answer lmtp, which panics then: docs/developer/dovecot-lmtp-panic.md
        except (OSError, ValueError):
            if not supervisor_too:
                raise
            codes = [BROKEN] * len(people)
        for person, code in zip(people, codes, strict=True):
            answers[number, person.user] = code
        slowest = max(slowest, time.monotonic() - started)

    def kill() -> None:
        dice = random.Random(0)  # noqa: S311  # the same victims each time
        while sum(killed.values()) < KILLS and not done.wait(dice.uniform(0.02, 0.3)):
            if what := kill_one(lab_sealed, dice, supervisor_too):
                killed[what] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(send, range(MESSAGES)))
    done.set()
    killer.join()
    time.sleep(2)  # an inner delivery that goes on without its outer one is done by now
    said = lab_sealed.log.read_text().removeprefix(before)
    assert supervisor_too or "Panic" not in said
    assert set(answers.values()) <= {250, 451, BROKEN}
    # Who waited in the supervisor that was killed: one message of each connection at most.
    assert Counter(answers.values())[BROKEN] <= len(people) * CONNECTIONS * killed["supervisor"]
    assert slowest < ANSWER_SECONDS
    assert_nowhere_in_clear(lab_sealed, canary)
    extra = 0
    for person in people:
        copies = Counter(number_in(person, stored, canary) for stored in person.received())
        for number in range(MESSAGES):
            accepted = answers[number, person.user] == 250
            assert copies[number] >= accepted, "a message was lost"
            extra += copies[number] - accepted
    assert extra <= KILLS
    assert sum(code == 250 for code in answers.values()) > MESSAGES


def number_in(person: Person, stored: bytes, canary: str) -> int:
    return int(person.read(stored).partition(canary.encode())[2][:4])
