"""System users who get mail."""

import os
import pwd

from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person


def settle(new_person: NewPerson, lab: Lab, user: str) -> Person:
    """A system user, which every Debian has, with a key and a home."""
    person = Person(lab, new_person(lab).gpg, user)
    person.set_up_key()
    account = pwd.getpwnam(user)
    home = lab.home(user)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    return person
