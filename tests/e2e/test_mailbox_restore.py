"""Owners take back what was encrypted, or have it encrypted to other keys, with their own gpg, from anywhere."""

import json
import os
import random
import time
from collections import Counter

import pytest

from lab.keys import Owner as Gpg
from sieve_filter.delivery import restore
from sieve_filter.mailbox import journal
from sieve_filter.openpgp import armor
from sieve_filter.openpgp.armor_writer import armored
from tests.e2e.conftest import NewPerson, files_with, message
from tests.support.filtered import armor_in
from tests.support.mailboxes import SAMPLES, contents, exactly, fill, logged_in, messages, numbered, save
from tests.support.owners import Owner, breaking, through

OK, USAGE, REFUSED, QUOTA, BUSY, LEFT = 0, 64, 65, 73, 75, 76
UNAVAILABLE = 69


def in_clear(owner: Owner, folder: str = "INBOX") -> list[tuple[bytes, frozenset[str], str]]:
    """What the server itself can read: octets, flags and dates, by UID."""
    octets = exactly(owner.person, folder)
    return [(octets[one.uid], one.flags, one.date) for one in messages(owner.person, folder)]


def by_arrival(found: list[tuple[bytes, frozenset[str], str]]) -> Counter[tuple[bytes, frozenset[str], str]]:
    return Counter(found)


def test_what_was_encrypted_comes_back_with_every_octet_flag_and_date(owner: Owner, canary: str) -> None:
    save(owner.person, *SAMPLES.values(), flags="\\Seen", date="03-Mar-2018 01:02:03 -0500")
    fill(owner.person, canary, 30)
    before = by_arrival(in_clear(owner))
    assert owner.encrypt()[0] in (OK, LEFT)  # some odd ones cannot be known exactly
    encrypted = messages(owner.person)
    assert not any(canary.encode() in one.octets for one in encrypted)
    code, said, complained = owner.run("restore")
    assert (code, complained) == (OK, "")
    assert said.endswith("messages restored\n")
    assert by_arrival(in_clear(owner)) == before
    assert owner.run("restore") == (OK, f"{owner.person.address}: 0 messages restored\n", "")


def test_others_encrypted_mail_is_left_alone_and_drafts_of_ours_come_back(owner: Owner, canary: str) -> None:
    theirs = owner.person.ciphertext(b"from a friend")
    save(owner.person, theirs, message(canary))
    assert owner.encrypt()[0] == OK
    with logged_in(owner.person) as connection:
        connection.select("INBOX")
        connection.store("2", "+FLAGS", "\\Draft")
    code, said, _ = owner.run("restore", "--dry-run")
    assert (code, said) == (OK, f"{owner.person.address}: 1 message would be restored\n")
    assert owner.run("restore")[0] == OK
    assert [one[0] for one in in_clear(owner)] == [theirs, message(canary)]


def test_only_what_was_asked_for_is_restored_and_told_to_programs(owner: Owner, canary: str) -> None:
    save(owner.person, message(canary), folder="Work", date="01-Feb-2020 10:00:00 +0100")
    save(owner.person, message(canary), folder="Work", date="01-Feb-2024 10:00:00 +0100")
    save(owner.person, message(canary))
    assert owner.encrypt()[0] == OK
    code, said, _ = owner.run("restore", "--folder", "Work", "--before", "2022-01-01", "--json")
    assert code == OK
    assert json.loads(said)["users"] == [
        {"user": owner.person.address, "restored": 1, "left": [], "over_quota": False, "has_key": True, "residue": []}
    ]
    assert [canary.encode() in one[0] for one in in_clear(owner, "Work")] == [False, True]
    assert canary.encode() not in in_clear(owner)[0][0]


