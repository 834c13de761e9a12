"""Owners bring their keys over IMAP: they save a message in the folder OpenPGP, and the answer takes its place."""

import base64
import email
import json
import os
import pwd
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import client, managesieve
from lab.client import Lab
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    assert_unchanged,
    deliver,
    files_with,
    message,
)
from tests.support.imap_keys import FOLDER, answers, armored, save, session, text, with_attachment, with_text
from tests.support.newer import NewerOwner

SHOWS = b"If your mail program shows that this message was encrypted"


def words(fingerprint: str) -> str:
    return " ".join(re.findall("....", fingerprint))


def code(person: Person, stored: bytes) -> str:
    """The code of six digits in a message that only that person can read."""
    assert b"confirm" not in stored
    [found] = re.findall(rb"^  confirm ([0-9]{6})", person.read(stored), re.MULTILINE)
    return str(found.decode())


def keyring(person: Person) -> bool:
    return (person.lab.home(person.user) / ".cryptomail").exists()


def assert_next_message_is_encrypted(person: Person, canary: str) -> None:
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = [one for one in person.received() if b"\nSubject: hello\n" in one]
    assert_encrypted_to(person, stored, sent, canary)


def assert_next_message_is_not_encrypted(person: Person, canary: str) -> None:
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = [one for one in person.received() if b"\nSubject: hello\n" in one]
    assert_unchanged(stored, sent)


@pytest.mark.parametrize("way", ["attached", "attached and binary", "without a telling type", "inline", "Autocrypt"])
def test_a_saved_key_is_set_up_and_the_answer_stands_in_the_message_s_place(
    lab_sealed: Lab, new_person: NewPerson, canary: str, way: str
) -> None:
    person = new_person(lab_sealed)
    fingerprint = person.gpg.make_key(person.address, expires="2y")
    match way:
        case "attached":
            saved = with_attachment(armored(person))
        case "attached and binary":
            saved = with_attachment(person.gpg.gpg("--export"), name="key.pgp")
        case "without a telling type":
            saved = with_attachment(armored(person), "application/octet-stream", "note.bin")
        case "inline":
            saved = with_text(b"Here is my key:\r\n\r\n" + armored(person))
        case _:
            key = base64.encodebytes(person.gpg.gpg("--export")).decode().replace("\n", "\r\n ").rstrip()
            saved = with_text(b"", "hi", f"Autocrypt: addr={person.address}; prefer-encrypt=mutual;\r\n keydata={key}")
    save(person, saved)
    [answer] = answers(person)
    assert answer["Subject"] == "Your OpenPGP key is set up"
    assert words(fingerprint) in text(answer)
    assert f"User ID <{person.address}>" in text(answer)
    assert re.search(r"Expires 20\d\d-\d\d-\d\d", text(answer))
    assert_next_message_is_encrypted(person, canary)


