"""Where each mailbox belongs to a system user of its own: a worker that runs as root becomes whoever asks."""

import pwd
import time

from lab import client
from lab.client import Lab
from tests.e2e.conftest import NewPerson, assert_encrypted_to, assert_nowhere_in_clear, message
from tests.faults import dovecot
from tests.faults.faults import hasty_worker
from tests.support.system_users import settle


def test_each_user_s_mail_is_sealed_with_that_user_s_rights(lab_users: Lab, new_person: NewPerson, canary: str) -> None:
    people = [settle(new_person, lab_users, user) for user in ("games", "news")]
    before = [person.received() for person in people]
    sent = message(canary)
    replies = client.lmtp(lab_users, sent, [person.address for person in people])
    assert [reply.code for reply in replies] == [250, 250]
    for person, old in zip(people, before, strict=True):
        [stored] = [one for one in person.received() if one not in old]
        assert_encrypted_to(person, stored, sent, canary)
        files = [file for file in (lab_users.home(person.user) / "Maildir").rglob("*") if file.is_file()]
        assert {file.stat().st_uid for file in files} == {pwd.getpwnam(person.user).pw_uid}
    assert_nowhere_in_clear(lab_users, canary)


def test_mail_waits_while_the_keyring_of_a_user_who_had_one_is_not_there(
    lab_users: Lab, new_person: NewPerson, canary: str
) -> None:
    person = settle(new_person, lab_users, "games")
    sent = message(canary)
    assert [reply.code for reply in client.lmtp(lab_users, sent, [person.address])] == [250]
    keyring = lab_users.home(person.user) / ".cryptomail"
    away = keyring.rename(keyring.with_name("elsewhere"))
    assert [reply.code for reply in client.lmtp(lab_users, sent, [person.address])] == [451]
    away.rename(keyring)
    assert_nowhere_in_clear(lab_users, canary)


def comes_again(lab: Lab, sent: bytes, address: str) -> bool:
    """Whether it is taken. It is not for a moment, while Dovecot starts anew, and its sender tries again."""
    try:
        return [reply.code for reply in client.lmtp(lab, sent, [address])] == [250]
    except (OSError, ValueError):
        return False


def test_a_message_that_comes_again_because_dovecot_did_not_answer_in_time_is_there_once(
    lab_users: Lab, new_person: NewPerson, canary: str
) -> None:
    person = settle(new_person, lab_users, "news")
    before = len(person.received())
    sent = message(canary)
    with hasty_worker(person), dovecot.slowed(lab_users, dovecot.private_service(lab_users), 8):
        assert [reply.code for reply in client.lmtp(lab_users, sent, [person.address])] == [451]
        deadline = time.monotonic() + 30
        while len(person.received()) == before:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    deadline = time.monotonic() + 30
    while not comes_again(lab_users, sent, person.address):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert len(person.received()) == before + 1
    assert_nowhere_in_clear(lab_users, canary)
