"""What owners save over IMAP in chosen folders is encrypted within seconds, and nothing else is."""

import time

import pytest

from lab.client import Lab
from lab.server import SAVED_FOLDERS
from sieve_filter.dovecot import imap
from tests.e2e.conftest import NewPerson, Person, RunningLab, files_with, message
from tests.support.mailboxes import Message, append, logged_in, messages, numbered, save, succeed

DATE = "01-Feb-2020 09:00:00 +0000"
SECONDS = 40  # under load; some ten otherwise


@pytest.fixture
def lab_saved(running_lab: RunningLab) -> Lab:
    """A Dovecot as `make install` leaves it where the settings name folders in which what is saved is encrypted."""
    return running_lab("saved")


@pytest.fixture
def person(lab_saved: Lab, new_person: NewPerson) -> Person:
    made = new_person(lab_saved)
    made.set_up_key()
    return made


def encrypted(person: Person, folder: str, count: int) -> list[Message]:
    """The messages in that folder, when so many are encrypted and none is in clear."""
    until = time.monotonic() + SECONDS
    while True:
        found = messages(person, folder)
        marked = [one for one in found if b"\nX-Cryptomail: encrypted-at-delivery\r\n" in one.octets]
        if len(marked) == len(found) == count:
            return found
        assert time.monotonic() < until, (folder, len(marked), len(found))
        time.sleep(0.5)


def by_append(person: Person, folder: str, sent: list[bytes]) -> None:
    save(person, *sent, folder=folder, flags="\\Seen $Label1", date=DATE)


def by_multiappend(person: Person, folder: str, sent: list[bytes]) -> None:
    with logged_in(person) as connection:
        connection.create(f'"{folder}"')
        tag = connection._new_tag()
        connection.send(tag + f' APPEND "{folder}"'.encode())
        for one in sent:
            connection.send(f' (\\Seen $Label1) "{DATE}" {{{len(one)}+}}\r\n'.encode() + one)
        connection.send(b"\r\n")
        while not (answer := connection.readline()).startswith(tag):
            assert answer
        assert b" OK " in answer, answer


def by_copy(person: Person, folder: str, sent: list[bytes], command: str = "COPY") -> None:
    save(person, *sent, folder="Elsewhere", flags="\\Seen $Label1", date=DATE)
    with logged_in(person) as connection:
        connection.create(f'"{folder}"')
        connection.select("Elsewhere")
        assert connection.uid(command, "1:*", f'"{folder}"')[0] == "OK"


def by_move(person: Person, folder: str, sent: list[bytes]) -> None:
    by_copy(person, folder, sent, "MOVE")


def test_what_is_saved_is_encrypted_within_seconds_with_its_flags_and_date(
    lab_saved: Lab, new_person: NewPerson, canary: str
) -> None:
    sent = [numbered(canary, number) for number in range(3)]
    people = [new_person(lab_saved) for _ in range(4)]
    for person, way in zip(people, (by_append, by_multiappend, by_copy, by_move), strict=True):
        person.set_up_key()
        way(person, "Sent", sent)
    for person in people:
        found = encrypted(person, "Sent", 3)
        assert [person.read(one.octets) for one in found] == sent
        assert {(one.flags, one.date) for one in found} == {(frozenset({"\\Seen", "$Label1"}), DATE)}


def test_folders_of_any_name_are_looked_at_and_no_others(person: Person, canary: str) -> None:
    for folder in SAVED_FOLDERS:
        save(person, message(canary), folder=imap.mailbox(folder).decode().strip('"'))
    for folder in ("Drafts", "Sent/Drafts", "Else"):
        save(person, message(canary), folder=folder)
    for folder in SAVED_FOLDERS:
        (one,) = encrypted(person, folder, 1)
        assert person.read(one.octets) == message(canary)
    for folder in ("Drafts", "Sent/Drafts", "Else"):
        assert canary.encode() in messages(person, folder)[0].octets