def test_a_test_message_shows_that_mail_is_stored_encrypted(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    fingerprint = person.gpg.make_key(person.address)
    save(person, with_attachment(armored(person)))
    [trial] = client.imap(lab_sealed, person.user)
    assert SHOWS not in trial
    assert b"\nX-Cryptomail: encrypted-at-delivery\r\n" in trial  # by the delivery, of a message that came in clear
    opened = person.read(trial)
    assert SHOWS in opened
    assert b"  remove " + fingerprint.encode() in opened


def send_trial(person: Person, *more: str) -> None:
    lab = person.lab
    places = ("--user", person.address, "--home", lab.inside(lab.home(person.user)))
    command = lab.command(lab.inside(lab.cryptomail), "keys", "test", *places, "--send", *more)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_an_administrator_sends_a_test_message_on_demand(lab: Lab, new_person: NewPerson) -> None:
    person = new_person(lab)
    person.set_up_key()
    send_trial(person)
    [trial] = client.imap(lab, person.user)
    assert SHOWS not in trial
    assert SHOWS in person.read(trial)


@contextmanager
def only_service(lab: Lab, name: str) -> Iterator[tuple[str, ...]]:
    """The options with which a key command sees that one LMTP service of Dovecot's, and no sendmail program."""
    with TemporaryDirectory(dir=lab.directory) as directory:
        Path(directory).chmod(0o755)
        Path(directory, name).symlink_to(lab.inside(lab.directory / "run" / name))
        yield "--socket", f"{lab.inside(Path(directory))}/lmtp-sealed", "--sendmail", ""


def test_where_no_message_can_come_in_as_mail_does_the_test_message_says_that_it_shows_the_key_alone(
    lab_sealed: Lab, new_person: NewPerson
) -> None:
    person = new_person(lab_sealed)
    fingerprint = person.set_up_key()
    with only_service(lab_sealed, "lmtp-sealed") as options:
        send_trial(person, *options)
    [trial] = client.imap(lab_sealed, person.user)
    assert b"It does not show whether" not in trial
    opened = person.read(trial)
    assert b"\r\nSubject: A test message for your OpenPGP key\r\n" in opened
    assert b"If you can read this, your key works" in opened
    assert b"It does not show whether other mail is encrypted as it arrives." in opened
    assert b"  remove " + fingerprint.encode() in opened


def test_without_sealing_and_without_sendmail_an_owner_is_told_over_the_service_for_all_mail(
    lab_sealed: Lab, new_person: NewPerson
) -> None:
    person = new_person(lab_sealed)
    lab_sealed.home(person.user).mkdir()
    os.chown(lab_sealed.home(person.user), lab_sealed.mail_uid, -1)
    fingerprint = person.gpg.make_key(person.address)
    with only_service(lab_sealed, "lmtp") as options:
        places = ("--user", person.address, "--home", lab_sealed.inside(lab_sealed.home(person.user)), *options)
        for action, what in (("import", "-"), ("remove", fingerprint)):
            command = lab_sealed.command(lab_sealed.inside(lab_sealed.cryptomail), "keys", action, *places, what)
            done = subprocess.run(command, input=person.gpg.public(person.address), check=True, capture_output=True)
            assert done.stderr == b""
    stored = client.imap(lab_sealed, person.user)
    assert [b"BEGIN PGP MESSAGE" in one for one in stored] == [True, True]
    trial, notice = (email.message_from_bytes(person.read(one))["Subject"] for one in stored)
    assert (trial, notice) == ("Is your mail encrypted? A test message", "Your OpenPGP key was removed")


def test_a_test_message_shows_that_nothing_encrypts(lab_off: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    send_trial(person)
    [trial] = client.imap(lab_off, person.user)
    assert SHOWS in trial
    assert b"If it shows it as an ordinary message" in trial


def test_a_message_that_is_copied_or_moved_there_counts_like_one_that_is_saved(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    for command in ("COPY", "MOVE"):
        person = new_person(lab_sealed)
        person.gpg.make_key(person.address)
        save(person, with_attachment(armored(person)), "Notes")
        with session(person) as connection:
            connection.create(FOLDER)
            connection.select("Notes")
            if command == "COPY":
                assert connection.copy("1", FOLDER)[0] == "OK"
            else:
                assert connection.uid("MOVE", "1", FOLDER)[0] == "OK"
        [answer] = answers(person)
        assert answer["Subject"] == "Your OpenPGP key is set up"
        assert_next_message_is_encrypted(person, canary)


@pytest.mark.parametrize("form", ["armored", "binary", "inline", "UTF-16"])
def test_a_secret_key_is_refused_and_nowhere_on_disk(lab_sealed: Lab, new_person: NewPerson, form: str) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    secret = person.gpg.gpg("--export-secret-keys")
    armor = person.gpg.gpg("--armor", "--export-secret-keys")
    saved = {
        "armored": with_attachment(armor, name="key.asc"),
        "binary": with_attachment(secret, "application/octet-stream", "key.gpg"),
        "inline": with_text(armor.replace(b"\n", b"\r\n")),
        "UTF-16": with_attachment(armor.decode().encode("utf-16"), "application/octet-stream", "key.asc"),
    }[form]
    save(person, saved)
    [answer] = answers(person)
    assert answer["Subject"] == "WARNING: you sent your SECRET key"
    assert not answer.is_multipart()
    assert not keyring(person)
    lines = {line.strip() for line in saved.split(b"\n") if len(line) > 60}
    lines |= {armor.split(b"\n")[4], secret[20:60]}
    assert files_with(lab_sealed, lines) == []


def test_a_key_for_another_address_is_refused(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key("elsewhere@example.net")
    save(person, with_attachment(armored(person)))
    [answer] = answers(person)
    assert "none of its user IDs has an address of this user's; it has elsewhere@example.net" in text(answer)
    assert not keyring(person)


def test_an_autocrypt_header_of_somebody_else_is_not_taken(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key("friend@example.net")
    key = base64.b64encode(person.gpg.gpg("--export")).decode()
    letter = with_text(b"A letter.", "hello", f"Autocrypt: addr=friend@example.net; keydata={key}")
    save(person, letter)
    [answer] = answers(person)
    assert answer["Subject"] == "No OpenPGP key found"
    assert "friend@example.net" in text(answer)
    assert not keyring(person)


def test_an_owner_finds_the_folder_in_the_mail_program(lab_sealed: Lab, new_person: NewPerson) -> None:
    # The lab has no configuration yet when this is installed into it, so this part of the snippet is not there.
    version = json.loads((lab_sealed.directory / "lab.json").read_text())["dovecot"][:3]
    text = Path(f"dovecot/conf.d/{version}/folder.conf").read_text()
    snippet = lab_sealed.directory / "etc/dovecot/conf.d/99-folder.conf"
    snippet.write_text(text.replace("@NAMESPACE@", "inbox").replace("@KEY_FOLDER@", FOLDER))
    reload = ["doveadm", "-c", lab_sealed.inside(lab_sealed.directory / "dovecot.conf"), "reload"]
    subprocess.run(lab_sealed.command(*reload), check=True)
    try:
        with session(new_person(lab_sealed)) as connection:
            assert [line for line in connection.lsub()[1] if isinstance(line, bytes) and line.endswith(b" OpenPGP")]
            assert connection.select(FOLDER)[0] == "OK"
            assert connection.select("Junk")[0] == "OK"
    finally:
        snippet.unlink()
        subprocess.run(lab_sealed.command(*reload), check=True)


def test_an_encrypted_draft_is_answered_with_how_to_save_it_otherwise(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    save(person, person.ciphertext(armored(person)))
    [answer] = answers(person)
    assert answer["Subject"] == "Your message is encrypted, so no OpenPGP key was found"
    assert "Store draft messages in encrypted format" in text(answer)


def test_an_expired_key_is_refused_in_plain_words(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address, made_at="20200101T000000", expires="20210101T000000")
    save(person, with_attachment(armored(person)))
    [answer] = answers(person)
    assert answer["Subject"] == "Your OpenPGP keys were NOT changed"
    assert "it expired on 2021-01-0" in text(answer)
    assert "“Change Expiration Date”" in text(answer)


def test_what_holds_no_key_is_kept_byte_for_byte_in_the_answer(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    letter = with_text(b"8-bit: \xff\xfe\r\nFrom the other folder, by mistake.", "a letter")
    save(person, letter)
    [raw] = client.imap(lab_sealed, person.user, FOLDER)
    assert letter in raw
    [answer] = answers(person)
    assert answer["Subject"] == "No OpenPGP key found"
    assert not keyring(person)


def test_a_broken_key_is_refused_in_plain_words(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    save(person, with_attachment(armored(person)[:-200]))
    [answer] = answers(person)
    assert answer["Subject"] == "Your OpenPGP keys were NOT changed"
    assert "its armor is cut short" in text(answer)
    assert not keyring(person)


def test_of_two_keys_both_are_set_up(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    fingerprints = [person.gpg.make_key(person.address), person.gpg.make_another_key(person.address)]
    save(person, with_attachment(armored(person)))
    [answer] = answers(person)
    assert all(words(one) in text(answer) for one in fingerprints)


def test_a_second_key_leaves_the_first_and_its_owner_is_told_with_it(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person, thief = new_person(lab_sealed), new_person(lab_sealed)
    person.set_up_key()
    fingerprint = thief.gpg.make_key(person.address)
    save(person, with_attachment(armored(thief)))
    [answer] = answers(person)
    assert "as before, until you have them removed" in text(answer)
    notices = [one for one in client.imap(lab_sealed, person.user) if b"Another OpenPGP key" in one]
    assert [words(fingerprint).encode() in person.read(one) for one in notices] == [True]
    assert_next_message_is_encrypted(person, canary)


def test_a_key_is_removed_by_subject_and_its_owner_told_with_it(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab_sealed)
    fingerprint = person.set_up_key()
    save(person, with_text(b"", f"Re: Remove {words(fingerprint).lower()}"))
    [answer] = answers(person)
    assert "will be removed on" in answer["Subject"]
    [asked] = client.imap(lab_sealed, person.user)
    assert b"somebody knows" not in asked
    assert b"somebody knows" in person.read(asked)
    save(person, with_text(b"", f"confirm {code(person, asked)}"))
    answer = answers(person)[-1]
    assert answer["Subject"] == "Your OpenPGP key was removed"
    assert "Mail for you is not encrypted now." in text(answer)
    notice = client.imap(lab_sealed, person.user)[-1]
    assert b"somebody knows" not in notice
    assert b"somebody knows" in person.read(notice)
    assert_next_message_is_not_encrypted(person, canary)


def test_with_a_password_alone_nobody_turns_encryption_off_at_once(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    for subject in ("off", "confirm 000000", "confirm 999999"):
        save(person, with_text(b"", subject))
    assert_next_message_is_encrypted(person, canary)
    save(person, with_text(b"", "keep"))
    save(person, with_text(b"", "status"))
    assert [answer["Subject"] for answer in answers(person)][-2:] == [
        "Your OpenPGP keys stay",
        "What happens to your mail",
    ]


def test_a_key_is_tried_first_and_counts_when_its_owner_could_read_the_test_message(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    tried = with_attachment(armored(person)).replace(b"Subject: my key", b"Subject: try")
    save(person, tried)
    [answer] = answers(person)
    assert answer["Subject"] == "Now see whether you can read the test message"
    assert not (lab_sealed.home(person.user) / ".cryptomail/pubring.kbx").exists()
    [trial] = client.imap(lab_sealed, person.user)
    save(person, with_text(b"", f"confirm {code(person, trial)}"))
    assert answers(person)[-1]["Subject"] == "Your OpenPGP key is set up"
    assert_next_message_is_encrypted(person, canary)


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("remove " + "A" * 40, "you have no key with the fingerprint"),
        ("remove 0123456789ABCDEF", "full fingerprint"),
        ("remove", "full fingerprint"),
    ],
)
def test_a_removal_that_names_no_key_of_one_s_own_changes_nothing(
    lab_sealed: Lab, new_person: NewPerson, canary: str, subject: str, why: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    save(person, with_text(b"", subject))
    [answer] = answers(person)
    assert why in text(answer)
    assert_next_message_is_encrypted(person, canary)


def test_to_move_or_delete_the_answer_changes_nothing(lab_sealed: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    save(person, with_attachment(armored(person)))
    before = client.imap(lab_sealed, person.user, FOLDER)
    with session(person) as connection:
        connection.create("Elsewhere")
        connection.select(FOLDER)
        connection.uid("MOVE", "1:*", "Elsewhere")
        connection.select("Elsewhere")
        connection.uid("MOVE", "1:*", FOLDER)
    assert client.imap(lab_sealed, person.user, FOLDER) == before
    with session(person) as connection:
        connection.select(FOLDER)
        connection.store("1:*", "+FLAGS", r"\Deleted")
        connection.expunge()
    assert answers(person) == []
    assert_next_message_is_encrypted(person, canary)


def test_in_other_folders_nothing_happens(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    person.gpg.make_key(person.address)
    saved = with_attachment(armored(person))
    save(person, saved, "Drafts")
    assert client.imap(lab_sealed, person.user, "Drafts") == [saved]
    assert not keyring(person)


def test_a_message_that_is_delivered_into_the_folder_sets_up_nothing(lab_sealed: Lab, new_person: NewPerson) -> None:
    person, stranger = new_person(lab_sealed), new_person(lab_sealed)
    stranger.gpg.make_key(person.address)
    managesieve.upload(
        lab_sealed, person.user, f'require ["fileinto", "mailbox"]; fileinto :create "{FOLDER}";'.encode()
    )
    sent = with_attachment(armored(stranger))
    assert deliver(person, sent) == 250
    [stored] = client.imap(lab_sealed, person.user, FOLDER)
    assert stored.endswith(sent)
    assert not keyring(person)


@pytest.mark.parametrize("name", ["cryptomail-enroll", "../imap-bin/cryptomail-enroll"])
def test_a_script_for_arriving_mail_cannot_set_up_a_key(lab_sealed: Lab, new_person: NewPerson, name: str) -> None:
    person, stranger = new_person(lab_sealed), new_person(lab_sealed)
    stranger.gpg.make_key(person.address)
    script = f'require "vnd.dovecot.filter"; filter "{name}";'.encode()
    try:
        managesieve.upload(lab_sealed, person.user, script)
    except managesieve.ManageSieveError as error:
        assert "name" in str(error)
        return
    assert deliver(person, with_attachment(armored(stranger))) == 250
    assert not keyring(person)


def test_the_log_quotes_nothing_of_a_message(lab_sealed: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab_sealed)
    save(person, with_text(canary.encode(), f"remove {canary}"))
    assert canary not in lab_sealed.log.read_text()
    with session(person) as connection:
        connection.delete(FOLDER)
    assert_nowhere_in_clear(lab_sealed, canary)


def test_several_messages_at_once_into_the_open_folder_are_each_answered(
    lab_sealed: Lab, new_person: NewPerson
) -> None:
    person = new_person(lab_sealed)
    keys = [person.gpg.make_key(person.address), person.gpg.make_another_key(person.address)]
    for one in keys:
        save(person, with_attachment(person.gpg.gpg("--export", one)), "Notes")
    with session(person) as connection:
        connection.create(FOLDER)
        connection.select("Notes")
        assert connection.copy("1:2", FOLDER)[0] == "OK"
        connection.select(FOLDER)
        assert connection.append(FOLDER, "", "", with_text(b"no key"))[0] == "OK"
        assert connection.noop()[0] == "OK"
    subjects = sorted(answer["Subject"] for answer in answers(person))
    assert subjects == ["No OpenPGP key found", *["Your OpenPGP key is set up"] * 2]
    assert words(keys[0]) in text(answers(person)[0])


def test_each_system_user_sets_up_the_own_key_and_hears_of_it_by_sendmail(
    lab_users: Lab, new_person: NewPerson, canary: str
) -> None:
    person = Person(lab_users, new_person(lab_users).gpg, "irc")
    account = pwd.getpwnam("irc")
    lab_users.home("irc").mkdir(mode=0o700)
    os.chown(lab_users.home("irc"), account.pw_uid, account.pw_gid)
    (lab_users.directory / "outbox").chmod(0o777)
    person.gpg.make_key(person.address)
    save(person, with_attachment(armored(person)))
    [answer] = answers(person)
    assert answer["Subject"] == "Your OpenPGP key is set up"
    assert (lab_users.home("irc") / ".cryptomail/pubring.kbx").stat().st_uid == account.pw_uid
    [trial] = client.imap(lab_users, person.user)
    assert SHOWS in person.read(trial)
    send_trial(person, "--socket", "")
    [(arguments, trial)] = lab_users.sent()
    assert arguments == f"-i -f <> -- {person.address}"
    assert SHOWS in trial
    assert deliver(person, trial.replace(b"\n", b"\r\n")) == 250  # as an MTA does
    assert SHOWS in person.read(client.imap(lab_users, person.user)[-1])
    assert_next_message_is_encrypted(person, canary)


def test_a_test_message_that_the_owner_s_script_files_into_the_same_folder_does_not_block(
    lab_sealed: Lab, new_person: NewPerson
) -> None:
    person = new_person(lab_sealed)
    script = f'require ["fileinto", "mailbox"]; fileinto :create "{FOLDER}";'
    managesieve.upload(lab_sealed, person.user, script.encode())
    person.gpg.make_key(person.address)
    started = time.monotonic()
    save(person, with_attachment(armored(person)))
    assert time.monotonic() - started < 30
    found = {answer["X-Cryptomail"]: answer for answer in answers(person)}
    assert found.keys() == {"confirmation", "encrypted-at-delivery"}
    assert "A test message is on its way to your inbox" in text(found["confirmation"])


@pytest.mark.parametrize("kind", ["version 6", "version 4, ML-KEM"])
def test_a_saved_key_that_gnupg_cannot_read_is_set_up_like_any_other(
    lab_sealed: Lab, new_person: NewPerson, canary: str, kind: str
) -> None:
    person = new_person(lab_sealed)
    owner = NewerOwner(kind, person.address)
    save(person, with_attachment(owner.armored))
    [answer] = answers(person)
    assert answer["Subject"] == "Your OpenPGP key is set up"
    assert words(owner.fingerprint) in text(answer)
    [trial] = client.imap(lab_sealed, person.user)
    assert SHOWS in owner.read(trial)
    sent = message(canary)
    assert deliver(person, sent) == 250
    [stored] = [one for one in person.received() if b"\nSubject: hello\n" in one]
    assert owner.read(stored).endswith(sent)
    assert_nowhere_in_clear(lab_sealed, canary)
