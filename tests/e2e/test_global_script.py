"""The global script, sealing and without: what it promises to owners and to senders."""

import imaplib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import client, managesieve
from lab.client import Lab
from sieve_filter.errors import DecryptionError
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    assert_unchanged,
    deliver,
    message,
)
from tests.support.fields import taken_apart

TEMPORARY_FAILURE = 451
EX_TEMPFAIL = 75
CRITICAL = 2  # as Nagios' plugins end


@contextmanager
def without_the_program(lab: Lab) -> Iterator[None]:
    """Neither is there a worker that listens."""
    programs = [*lab.filter.parent.parent.glob("*-bin/cryptomail"), *lab.sockets.glob("*/cryptomail")]
    aside = [program.rename(program.with_name("aside")) for program in programs]
    try:
        yield
    finally:
        for program in aside:
            program.rename(program.with_name("cryptomail"))


@contextmanager
def without(*files: Path) -> Iterator[None]:
    """As after an accident with `rm`."""
    aside = [file.rename(file.with_name(f"{file.name}.aside")) for file in files]
    try:
        yield
    finally:
        for file in aside:
            file.rename(file.with_suffix(""))


@contextmanager
def global_script(lab: Lab, name: str) -> Iterator[None]:
    """Another global script in place of before.sieve."""
    snippet = lab.directory / "etc/dovecot/conf.d/99-cryptomail.conf"
    text = snippet.read_text()
    reload = lab.command("doveadm", "-c", lab.inside(lab.directory / "dovecot.conf"), "reload")
    try:
        snippet.write_text(re.sub(r"before[a-z-]*\.sieve", name, text))
        subprocess.run(reload, check=True)
        time.sleep(1)  # Dovecot answers before it has told its processes
        yield
    finally:
        snippet.write_text(text)
        subprocess.run(reload, check=True)
        time.sleep(1)


