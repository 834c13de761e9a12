"""Owners encrypt their own mailbox from anywhere, over connections that break."""

import os
import random
import time
from collections import Counter
from pathlib import Path

from lab.client import Lab
from tests.e2e.conftest import NewPerson, files_with, message
from tests.support import mailboxes
from tests.support.mailboxes import contents, fill, folders, mailbox, messages, running, save, wait_until_nobody_works
from tests.support.owners import Owner, breaking, through

OK, LEFT = 0, 76
_UNAVAILABLE = 69


def test_an_owner_s_mailbox_is_encrypted_without_the_server(owner: Owner, canary: str) -> None:
    fill(owner.person, canary, 60)
    save(owner.person, message(canary), folder="Drafts")
    before = contents(owner.person)
    code, said, complained = owner.run("audit")
    assert (code, complained) == (1, "")
    assert said.startswith("MAILBOX WARNING - 1 mailbox: 61 of 61 messages in clear (1 draft)")
    assert owner.encrypt() == (OK, f"{owner.person.address}: 60 messages encrypted\n", "")
    assert contents(owner.person) == before
    assert owner.encrypt() == (OK, f"{owner.person.address}: 0 messages encrypted\n", "")
    assert contents(owner.person) == before
    assert owner.run("audit")[0] == OK
    assert len([one for one in files_with(owner.person.lab, [canary.encode()]) if ".Drafts" not in str(one)]) == 0


def test_what_an_owner_gets_wrong_is_told(owner: Owner, canary: str) -> None:
    save(owner.person, message(canary))
    assert owner.run("encrypt") == (
        64,
        "",
        "cryptomail: --imap and --key-file go together: your key is not looked up anywhere\n",
    )
    owner.key.write_bytes(owner.person.gpg.gpg("--armor", "--export-secret-keys"))
    assert "there is a SECRET key in" in owner.encrypt()[2]
    owner.key.write_text("no key")
    assert owner.encrypt()[0] == 65
    owner.key.write_bytes(owner.person.gpg.gpg("--armor", "--export"))
    owner.password.write_text("wrong\n")
    code, _, complained = owner.encrypt()
    assert (code, "does not let" in complained) == (77, True)
    assert canary.encode() in messages(owner.person)[0].octets


def test_over_a_connection_that_breaks_each_message_is_there_once(owner: Owner, canary: str) -> None:
    fill(owner.person, canary, 120)
    before = contents(owner.person)
    chance = random.Random(canary)  # noqa: S311
    real = owner.port
    codes: Counter[int] = Counter()
    with breaking(real, chance, 300_000) as port:
        for _ in range(int(os.environ.get("CRYPTOMAIL_KILLS", "12"))):
            # The journal is the URL's, so the port must stay.
            owner.port = port
            codes[owner.encrypt()[0]] += 1
            assert len(messages(owner.person)) >= before.total()
    assert codes[_UNAVAILABLE] > 0, codes
    with through(real, port):
        assert owner.encrypt()[0] == OK
    assert contents(owner.person) == before


def test_the_owner_and_the_server_at_once_leave_each_message_once(
    lab_sealed: Lab, new_person: NewPerson, path: str, tmp_path: Path, canary: str
) -> None:
    """Neither knows of the other: what the mailbox says of its messages has to do."""
    person = new_person(lab_sealed)
    person.set_up_key()
    owner = Owner(person, tmp_path)
    owner.key.write_bytes(person.gpg.gpg("--armor", "--export"))
    fill(person, canary, 200)
    before = contents(person)
    here = owner.start("encrypt", "--key-file", str(owner.key))
    time.sleep(0.3)
    there = running(person, path)
    assert {here.wait(120), there.wait(120)} <= {OK, LEFT}
    here.communicate()
    wait_until_nobody_works(person, path)
    assert mailbox(person, path, "encrypt").returncode == OK
    assert contents(person) == before
    assert folders(person, path)["INBOX"] == {"messages": 200, "encrypted": 200}
    assert mailboxes.messages(person)
