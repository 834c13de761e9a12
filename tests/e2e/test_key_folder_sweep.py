"""Secret keys that came into the folder for keys without being looked at do not stay there."""

import fcntl
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from lab import client, managesieve
from lab.client import Lab
from sieve_filter import limits
from sieve_filter.enrolment import sweep as sweeps
from tests.e2e.conftest import NewPerson, Person, deliver, files_with
from tests.support.imap_keys import FOLDER, answers, armored, save, session, text, with_attachment, with_text

CRITICAL = 2  # as Nagios' plugins end


def sweep(person: Person, path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return keys(person.lab, path, *(arguments or ("sweep",)), "--user", person.address)


def keys(lab: Lab, path: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = lab.command("env", f"PATH={path}", lab.inside(lab.cryptomail), "keys", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def secret_key(person: Person) -> bytes:
    person.gpg.make_key(person.address)
    return person.gpg.gpg("--export-secret-keys")


def file_in_folder(person: Person, message: bytes) -> None:
    """Have a delivery put a message into the folder, as an owner's script may, and REPLACE does likewise."""
    script = f'require ["fileinto", "mailbox"]; fileinto :create "{FOLDER}";'
    managesieve.upload(person.lab, person.user, script.encode())
    assert deliver(person, message) == 250


def wait_for_what_saving_started(person: Person) -> None:
    """A process looks at the folder after each save; it holds a lock on the home."""
    home = os.open(person.lab.home(person.user), os.O_RDONLY)
    fcntl.flock(home, fcntl.LOCK_EX)
    os.close(home)


def assert_on_no_disk(lab: Lab, secret: bytes) -> None:
    assert files_with(lab, [secret[20:60]]) == []


def test_a_key_that_has_waited_for_its_removal_is_gone_after_a_sweep(
    lab_sealed: Lab, new_person: NewPerson, path: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    save(person, with_text(b"", "off"))
    wait_for_what_saving_started(person)
    assert sweep(person, path).stdout.count("\n") == 1
    waiting = lab_sealed.home(person.user) / ".cryptomail/cryptomail-requests"
    waiting.write_text(re.sub(r'"until": \d+', f'"until": {int(time.time())}', waiting.read_text()))
    done = sweep(person, path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n1 key removed, as their owners had asked\n")
    assert not (lab_sealed.home(person.user) / ".cryptomail/pubring.kbx").exists()


def test_a_secret_key_that_replace_saved_is_taken_away(lab_sealed: Lab, new_person: NewPerson, path: str) -> None:
    person = new_person(lab_sealed)
    secret = secret_key(person)
    save(person, with_text(b"a draft"), "Notes")
    save(person, with_text(b"a letter"))
    wait_for_what_saving_started(person)
    with session(person) as connection:
        if "REPLACE" not in connection.capability()[1][0].decode().split():
            pytest.skip("this Dovecot has no REPLACE")
        connection.select("Notes")
        saved = with_attachment(secret, "application/octet-stream", "note.bin")
        connection.literal = saved  # type: ignore[assignment]  # which is what imaplib itself does
        assert connection.xatom("UID", "REPLACE", "1", FOLDER)[0] == "OK"
    assert len(answers(person)) == 2
    done = sweep(person, path)
    assert (done.returncode, done.stdout) == (
        0,
        f"1 message with a secret key removed from the folders {FOLDER} of 1 users\n",
    )
    assert f"{person.address!r} had saved a SECRET key in the folder {FOLDER}" in done.stderr
    assert [one["Subject"] for one in answers(person)] == [
        "No OpenPGP key found",
        "WARNING: you sent your SECRET key",
    ]
    assert_on_no_disk(lab_sealed, secret)


@pytest.mark.parametrize("command", ["sweep", "check"])
def test_a_secret_key_that_nobody_looked_at_is_taken_away_and_all_else_stays(
    lab_sealed: Lab, new_person: NewPerson, path: str, command: str
) -> None:
    person, stranger = new_person(lab_sealed), new_person(lab_sealed)
    stranger.gpg.make_key(person.address)
    secret = secret_key(person)
    file_in_folder(person, with_attachment(armored(stranger)))
    file_in_folder(person, with_attachment(secret, "application/octet-stream", "note.bin"))
    forged = b"X-Cryptomail: confirmation\r\n" + with_attachment(secret, "text/plain", "note.txt")
    file_in_folder(person, forged)
    before = client.imap(lab_sealed, person.user, FOLDER)
    assert len(before) == 3
    sweep(person, path, command)
    after = client.imap(lab_sealed, person.user, FOLDER)
    assert after[0] == before[0]
    assert [one["Subject"] for one in answers(person)][1:] == ["WARNING: you sent your SECRET key"] * 2
    assert not (lab_sealed.home(person.user) / ".cryptomail").exists()
    sweep(person, path, command)
    assert client.imap(lab_sealed, person.user, FOLDER) == after


def test_when_an_owner_saves_there_what_else_lies_there_is_looked_at(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    file_in_folder(person, with_attachment(secret_key(person), "application/octet-stream", "note.bin"))
    save(person, with_text(b"a letter"))
    deadline = time.monotonic() + 30
    while len(answers(person)) < 2 or "WARNING" not in str(answers(person)[1]["Subject"]):
        assert time.monotonic() < deadline, [one["Subject"] for one in answers(person)]
        time.sleep(0.5)
    assert [one["Subject"] for one in answers(person)] == [
        "No OpenPGP key found",
        "WARNING: you sent your SECRET key",
    ]


def test_a_check_of_everybody_takes_away_what_was_saved_lately(
    lab_sealed: Lab, new_person: NewPerson, path: str, users: Path
) -> None:
    person, other, absent = new_person(lab_sealed), new_person(lab_sealed), new_person(lab_sealed)
    file_in_folder(person, with_attachment(secret_key(person), "application/octet-stream", "note.bin"))
    assert deliver(other, with_text(b"a letter")) == 250
    users.write_text("".join(f"{one.address}\n" for one in (person, other, absent)))
    done = keys(lab_sealed, path, "check", "--all")
    assert done.returncode == CRITICAL
    assert f"CRITICAL: {person.address}: has no key; saved a SECRET key in the folder {FOLDER}: it was" in done.stdout
    assert other.address not in done.stdout
    assert not lab_sealed.home(absent.user).exists()
    assert [one["Subject"] for one in answers(person)] == ["WARNING: you sent your SECRET key"]
    done = keys(lab_sealed, path, "check", "--all")
    assert person.address not in done.stdout + done.stderr


def test_a_message_that_is_only_marked_as_deleted_stays(lab_sealed: Lab, new_person: NewPerson, path: str) -> None:
    person = new_person(lab_sealed)
    file_in_folder(person, with_text(b"a letter"))
    file_in_folder(person, with_attachment(secret_key(person), "application/octet-stream", "note.bin"))
    with session(person) as connection:
        connection.select(FOLDER)
        connection.store("1", "+FLAGS", r"\Deleted")
    assert sweep(person, path).returncode == 0
    assert ["WARNING" in one["Subject"] for one in answers(person)] == [False, True]
    assert "The message that you saved here held a SECRET key" in text(answers(person)[1])


def test_a_session_that_hangs_or_ends_is_reported_and_others_are_done(tmp_path: Path) -> None:
    program = tmp_path / "doveadm"
    program.write_text('#!/bin/sh\ntest "$4" = alice && sleep 60\necho "* BYE no"\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        patch.setattr(limits, "OWNER_SECONDS", 2)
        started = time.monotonic()
        done = sweeps.sweep(["alice", "bob"], FOLDER, lambda _: None)
        assert time.monotonic() - started < 20
    assert [(one.user, one.removed) for one in done] == [("alice", 0), ("bob", 0)]
    assert ["ended too early" in str(done[0].error), "no IMAP session" in str(done[1].error)] == [True, True]