def test_lmtp_stores_a_message_encrypted_and_its_owner_reads_every_byte(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(lab, canary)


def test_dovecot_does_not_compile_the_script_for_every_message(lab: Lab, new_person: NewPerson, canary: str) -> None:
    logged = len(lab.log.read_bytes())
    assert deliver(new_person(lab), message(canary)) == 250
    assert b"binary" not in lab.log.read_bytes()[logged:]


def test_lda_stores_a_message_encrypted_too(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    assert client.lda(lab, sent, person.user) == 0
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(lab, canary)


def test_a_mail_client_gets_over_imap_what_is_on_disk(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    deliver(person, sent)
    [fetched] = client.imap(lab, person.user)
    assert fetched.replace(b"\r\n", b"\n") == person.received()[0]
    assert person.read(fetched).endswith(sent)


def test_each_of_several_recipients_gets_a_message_that_only_they_can_read(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    people = [new_person(lab) for _ in range(3)]
    for person in people:
        person.set_up_key()
    sent = message(canary)
    replies = client.lmtp(lab, sent, [person.address for person in people])
    assert [reply.code for reply in replies] == [250, 250, 250]
    for person, other in zip(people, people[1:] + people[:1], strict=True):
        [stored] = person.received()
        assert_encrypted_to(person, stored, sent, canary)
        with pytest.raises(DecryptionError):
            other.read(stored)


def test_one_recipient_s_failure_does_not_touch_the_others(lab: Lab, new_person: NewPerson, canary: str) -> None:
    well, broken, keyless = new_person(lab), new_person(lab), new_person(lab)
    well.set_up_key()
    broken.gpg.revoke(broken.set_up_key())
    broken.give_key()
    sent = message(canary)
    replies = client.lmtp(lab, sent, [well.address, broken.address, keyless.address])
    assert [reply.code for reply in replies] == [250, TEMPORARY_FAILURE, 250]
    assert_encrypted_to(well, well.received()[0], sent, canary)
    assert broken.received() == []
    assert_unchanged(keyless.received()[0], sent)


def test_a_detail_address_is_its_owner_s(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    [reply] = client.lmtp(lab, sent, [lab.address(f"{person.user}+shopping")])
    assert reply.code == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)


def test_a_bounce_which_has_no_sender_is_encrypted(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    assert deliver(person, sent, sender="") == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)


def test_the_message_of_a_user_without_a_key_is_not_touched(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert_unchanged(person.received()[0], sent)


def test_a_message_that_is_encrypted_already_is_not_touched(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = person.ciphertext(canary.encode())
    assert deliver(person, sent) == 250
    assert_unchanged(person.received()[0], sent)


def test_with_an_expired_key_mail_is_encrypted_all_the_same_and_the_log_says_so(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.set_up_key(made_at="20200101T000000", expires="20210101T000000")
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert client.lda(lab, message(canary), person.user) == 0
    for stored in person.received():
        assert_encrypted_to(person, stored, sent, canary)
    said = [line for line in lab.log.read_text().splitlines() if "encrypted to a key that expired on 2021-01-0" in line]
    assert {taken_apart(line)["user"] for line in said} >= {person.address}


def test_with_a_revoked_key_the_sender_is_told_to_try_again_and_nothing_is_stored(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.gpg.revoke(person.set_up_key())
    person.give_key()
    assert deliver(person, message(canary)) == TEMPORARY_FAILURE
    assert client.lda(lab, message(canary), person.user) == EX_TEMPFAIL
    assert person.received() == []
    assert_nowhere_in_clear(lab, canary)


def test_without_the_program_the_sender_is_told_to_try_again_and_nothing_is_stored(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.set_up_key()
    with without_the_program(lab):
        assert deliver(person, message(canary)) == TEMPORARY_FAILURE
        assert client.lda(lab, message(canary), person.user) == EX_TEMPFAIL
    assert person.received() == []
    assert_nowhere_in_clear(lab, canary)


def test_without_the_script_that_encrypts_the_sender_is_told_to_try_again_and_nothing_is_stored(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person, keyless = new_person(lab), new_person(lab)
    person.set_up_key()
    with without(*(lab.directory / "usr/share/cryptomail/sieve").glob("before*")):
        for one in (person, keyless):
            assert deliver(one, message(canary)) == TEMPORARY_FAILURE
            assert client.lda(lab, message(canary), one.user) == EX_TEMPFAIL
    assert person.received() == keyless.received() == []
    assert_nowhere_in_clear(lab, canary)
    assert deliver(person, message(canary)) == 250


def keys(lab: Lab, action: str, person: Person, *more: str) -> tuple[int, str]:
    """What the installed program says of somebody's keys: exit code and text."""
    homes = f"{lab.inside(lab.directory)}/home/%n"
    command = lab.command(
        lab.inside(lab.cryptomail), "keys", action, "--user", person.address, "--home-template", homes, *more
    )
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_with_good_keys_but_nothing_that_calls_the_filter_key_commands_say_so(lab: Lab, new_person: NewPerson) -> None:
    person = new_person(lab)
    person.set_up_key()
    assert keys(lab, "test", person)[0] == 0
    assert keys(lab, "check", person)[0] == 0
    snippet = lab.directory / "etc/dovecot/conf.d/99-cryptomail.conf"
    (snippet.parent / "10-other.conf").touch()
    scripts = (lab.directory / "usr/share/cryptomail/sieve").glob("before*")
    for files, reason in (([*scripts], "there is no /"), ([snippet], "nothing calls the filter")):
        with without(*files):
            code, said = keys(lab, "test", person)
            assert code == os.EX_CONFIG
            assert "is NOT encrypted: the keys are fine, but nothing calls the filter" in said
            assert reason in said
            code, said = keys(lab, "check", person)
            assert code == CRITICAL
            assert said.startswith("KEYS CRITICAL - 1 user; wiring: critical | users=1 ok=1 warning=0 critical=0 ")
            assert "\nCRITICAL: nothing calls the filter: " in said
            assert reason in said
            told = json.loads(keys(lab, "check", person, "--json")[1])
            assert (told["state"], told["wiring"]["state"]) == ("CRITICAL", "CRITICAL")
            assert [(one["user"], one["state"]) for one in told["owners"]] == [(person.address, "OK")]
            figures = keys(lab, "check", person, "--prometheus")[1].splitlines()
            assert {"cryptomail_wiring_state 2", 'cryptomail_key_users{state="critical"} 0'} < set(figures)


def test_owners_see_no_mark_of_the_scripts_on_their_mail(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person, keyless = new_person(lab), new_person(lab)
    person.set_up_key()
    for one in (person, keyless):
        assert deliver(one, message(canary)) == 250
        assert list(lab.home(one.user).rglob("dovecot-keywords")) == []


def test_what_was_refused_is_stored_encrypted_when_the_sender_tries_again(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    with without_the_program(lab):
        assert deliver(person, sent) == TEMPORARY_FAILURE
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)


def test_the_user_s_own_script_sorts_the_encrypted_message(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    managesieve.upload(lab, person.user, b'require ["fileinto", "mailbox"]; fileinto :create "sorted";')
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert len(client.imap(lab, person.user, "sorted")) == 1
    assert_encrypted_to(person, stored, sent, canary)


def test_the_fail_open_script_delivers_what_it_cannot_encrypt(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    managesieve.upload(lab, person.user, b'require ["fileinto", "mailbox"]; fileinto :create "sorted";')
    sent = message(canary)
    with global_script(lab, "before-fail-open.sieve"):
        with without_the_program(lab):
            assert deliver(person, sent) == 250
        assert_unchanged(person.received()[0], sent)
        assert len(client.imap(lab, person.user, "sorted")) == 1
        assert deliver(person, sent) == 250
    encrypted = [stored for stored in person.received() if canary.encode() not in stored]
    assert_encrypted_to(person, encrypted[0], sent, canary)


def test_users_do_not_see_the_namespace_of_the_temporary_failure(lab: Lab, new_person: NewPerson) -> None:
    with imaplib.IMAP4(*lab.imap) as connection:
        connection.login(new_person(lab).address, lab.password)
        assert "tempfail" not in str(connection.list())
        assert "tempfail" not in str(connection.namespace())
