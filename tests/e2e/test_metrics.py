"""Deliveries of a real Dovecot, in the numbers that `cryptomail metrics` gives."""

import os
import subprocess
from collections.abc import Mapping

import pytest
from prometheus_client import parser

from lab import client
from lab.client import Lab
from lab.server import REPOSITORY
from tests.e2e.conftest import NewPerson, RunningLab, deliver, message
from tests.support.fields import taken_apart
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


def test_each_delivery_leaves_a_line_in_dovecot_s_log_that_programs_can_take_apart(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person, keyless, revoked = (new_person(lab_sealed) for _ in range(3))
    fingerprint = person.set_up_key()
    revoked.gpg.revoke(revoked.set_up_key())
    revoked.give_key()
    sent = message(canary, f"Message-ID: <{canary[7:]}@example.com>")
    assert [deliver(one, sent) for one in (person, keyless, revoked)] == [250, 250, 451]
    until(lambda: len(lines(lab_sealed, canary[7:])) >= 3)
    encrypted, left, refused = lines(lab_sealed, canary[7:])
    assert (encrypted["verdict"], encrypted["user"]) == ("encrypted", person.address)
    assert encrypted["keys"] in person.gpg.gpg("--with-colons", "--list-keys", fingerprint).decode()
    assert int(encrypted["octets_out"]) > int(encrypted["octets_in"]) > len(sent)
    assert (left["verdict"], left["reason"], left["user"]) == ("left-alone", "no-key", keyless.address)
    assert (refused["verdict"], refused["reason"], refused["user"]) == ("refused", "unusable-key", revoked.address)
    assert refused["msg"].endswith("nothing was stored, try again later")
    document = (REPOSITORY / "docs" / "admin" / "metrics.md").read_text()
    assert [name for line in (encrypted, left, refused) for name in line if f"`{name}`" not in document] == []


def test_a_program_that_is_started_for_a_message_writes_such_a_line_too(
    running_lab: RunningLab, new_person: NewPerson, canary: str
) -> None:
    lab = running_lab("executed")
    revoked = new_person(lab)
    revoked.gpg.revoke(revoked.set_up_key())
    revoked.give_key()
    assert deliver(revoked, message(canary, f"Message-ID: <{canary[7:]}@example.com>")) == 451
    until(lambda: lines(lab, canary[7:]))
    [line] = lines(lab, canary[7:])
    assert (line["verdict"], line["reason"], line["user"]) == ("refused", "unusable-key", revoked.address)


def lines(lab: Lab, word: str) -> list[dict[str, str]]:
    """What programs learn from the lines in Dovecot's log of what became of the message with that Message-ID."""
    written = [line for line in lab.log.read_text().splitlines() if word in line and " verdict=" in line]
    return [taken_apart(line) for line in written]


@pytest.mark.parametrize("mode", ["sealed", "users"])
def test_no_script_and_no_other_user_reaches_the_socket_with_the_numbers(mode: str, running_lab: RunningLab) -> None:
    lab = running_lab(mode)
    socket = lab.sockets / "metrics"
    status = socket.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_uid == (lab.mail_uid if mode == "sealed" else os.getuid())
    # Scripts name programs and sockets in these two directories, and nothing else.
    assert {path.name for path in lab.sockets.glob("*/*")} & {"metrics"} == set()