def test_a_draft_and_mail_of_an_owner_without_a_key_stay(
    lab_saved: Lab, new_person: NewPerson, person: Person, canary: str
) -> None:
    other = new_person(lab_saved)
    save(other, message(canary), folder="Sent")
    save(person, message(canary), folder="Sent", flags="\\Draft")
    save(person, message(canary), folder="Sent")
    until = time.monotonic() + SECONDS
    while b"X-Cryptomail" not in messages(person, "Sent")[-1].octets:
        assert time.monotonic() < until
        time.sleep(0.5)
    assert [canary.encode() in one.octets for one in messages(person, "Sent")] == [True, False]
    assert canary.encode() in messages(other, "Sent")[0].octets
    assert not (lab_saved.home(other.user) / ".cryptomail-mailbox").exists()


def test_the_mail_client_finds_what_it_saved_until_it_has_asked_for_it(person: Person, canary: str) -> None:
    """K-9 Mail asks for the UID that APPEND told, or looks for the Message-ID."""
    with logged_in(person) as connection:
        connection.create("Sent")
        append(connection, numbered(canary, 7), "Sent", "\\Seen", DATE)
        connection.select("Sent")
        _, found = connection.uid("SEARCH", "HEADER", "Message-ID", "<7@example.com>")
        _, parts = connection.uid("FETCH", found[0].decode(), "(BODY.PEEK[])")
        assert canary.encode() in parts[0][1]
    encrypted(person, "Sent", 1)
    with logged_in(person) as connection:
        connection.select("Sent")
        _, found = connection.uid("SEARCH", "HEADER", "Message-ID", "<7@example.com>")
        assert len(found[0].split()) == 1


def test_all_that_is_saved_for_a_while_is_encrypted_and_nothing_is_forgotten(person: Person, canary: str) -> None:
    """Each message comes at another moment of the run that was begun for those before."""
    with logged_in(person) as connection:
        connection.create("Sent")
        for number in range(40):
            append(connection, numbered(canary, number), "Sent", "\\Seen", DATE)
            time.sleep(0.3)
    found = encrypted(person, "Sent", 40)
    assert sorted(person.read(one.octets) for one in found) == sorted(numbered(canary, one) for one in range(40))


def test_thousands_of_copies_do_not_make_the_owner_wait(person: Person, canary: str) -> None:
    save(person, *[numbered(canary, one) for one in range(300)], folder="Elsewhere")
    with logged_in(person) as connection:
        connection.create("Sent")
        connection.select("Elsewhere")
        started = time.monotonic()
        assert connection.uid("COPY", "1:*", "Sent")[0] == "OK"
        assert time.monotonic() - started < 10
    encrypted(person, "Sent", 300)


def test_what_replace_saves_is_encrypted_by_the_timer_s_command(person: Person, canary: str) -> None:
    with logged_in(person) as connection:
        replaces = b"REPLACE" in connection.capability()[1][0].upper().split()
        append(connection, b"Subject: x\r\n\r\nold\r\n", "INBOX", "", DATE)
        connection.create("Sent")
        connection.select("INBOX")
        if replaces:
            tag = connection._new_tag()
            text = message(canary)
            connection.send(tag + f' REPLACE 1 Sent (\\Seen) "{DATE}" {{{len(text)}+}}\r\n'.encode() + text + b"\r\n")
            while not (answer := connection.readline()).startswith(tag):
                assert answer
            assert b" OK " in answer, answer
    if not replaces:  # it was there before the folder was named in the settings, say
        (person.lab.home(person.user) / "Maildir/.Sent/cur/1.old:2,S").write_bytes(message(canary))
    lab = person.lab
    doveadm = lab.directory / "bin-of-timer/doveadm"
    doveadm.parent.mkdir(exist_ok=True)
    configuration = lab.inside(lab.directory / "dovecot.conf")
    doveadm.write_text(f'#!/bin/sh\nexec /usr/bin/doveadm -c {configuration} "$@"\n')
    doveadm.chmod(0o755)
    command = lab.command("env", f"PATH={lab.inside(doveadm.parent)}:/usr/bin:/bin", lab.inside(lab.cryptomail))
    succeed([*command, "mailbox", "encrypt", "--saved", "--user", person.address])
    (one,) = messages(person, "Sent")
    assert person.read(one.octets) == message(canary)


def test_nothing_of_it_stays_in_clear_anywhere(person: Person, canary: str) -> None:
    save(person, message(canary), folder="Sent")
    encrypted(person, "Sent", 1)
    until = time.monotonic() + SECONDS
    while found := files_with(person.lab, [canary.encode()]):  # the caches are purged last
        assert time.monotonic() < until, found
        time.sleep(0.5)
