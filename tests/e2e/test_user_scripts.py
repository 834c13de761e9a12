"""The scripts in sieve/user, each uploaded over ManageSieve to a Dovecot that does not encrypt by itself."""

from pathlib import Path

import pytest

from lab import keys, managesieve
from lab.client import Lab
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    assert_unchanged,
    deliver,
    message,
)

SCRIPTS = Path(__file__).parents[2] / "sieve" / "user"
# For each script, a header field of a message that it encrypts.
ENCRYPTED_BY = {
    "everything.sieve": "X-Any: thing",
    "except-lists-and-spam.sieve": "X-Spam-Flag: NO",
    "from-given-senders.sieve": "From: Doctor <doctor@example.net>",
}


def test_each_script_is_tried() -> None:
    assert {path.name for path in SCRIPTS.glob("*.sieve")} == {*ENCRYPTED_BY, "encrypt-and-forward.sieve"}


def upload(person: Person, script: str) -> None:
    managesieve.upload(person.lab, person.user, (SCRIPTS / script).read_bytes())


def letter(canary: str, field: str) -> bytes:
    """The message with that field in place of the one of the same name."""
    if field.startswith("From:"):
        return message(canary).replace(b"From: sender@example.com", field.encode())
    return message(canary, field)


def test_without_a_script_nothing_is_encrypted(lab_off: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert_unchanged(person.received()[0], sent)


@pytest.mark.parametrize(("script", "field"), ENCRYPTED_BY.items(), ids=str)
def test_a_script_encrypts_what_it_is_meant_for(
    lab_off: Lab, new_person: NewPerson, canary: str, script: str, field: str
) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    upload(person, script)
    sent = letter(canary, field)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert_encrypted_to(person, stored, sent, canary)


@pytest.mark.parametrize(("script", "field"), ENCRYPTED_BY.items(), ids=str)
def test_a_script_stores_nothing_when_it_cannot_encrypt(
    lab_off: Lab, new_person: NewPerson, canary: str, script: str, field: str
) -> None:
    without_key, with_revoked_key = new_person(lab_off), new_person(lab_off)
    with_revoked_key.gpg.revoke(with_revoked_key.set_up_key())
    with_revoked_key.give_key()
    for person in (without_key, with_revoked_key):
        upload(person, script)
        assert deliver(person, letter(canary, field)) == 451
        assert person.received() == []
    assert_nowhere_in_clear(lab_off, canary)


@pytest.mark.parametrize(
    ("script", "field"),
    [
        ("except-lists-and-spam.sieve", "List-Id: <list.example.com>"),
        ("except-lists-and-spam.sieve", "Precedence: bulk"),
        ("except-lists-and-spam.sieve", "X-Spam-Flag: YES"),
        ("except-lists-and-spam.sieve", "X-Spam-Status: Yes, score=12.0"),
        ("from-given-senders.sieve", "From: doctor@elsewhere.example"),
    ],
)
def test_a_script_leaves_other_mail_alone(
    lab_off: Lab, new_person: NewPerson, canary: str, script: str, field: str
) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    upload(person, script)
    sent = letter(canary, field)
    assert deliver(person, sent) == 250
    assert_unchanged(person.received()[0], sent)


def test_mail_from_a_given_domain_is_encrypted(lab_off: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    upload(person, "from-given-senders.sieve")
    sent = letter(canary, "From: anybody@bank.example")
    assert deliver(person, sent) == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)


def test_a_forwarded_message_is_for_the_other_address_s_key_and_not_kept(
    lab_off: Lab, new_person: NewPerson, canary: str
) -> None:
    person, reader = new_person(lab_off), new_person(lab_off)
    reader.gpg.make_key("reports@example.net")
    keys.give(lab_off, person.user, reader.gpg.public("reports@example.net"), ".gnupg")
    upload(person, "encrypt-and-forward.sieve")
    earlier = lab_off.sent()
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert person.received() == []
    [(arguments, forwarded)] = [one for one in lab_off.sent() if one not in earlier]
    assert arguments.endswith(" reports@example.net")
    assert reader.read(forwarded).endswith(sent)
    assert_nowhere_in_clear(lab_off, canary)


def test_what_cannot_be_encrypted_is_not_forwarded_and_not_stored(
    lab_off: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    upload(person, "encrypt-and-forward.sieve")
    earlier = lab_off.sent()
    assert deliver(person, message(canary)) == 451
    assert lab_off.sent() == earlier
    assert person.received() == []
    assert_nowhere_in_clear(lab_off, canary)


@pytest.mark.parametrize("extension", ["vnd.dovecot.pipe", "vnd.dovecot.execute"])
def test_users_may_call_the_filter_only(lab_off: Lab, new_person: NewPerson, extension: str) -> None:
    with pytest.raises(managesieve.ManageSieveError, match=r"[Uu]nknown|restricted to global"):
        managesieve.upload(lab_off, new_person(lab_off).user, f'require "{extension}";'.encode())