def test_mail_is_encrypted_to_a_new_key_and_flags_and_dates_stay(
    owner: Owner, canary: str, new_person: NewPerson
) -> None:
    fill(owner.person, canary, 25)
    before = contents(owner.person)
    assert owner.encrypt()[0] == OK
    new = new_person(owner.person.lab)
    new.gpg.make_key(owner.person.address)
    owner.key.write_bytes(new.gpg.gpg("--armor", "--export"))
    assert owner.run("rekey", "--key-file", str(owner.key)) == (
        OK,
        f"{owner.person.address}: 25 messages encrypted\n",
        "",
    )
    assert opened_by(new.gpg, owner) == before
    with pytest.raises(AssertionError, match="No secret key"):
        opened_by(owner.person.gpg, owner)
    assert not files_with(owner.person.lab, [canary.encode()])
    # They are encrypted to exactly that key now.
    assert owner.run("rekey", "--key-file", str(owner.key))[1] == f"{owner.person.address}: 0 messages encrypted\n"


def opened_by(gpg: Gpg, owner: Owner) -> Counter[tuple[bytes, frozenset[str], str]]:
    found: Counter[tuple[bytes, frozenset[str], str]] = Counter()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GNUPGHOME", str(gpg.home))
        for octets, flags, date in in_clear(owner):
            try:
                original = restore.decrypt(octets)
            except Exception as error:
                raise AssertionError(str(error)) from error
            assert original is not None
            found[(original, flags, date)] += 1
    return found


def test_what_cannot_be_decrypted_is_left_and_said(owner: Owner, canary: str) -> None:
    save(owner.person, message(canary), message(canary + "2"))
    assert owner.encrypt()[0] == OK
    first, second = messages(owner.person)
    damaged = _damaged(first.octets)
    save(owner.person, damaged, date=first.date)
    code, said, complained = owner.run("restore")
    assert (code, "1 message left encrypted: gpg could not decrypt" in said) == (LEFT, True), said
    assert "left encrypted: see the report" in complained
    assert sorted(canary.encode() in one.octets for one in messages(owner.person)) == [False, True, True]
    assert any(one.octets == damaged for one in messages(owner.person))
    assert second.octets not in [one.octets for one in messages(owner.person)]


def _damaged(octets: bytes) -> bytes:
    """One octet of the ciphertext is another; all else is as it should be."""
    text = armor_in(octets)
    packets = bytearray(armor.dearmor(text) or b"")
    packets[-10] ^= 1
    return octets.replace(text, armored(b"MESSAGE", bytes(packets)).replace(b"\n", b"\r\n").rstrip())


def test_without_the_secret_key_nothing_is_changed(owner: Owner, canary: str, new_person: NewPerson) -> None:
    fill(owner.person, canary, 3)
    assert owner.encrypt()[0] == OK
    before = messages(owner.person)
    stranger = new_person(owner.person.lab)
    stranger.gpg.make_key(stranger.address)
    elsewhere = Owner(stranger, owner.directory)
    elsewhere.address = owner.person.address
    code, said, _ = elsewhere.run("restore")
    assert (code, "3 messages left encrypted: gpg could not decrypt" in said) == (LEFT, True)
    assert messages(owner.person) == before


def test_a_message_that_only_says_that_it_is_ours_stays(owner: Owner) -> None:
    text = b"X-Cryptomail: encrypted-at-delivery\r\n" + owner.person.ciphertext(b"Subject: x\r\n\r\nno manifest")
    save(owner.person, text)
    code, said, _ = owner.run("restore")
    assert (code, "it is not what cryptomail made of a message" in said) == (LEFT, True)
    assert [one.octets for one in messages(owner.person)] == [text]


