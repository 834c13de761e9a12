"""`cryptomail doctor --probe`: it says what becomes of a real message, and leaves nothing behind."""

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import pytest

from lab.client import Lab
from sieve_filter.cli import doctor_probe
from sieve_filter.keys.status import CRITICAL, WARNING
from sieve_filter.mailbox.probe import Sighting
from tests.e2e.conftest import NewPerson, Person

OWN, OTHER = "A" * 40, "B" * 40


def findings(person: Person) -> list[dict[str, Any]]:
    """Those that are about the probe: in the same lab, other tests' owners may have keys in trouble."""
    lab = person.lab
    doveadm = lab.directory / "bin-of-probe/doveadm"
    doveadm.parent.mkdir(exist_ok=True)
    configuration = lab.inside(lab.directory / "dovecot.conf")
    doveadm.write_text(f'#!/bin/sh\nexec /usr/bin/doveadm -c {configuration} "$@"\n')
    doveadm.chmod(0o755)
    path = f"{lab.inside(doveadm.parent)}:/usr/sbin:/usr/bin:/sbin:/bin"
    command = lab.command("env", f"PATH={path}", lab.inside(lab.cryptomail), "doctor", "--json")
    done = subprocess.run([*command, "--probe", person.address], capture_output=True, text=True)
    assert not done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return [one for one in found if person.address in one["what"] and "probe" in one["what"]]


def test_mail_that_is_encrypted_passes_and_the_probe_is_gone(lab: Lab, new_person: NewPerson) -> None:
    person = new_person(lab)
    person.set_up_key()
    assert findings(person) == []
    assert person.received() == []


def test_a_probe_that_is_stored_in_clear_is_critical_wherever_it_is_and_is_gone(
    lab_off: Lab, new_person: NewPerson
) -> None:
    person = new_person(lab_off)
    person.set_up_key()
    (found,) = findings(person)
    assert found["state"] == "CRITICAL"
    assert found["what"] == f"a probe to {person.address} was stored in clear, in INBOX"
    assert person.received() == []


def test_who_has_no_key_gets_no_probe(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    (found,) = findings(person)
    assert (found["state"], "no probe was sent" in found["what"]) == ("UNKNOWN", True)
    assert not lab_sealed.home(person.user).exists() or person.received() == []


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        ([Sighting("INBOX", True, ())], CRITICAL, "in clear, in INBOX"),
        ([Sighting("INBOX", True, (OWN[-16:],))], CRITICAL, "in clear, in INBOX"),
        ([Sighting("INBOX", False, (OTHER[-16:],))], CRITICAL, f"encrypted to {OTHER[-16:]}, and not to {OWN[-16:]}"),
        ([Sighting("INBOX", False, (OWN[-16:], OTHER[-16:]))], CRITICAL, f"and not to {OWN[-16:]}"),
        ([], WARNING, "is in no folder"),
        ([Sighting("a", False, (OWN[-16:],)), Sighting("b", True, ())], CRITICAL, "in clear, in b"),
    ],
)
def test_each_other_way_to_be_stored_is_a_finding(found: Sequence[Sighting], state: int, words: str) -> None:
    (finding,) = doctor_probe.judge("ann", found, [OWN[-16:]])
    assert (finding.state, words in finding.what) == (state, True)


def test_no_finding_is_a_command_that_a_user_name_can_change() -> None:
    (finding,) = doctor_probe.judge("ann; rm -rf ~", [Sighting("INBOX", True, ())], [OWN[-16:]])
    assert finding.command == "cryptomail keys test --user 'ann; rm -rf ~'"
