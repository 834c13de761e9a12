"""Owners with S/MIME certificates: their mail is encrypted to it while Dovecot delivers, and afterwards."""

import base64
import json
import os
import subprocess

import pytest

from lab import client
from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person, assert_nowhere_in_clear, deliver, files_with, message
from tests.support.imap_keys import answers, save, text, with_attachment
from tests.support.mailboxes import contents, fill, folders, messages
from tests.support.owners import Owner
from tests.support.x509 import Card, Maker, ec, maker, openssl

__all__ = ["maker"]


def put(person: Person, content: bytes) -> None:
    """Put that where an owner's certificates are."""
    place = person.lab.home(person.user) / ".cryptomail"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    (place / "smime.pem").write_bytes(content)
    for path in (place.parent, place, place / "smime.pem"):
        os.chown(path, person.lab.mail_uid, -1)


def give(person: Person, card: Card) -> None:
    put(person, card.pem)


@pytest.mark.parametrize("size", [0, 3_000_000])
def test_mail_is_encrypted_to_the_certificate(
    lab: Lab, new_person: NewPerson, maker: Maker, canary: str, size: int
) -> None:
    person = new_person(lab)
    card = maker.make(address=person.address)
    give(person, card)
    sent = message(canary) + b"0123456789abcdef0123456789abcdef\r\n" * (size // 34)
    assert deliver(person, sent) == 250
    [stored] = person.received()
    assert canary.encode() not in stored
    assert b"\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data;\n" in stored
    assert card.decrypt(stored).endswith(sent)
    assert_nowhere_in_clear(lab, canary)


def test_mail_waits_while_the_file_of_certificates_is_damaged(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    put(person, b"Hi!\n")
    assert deliver(person, message(canary)) == 451
    assert_nowhere_in_clear(lab, canary)


def test_a_message_that_its_owner_signed_sets_the_certificate_up_and_a_test_message_shows_it(
    lab_sealed: Lab, new_person: NewPerson, maker: Maker, canary: str
) -> None:
    person = new_person(lab_sealed)
    card = maker.make(*ec("P-256"), address=person.address)
    save(person, card.signed())
    [answer] = answers(person)
    assert answer["Subject"] == "Your S/MIME certificate is set up"
    assert card.fingerprint in text(answer)
    [trial] = client.imap(lab_sealed, person.user)
    assert b"\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n" in trial
    assert b"If your mail program shows that this message was encrypted" in card.decrypt(trial)
    assert deliver(person, message(canary)) == 250
    assert card.decrypt(client.imap(lab_sealed, person.user)[-1]).endswith(message(canary))
    assert_nowhere_in_clear(lab_sealed, canary)
    save(person, f"Subject: remove {card.fingerprint}\r\n\r\n".encode())
    assert answers(person)[-1]["Subject"] == "Your S/MIME certificate was removed"


def test_the_secret_key_of_a_certificate_is_not_kept(lab_sealed: Lab, new_person: NewPerson, maker: Maker) -> None:
    person = new_person(lab_sealed)
    card = maker.make(address=person.address)
    files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
    secret = openssl("pkcs12", "-export", *files, "-passout", "pass:secret")
    save(person, with_attachment(secret, "application/x-pkcs12", "me.p12"))
    [answer] = answers(person)
    assert answer["Subject"] == "WARNING: you sent your SECRET key"
    line = base64.encodebytes(secret).splitlines()[5]
    assert not files_with(lab_sealed, [line])


def test_stored_mail_is_encrypted_to_a_certificate_and_given_back(owner: Owner, maker: Maker, canary: str) -> None:
    card, another = maker.make(address=owner.person.address), maker.make(*ec("P-384"), address=owner.person.address)
    new = ("--key-file", str(another.directory / "cert.pem"))
    secret = ("--smime-key", str(card.key))
    fill(owner.person, canary, 5)
    before = contents(owner.person)
    owner.key.write_bytes(card.pem)
    assert owner.encrypt() == (0, f"{owner.person.address}: 5 messages encrypted\n", "")
    assert not any(canary.encode() in one.octets for one in messages(owner.person))
    assert owner.encrypt()[1] == f"{owner.person.address}: 0 messages encrypted\n"
    code, said, _ = owner.run("rekey", *new, "--smime-key", str(another.key))
    assert (code, "5 messages left as they are: openssl could not decrypt" in said) == (76, True), said
    assert owner.run("rekey", *new, *secret) == (0, f"{owner.person.address}: 5 messages encrypted\n", "")
    assert owner.run("rekey", *new, *secret) == (0, f"{owner.person.address}: 0 messages encrypted\n", "")
    assert not files_with(owner.person.lab, [canary.encode()])
    assert owner.run("restore", "--smime-key", str(another.key))[0] == 0
    assert contents(owner.person) == before


def test_an_audit_and_a_probe_know_for_whom_it_is(
    lab_sealed: Lab, new_person: NewPerson, maker: Maker, canary: str, path: str
) -> None:
    person = new_person(lab_sealed)
    give(person, maker.make(*ec("P-256"), address=person.address, days=400))
    assert deliver(person, message(canary)) == 250
    assert folders(person, path)["INBOX"] == {"messages": 1, "encrypted": 1}
    give(person, maker.make(*ec("P-256"), address=person.address, days=400))
    assert folders(person, path)["INBOX"] == {"messages": 1, "foreign": 1}
    command = lab_sealed.command("env", f"PATH={path}", lab_sealed.inside(lab_sealed.cryptomail), "doctor", "--json")
    command += ["--probe", person.address]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not [one for one in json.loads(done.stdout)["findings"] if person.address in one["what"]], done.stdout
    assert len(person.received()) == 1
