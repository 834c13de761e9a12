"""Whose will counts, in deliveries of a real Dovecot's workers."""

import subprocess

from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person, deliver, message


def subject_is_seen(person: Person, canary: str) -> bool:
    """Whether the Subject of a message that comes now can be read where it is stored."""
    before = person.received()
    assert deliver(person, message(canary)) == 250
    [stored] = [one for one in person.received() if one not in before]
    assert canary.encode() not in stored
    return b"\nSubject: hello\n" in stored


def test_workers_obey_an_owner_s_choice_and_a_domain_s_section_from_the_next_message_on(
    lab_sealed: Lab, new_person: NewPerson, canary: str
) -> None:
    person, other = new_person(lab_sealed), new_person(lab_sealed)
    for one in (person, other):
        one.set_up_key()
    settings = lab_sealed.directory / "etc/cryptomail/config.toml"
    before = settings.read_text()

    def choose(value: str) -> None:
        places = ("--user", person.address, "--home", lab_sealed.inside(lab_sealed.home(person.user)))
        command = ("settings", "choose", *places, "header_policy", value)
        program = lab_sealed.inside(lab_sealed.cryptomail)
        subprocess.run(lab_sealed.command(program, *command), check=True, stdout=subprocess.DEVNULL)

    try:
        settings.write_text('owners_may = ["header_policy"]\n')
        seen = [subject_is_seen(person, canary)]
        choose("shy")
        seen += [subject_is_seen(person, canary), subject_is_seen(other, canary)]
        choose("default")
        settings.write_text(f"[domain]\n'{lab_sealed.domain}' = {{ header_policy = 'baseline' }}\n")
        seen += [subject_is_seen(person, canary)]
    finally:
        settings.write_text(before)
    assert seen == [True, False, True, False]
