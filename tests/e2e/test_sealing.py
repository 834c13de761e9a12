"""Sealed delivery: whatever an owner's own script does, it does it to ciphertext, and as it would without us."""

import os
import pwd
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from lab import client, managesieve
from lab.client import Lab
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    deliver,
    message,
)
from tests.faults import dovecot
from tests.faults.faults import hasty_worker

TEMPORARY_FAILURE = 451

# Each of these made Pigeonhole store the message in clear after a filter that had worked.
BROKEN_SCRIPTS = {
    "a folder name that cannot be": 'require "fileinto"; fileinto "foo//bar";',
    "an error on purpose": 'require ["fileinto", "variables", "vnd.dovecot.filter"]; filter "missing";',
    "a syntax error": "this is no Sieve script",
    "a folder that does not exist": 'require "fileinto"; fileinto "no such folder";',
    "a missing program": 'require "vnd.dovecot.filter"; filter "nonexistent";',
}


@contextmanager
def without_the_service(lab: Lab) -> Iterator[None]:
    socket = lab.directory / "run/lmtp-sealed"
    away = socket.with_name("elsewhere")
    socket.rename(away)
    try:
        yield
    finally:
        away.rename(socket)


@pytest.fixture
def person(lab_sealed: Lab, new_person: NewPerson) -> Person:
    made = new_person(lab_sealed)
    made.set_up_key()
    return made


@pytest.mark.parametrize("script", BROKEN_SCRIPTS.values(), ids=BROKEN_SCRIPTS)
def test_no_error_in_the_owners_script_brings_the_clear_text_back(person: Person, canary: str, script: str) -> None:
    home = person.lab.home(person.user)
    (home / ".dovecot.sieve").write_text(script)  # ManageSieve would refuse some of them
    os.chown(home / ".dovecot.sieve", person.lab.mail_uid, -1)
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(person.lab, canary)


def test_the_owners_script_sees_header_fields_and_envelope_as_always(person: Person, canary: str) -> None:
    script = """
        require ["fileinto", "mailbox", "envelope", "subaddress", "imap4flags"];
        if allof (header :is "Subject" "hello", envelope :is "from" "boss@example.com",
                  envelope :detail :is "to" "detail") {
            addflag "\\\\Flagged";
            fileinto :create "seen";
        }
    """
    managesieve.upload(person.lab, person.user, script.encode())
    sent = message(canary)
    recipient = person.address.replace("@", "+detail@")
    [reply] = client.lmtp(person.lab, sent, [recipient], "boss@example.com")
    assert reply.code == 250
    assert len(client.imap(person.lab, person.user, "seen")) == 1
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)


def test_trace_fields_of_the_delivery_are_not_doubled(person: Person, canary: str) -> None:
    assert deliver(person, message(canary)) == 250
    header = person.received()[0].partition(b"\n\n")[0]
    assert header.count(b"Return-Path:") == 1
    assert header.count(b"Delivered-To:") == 1
    assert header.startswith(b"Return-Path: <sender@example.com>\n")


def test_what_the_owners_script_discards_stays_discarded(person: Person, canary: str) -> None:
    managesieve.upload(person.lab, person.user, b"discard;")
    assert deliver(person, message(canary)) == 250
    assert person.received() == []
    assert_nowhere_in_clear(person.lab, canary)


def test_mail_waits_while_the_keyring_of_an_owner_who_had_one_is_not_there(person: Person, canary: str) -> None:
    assert deliver(person, message(canary)) == 250
    keyring = person.lab.home(person.user) / ".cryptomail"
    away = keyring.rename(keyring.with_name("elsewhere"))
    assert deliver(person, message(canary)) == TEMPORARY_FAILURE
    away.rename(keyring)
    assert deliver(person, message(canary)) == 250
    assert len(person.received()) == 2
    assert_nowhere_in_clear(person.lab, canary)


def test_without_the_inner_service_the_sender_is_told_to_try_again(person: Person, canary: str) -> None:
    with without_the_service(person.lab):
        assert deliver(person, message(canary)) == TEMPORARY_FAILURE
    assert person.received() == []
    assert_nowhere_in_clear(person.lab, canary)


def test_only_the_mail_user_can_deliver_to_the_inner_service(lab_sealed: Lab) -> None:
    status = (lab_sealed.directory / "run/lmtp-sealed").stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert pwd.getpwuid(status.st_uid).pw_uid == lab_sealed.mail_uid


def until_taken(person: Person, sent: bytes) -> None:
    """Deliver as a sender does that tries again: a Dovecot that is about to start anew may refuse, or hang up."""
    deadline = time.monotonic() + 10
    while True:
        with suppress(OSError):
            if deliver(person, sent) == 250:
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("lines", [0, 250_000], ids=["small", "large"])
def test_a_message_that_comes_again_because_dovecot_did_not_answer_in_time_is_there_once(
    person: Person, canary: str, lines: int
) -> None:
    sent = message(canary, "Message-ID: <one@example.com>") + b"0123456789\r\n" * lines
    with hasty_worker(person), dovecot.slowed(person.lab, dovecot.private_service(person.lab), 8):
        assert deliver(person, sent) == TEMPORARY_FAILURE
        deadline = time.monotonic() + 30
        while not person.received():
            assert time.monotonic() < deadline
            time.sleep(0.5)
    until_taken(person, sent)
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert deliver(person, message(canary + "-other", "Message-ID: <one@example.com>")) == 250
    assert len(person.received()) == 2
    for file in person.lab.home(person.user).glob("Maildir/new/*"):
        file.unlink()
    assert deliver(person, sent) == 250
    assert len(person.received()) == 1
    assert_nowhere_in_clear(person.lab, canary)


def test_bounce_is_sealed_with_its_empty_sender(person: Person, canary: str) -> None:
    sent = message(canary)
    assert deliver(person, sent, sender="") == 250
    [stored] = person.received()
    assert stored.startswith(b"Return-Path: <>\n")
    assert_encrypted_to(person, stored, sent, canary)


def test_workers_end_quietly_when_dovecot_is_reloaded(lab_sealed: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    assert deliver(person, message(canary)) == 250
    before = lab_sealed.log.read_text()
    for _ in range(3):
        reload = ["doveadm", "-c", lab_sealed.inside(lab_sealed.directory / "dovecot.conf"), "reload"]
        subprocess.run(lab_sealed.command(*reload), check=True)
        time.sleep(1)  # Dovecot answers before it has told its processes
        assert deliver(person, message(canary)) == 250
    said = lab_sealed.log.read_text().removeprefix(before)
    assert "Traceback" not in said
    assert "Error" not in said
    assert len(person.received()) == 4