@pytest.mark.parametrize("action", ["restore", "rekey"])
def test_over_a_connection_that_breaks_each_message_is_there_once(
    owner: Owner, canary: str, action: str, new_person: NewPerson
) -> None:
    fill(owner.person, canary, 40)
    save(owner.person, *[numbered(canary, 0)] * 3)  # what is alike is kept apart, too
    before = contents(owner.person)
    assert owner.encrypt()[0] == OK
    options: list[str] = []
    if action == "rekey":
        owner.person.gpg.gpg("--quick-gen-key", f"two <two-{owner.person.address}>", "future-default")
        owner.key.write_bytes(owner.person.gpg.gpg("--armor", "--export", f"two-{owner.person.address}"))
        options = ["--key-file", str(owner.key)]
    chance = random.Random(canary)  # noqa: S311
    real = owner.port
    codes: Counter[int] = Counter()
    with breaking(real, chance, 150_000) as port:
        owner.port = port
        for _ in range(int(os.environ.get("CRYPTOMAIL_KILLS", "6"))):
            codes[owner.run(action, *options)[0]] += 1
            assert len(messages(owner.person)) >= before.total()
    assert codes[UNAVAILABLE] > 0, codes
    with through(real, port):
        assert owner.run(action, *options)[0] == OK
    assert contents(owner.person) == before
    assert (canary.encode() in messages(owner.person)[0].octets) == (action == "restore")


def test_a_restore_that_is_killed_is_put_right_by_the_next(owner: Owner, canary: str) -> None:
    fill(owner.person, canary, 40)
    save(owner.person, *[numbered(canary, 0)] * 3)
    before = contents(owner.person)
    assert owner.encrypt()[0] == OK
    chance = random.Random(canary)  # noqa: S311
    for _ in range(int(os.environ.get("CRYPTOMAIL_KILLS", "6"))):
        process = owner.start("restore")
        time.sleep(chance.uniform(0.3, 1.5))
        process.kill()
        process.communicate()
        assert len(messages(owner.person)) >= before.total()
    (noted,) = owner.directory.glob("state/cryptomail/mailbox-*")
    assert canary.encode() not in noted.read_bytes()
    with journal.opened(str(noted)) as one:
        assert all(not entry.digest for note in [one.read()] if note for entry in note.entries)
    assert owner.run("restore")[0] == OK
    assert contents(owner.person) == before
    assert all(canary.encode() in one.octets for one in messages(owner.person))


def test_another_command_does_not_touch_what_a_killed_restore_has_left(owner: Owner, canary: str) -> None:
    fill(owner.person, canary, 3)
    assert owner.encrypt()[0] == OK
    (noted,) = owner.directory.glob("state/cryptomail/mailbox-*")
    uids = [one.uid for one in messages(owner.person)]
    with logged_in(owner.person) as connection:
        [text] = connection.status("INBOX", "(UIDVALIDITY UIDNEXT)")[1]
    words = text.decode().rpartition("(")[2].rstrip(")").split()
    numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    entries = tuple(journal.Entry(uid) for uid in uids)
    with journal.opened(str(noted)) as one:
        one.write(journal.Note('"INBOX"', numbers["UIDVALIDITY"], numbers["UIDNEXT"], entries))
    code, _, complained = owner.encrypt()
    assert (code, "a cryptomail mailbox restore was killed; run that once more, first" in complained) == (BUSY, True)
    assert [one.uid for one in messages(owner.person)] == uids
    assert owner.run("restore")[0] == OK
    assert owner.encrypt()[0] == OK


def test_what_an_owner_gets_wrong_is_told(owner: Owner) -> None:
    assert owner.run("rekey")[0] == USAGE
    owner.key.write_bytes(owner.person.gpg.gpg("--armor", "--export-secret-keys"))
    code, _, complained = owner.run("rekey", "--key-file", str(owner.key))
    assert (code, "SECRET" in complained) == (REFUSED, True)


def test_a_large_message_comes_back(owner: Owner, canary: str) -> None:
    large = message(canary) + bytes(range(1, 10)) * 1_000_000 + b"\r\n"
    save(owner.person, large)
    assert owner.encrypt()[0] == OK
    assert owner.run("restore")[0] == OK
    assert [one[0] for one in in_clear(owner)] == [large]
