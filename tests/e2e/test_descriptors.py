"""What a gpg gets hold of that real Dovecots start, by a worker or by a program: standard input, output and error."""

import os
import pwd
from collections.abc import Callable

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, Person, deliver, message
from tests.faults import dovecot
from tests.faults.table import LONG
from tests.support.descriptors import Recorder
from tests.support.system_users import settle

EVERY_MODE = ["sealed", "users", "executed"]
# Each mode needs a Dovecot of its own: the short version has all of 2.3's.
SHORT = [("dovecot23", mode) for mode in EVERY_MODE] + [("dovecot24", "users")]
LONG_RUN = [(version, mode) for version in DOVECOTS for mode in EVERY_MODE]


@pytest.mark.parametrize(("version", "mode"), LONG_RUN if LONG in os.environ else SHORT)
def test_no_descriptor_of_dovecot_reaches_a_gpg(
    version: str, mode: str, labs: Callable[[str, str], Lab], new_person: NewPerson, canary: str
) -> None:
    lab = labs(version, mode)
    person: Person = settle(new_person, lab, "proxy") if mode == "users" else new_person(lab)
    if mode != "users":
        person.set_up_key()
    place = dovecot.workshop(lab) / "programs"
    recorder = Recorder(place, lab.inside(place), gpg="/usr/bin/gpg")
    config = dovecot.config_file(lab)
    wrapper = f'PATH={lab.inside(place)}:/usr/bin:/bin\nexport PATH\nexec "$PROGRAM" "$@"'
    with dovecot.replaced(lab, config, 'engine = "gnupg"\n'), dovecot.wrapped(lab, wrapper):
        assert deliver(person, message(canary)) == 250
    assert len(person.received()) == 1
    user = pwd.getpwnam("proxy").pw_uid if mode == "users" else lab.mail_uid
    lines = recorder.take()
    assert set(lines) == {f"gpg of user {user}: nothing"}
