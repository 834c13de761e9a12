"""Deliveries of a real Dovecot, in the numbers that `cryptomail metrics` gives."""

import os
import subprocess
from collections.abc import Mapping

import pytest
from prometheus_client import parser

from lab import client
from lab.client import Lab
from tests.e2e.conftest import NewPerson, RunningLab, deliver, message
from tests.support.system_users import settle
from tests.support.workers import until


def numbers(lab: Lab) -> dict[tuple[str, str], float]:
    command = lab.command(lab.inside(lab.cryptomail), "metrics", "--prometheus")
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode()
    return {
        (sample.name, "".join(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def counted(lab: Lab, before: Mapping[tuple[str, str], float], more: int) -> dict[tuple[str, str], float]:
    """The numbers when so many messages more are counted: Dovecot has its answer a moment before that."""
    until(lambda: messages(numbers(lab)) >= messages(before) + more)
    return numbers(lab)


def messages(shown: Mapping[tuple[str, str], float]) -> float:
    return sum(count for (name, _), count in shown.items() if name.endswith("_messages_total"))


def test_each_delivery_is_counted(lab_sealed: Lab, new_person: NewPerson, canary: str) -> None:
    person, keyless, revoked = (new_person(lab_sealed) for _ in range(3))
    person.set_up_key()
    revoked.gpg.revoke(revoked.set_up_key())
    revoked.give_key()
    before = numbers(lab_sealed)
    assert before["cryptomail_up", ""] == 1
    assert [deliver(one, message(canary)) for one in (person, person, keyless, revoked)] == [250, 250, 250, 451]
    assert deliver(person, person.ciphertext(canary.encode())) == 250
    now = counted(lab_sealed, before, 5)
    grown = {name: now[name] - before[name] for name in now if "_messages_" in name[0] and now[name] != before[name]}
    assert grown == {
        ("cryptomail_encrypted_messages_total", "sequoia"): 2,
        ("cryptomail_left_alone_messages_total", "no-key"): 1,
        ("cryptomail_left_alone_messages_total", "encrypted-already"): 1,
        ("cryptomail_refused_messages_total", "unusable-key"): 1,
    }
    assert person.user not in "".join(label for _, label in now)


def test_deliveries_for_system_users_are_counted_too(lab_users: Lab, new_person: NewPerson, canary: str) -> None:
    person = settle(new_person, lab_users, "games")
    before = numbers(lab_users)
    sent = message(canary)
    assert [reply.code for reply in client.lmtp(lab_users, sent, [person.address])] == [250]
    now = counted(lab_users, before, 1)
    encrypted = ("cryptomail_encrypted_messages_total", "sequoia")
    assert now[encrypted] == before[encrypted] + 1
    received = ("cryptomail_received_bytes_total", "")
    assert now[received] - before[received] >= len(sent)


@pytest.mark.parametrize("mode", ["sealed", "users"])
def test_no_script_and_no_other_user_reaches_the_socket_with_the_numbers(mode: str, running_lab: RunningLab) -> None:
    lab = running_lab(mode)
    socket = lab.sockets / "metrics"
    status = socket.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == (lab.mail_uid if mode == "sealed" else os.getuid())
    # Scripts name programs and sockets in these two directories, and nothing else.
    assert {path.name for path in lab.sockets.glob("*/*")} & {"metrics"} == set()
