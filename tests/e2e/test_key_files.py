"""Keys as files, in the layout of a Web Key Directory: exported by the administrator, read at delivery."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.client import Lab
from sieve_filter.openpgp import wkd
from tests.e2e.conftest import (
    NewPerson,
    Person,
    assert_encrypted_to,
    assert_nowhere_in_clear,
    deliver,
    message,
)

TEMPORARY_FAILURE = 451


@pytest.fixture
def lab(lab_sealed: Lab) -> Iterator[Lab]:
    """One that reads key files first, as docs/admin/keys.md says. No home's keyring is in the way of them."""
    settings = lab_sealed.directory / "etc/cryptomail/config.toml"
    before = settings.read_bytes()
    files = lab_sealed.inside(lab_sealed.directory / "keys")
    settings.write_text(f'[keyrings]\nowner = ["{files}/openpgpkey/%d/hu/%w", "%h/.cryptomail"]\n')
    yield lab_sealed
    settings.write_bytes(before)
    shutil.rmtree(lab_sealed.directory / "keys")


@pytest.fixture
def person(lab: Lab, new_person: NewPerson) -> Person:
    """Somebody who had a key once, and has another encryption subkey from now on."""
    made = new_person(lab)
    fingerprint = made.gpg.make_key(made.address, made_at="20240101T000000!")
    publish(made)
    made.gpg.gpg("--quick-add-key", fingerprint, "cv25519", "encr")
    return made


def publish(person: Person) -> Path:
    """Import the person's key into a GnuPG home, as the administrator does where keys are kept, and export all.

    Returns the person's key file.
    """
    lab, people = person.lab, person.lab.directory / "people"
    (people / lab.domain / person.user).mkdir(parents=True)
    (people / "config.toml").touch()  # the settings that came with it
    places = ["--home-template", f"{lab.inside(people)}/%d/%n", "--config", lab.inside(people / "config.toml")]
    for arguments in (
        ["import", "--no-notify", "--user", person.address, "-"],
        ["export", "--all", "--wkd", lab.inside(lab.directory / "keys")],
    ):
        command = lab.command(lab.inside(lab.cryptomail), "keys", *arguments, *places)
        subprocess.run(command, input=person.gpg.public(person.address), check=True, capture_output=True)
    shutil.rmtree(people)
    return lab.directory / "keys" / wkd.key_path(person.address)


def subkeys(person: Person) -> list[str]:
    """The key IDs of the person's encryption subkeys, the oldest first."""
    records = [line.split(":") for line in person.gpg.gpg("--with-colons", "--list-keys").decode().splitlines()]
    found = [(record[5], record[4]) for record in records if record[0] == "sub" and "e" in record[11]]
    return [key_id for _, key_id in sorted(found)]


def encrypted_to(person: Person, stored: bytes) -> list[str]:
    """The key IDs that a stored message is encrypted to."""
    packets = person.gpg.gpg("--list-only", "--list-packets", data=stored).decode()
    return re.findall(r"^:pubkey enc packet: .* keyid ([0-9A-F]{16})$", packets, re.MULTILINE)


def test_mail_is_encrypted_to_the_key_file_and_to_a_renewed_one_from_the_next_message_on(
    person: Person, canary: str
) -> None:
    old, new = subkeys(person)
    sent = message(canary)
    assert deliver(person, sent) == 250
    publish(person)
    assert deliver(person, sent) == 250
    received = person.received()
    assert sorted(encrypted_to(person, stored) for stored in received) == sorted([[old], [new]])
    for stored in received:
        assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(person.lab, canary)


@pytest.mark.parametrize("octets", [0, 100], ids=["zeros", "cut short"])
def test_mail_waits_while_the_key_file_is_damaged(person: Person, canary: str, octets: int) -> None:
    file = publish(person)
    good = file.read_bytes()
    sent = message(canary)
    assert deliver(person, sent) == 250
    file.write_bytes(good[:octets] or bytes(len(good)))
    assert deliver(person, sent) == TEMPORARY_FAILURE
    assert len(person.received()) == 1
    file.write_bytes(good)
    assert deliver(person, sent) == 250
    for stored in person.received():
        assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(person.lab, canary)
