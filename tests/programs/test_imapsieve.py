"""`cryptomail enroll`, and the program that IMAPSieve starts, where a test needs no Dovecot."""

import re
import subprocess
import sys
from collections.abc import Callable
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter import limits
from tests.support.enrolment import letter, program
from tests.support.filtered import decrypt, fingerprint_of
from tests.support.samples import part
from tests.support.server import ALICE, Outbox, Server


def subject(answer: bytes) -> str:
    return str(message_from_bytes(answer, policy=policy.default)["Subject"])


@pytest.mark.parametrize("variable", ["RECIPIENT", "ORIG_RECIPIENT", "SENDER"])
def test_in_a_delivery_it_does_nothing(variable: str, server: Server, alice: Owner) -> None:
    done = program(server, letter(alice), more={variable: ALICE})
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"is for messages that are saved over IMAP" in done.stderr
    assert list(server.home.iterdir()) == []


def test_it_takes_no_argument(server: Server, alice: Owner) -> None:
    for argument in ("--user=bob", "--home=/home/bob", "--help"):
        done = program(server, letter(alice), argument)
        assert (done.returncode, done.stdout) == (64, b"")


def test_a_message_that_is_too_large_is_left_as_it_is(server: Server, alice: Owner) -> None:
    done = program(server, letter(alice) + b"\n" * limits.KEY_MAIL_OCTETS)
    assert (done.returncode, done.stdout) == (65, b"")
    assert b"it is left as it is" in done.stderr


def test_the_test_message_goes_by_sendmail_where_there_is_no_lmtp_service(
    server: Server, alice: Owner, outbox: Outbox
) -> None:
    done = program(server, letter(alice), sendmail=outbox.program)
    assert (done.returncode, done.stderr) == (0, b"")
    assert subject(done.stdout) == "Your OpenPGP key is set up"
    [(arguments, sent)] = outbox.take()
    assert arguments == f"-i -f <> -- {ALICE}"
    assert b"\r" not in sent
    assert b"If your mail program shows that this message was encrypted" in sent


@pytest.mark.parametrize("sendmail", ["", "/nonexistent/sendmail", "/bin/false"])
def test_the_answer_says_that_there_is_no_test_message(sendmail: str, server: Server, alice: Owner) -> None:
    done = program(server, letter(alice), sendmail=sendmail)
    assert done.returncode == 0
    assert b"There is no test message" in done.stdout
    assert b"a notice to 'alice@example.org' was not sent" in done.stderr


def test_what_goes_wrong_on_the_server_is_answered_too(server: Server, alice: Owner) -> None:
    (server.home / ".cryptomail").mkdir()
    (server.home / ".cryptomail/pubring.kbx").write_bytes(b"this is no keyring")
    done = program(server, letter(alice))
    assert done.returncode == 0
    assert subject(done.stdout) == "Something went wrong with your OpenPGP keys"
    assert b"cannot list the keys in" in done.stderr
    assert alice.public(ALICE) in done.stdout


def test_a_place_that_cannot_hold_a_keyring_is_told(server: Server, alice: Owner) -> None:
    (server.home / ".cryptomail").symlink_to("elsewhere")
    done = program(server, letter(alice))
    assert subject(done.stdout) == "Your OpenPGP keys were NOT changed"
    assert b"as a keyring" in done.stdout


def test_a_configuration_that_cannot_be_read_leaves_the_message_as_it_is(
    server: Server, alice: Owner, tmp_path: Path
) -> None:
    server.config.write_text("no_key = 5\n")
    code = (
        "import sys; from sieve_filter.programs.imapsieve import enroll_main; sys.exit(enroll_main({!r}, '', '', ''))"
    )
    command = [sys.executable, "-c", code.format(str(server.config))]
    environment = {"USER": ALICE, "HOME": str(server.home)}
    done = subprocess.run(command, input=letter(alice), capture_output=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout) == (78, b"")


def test_an_answer_is_left_as_it_is(server: Server, alice: Owner) -> None:
    answer = program(server, letter(alice)).stdout
    assert program(server, answer).stdout == answer


def test_an_answer_that_holds_a_secret_key_is_none(server: Server, alice: Owner) -> None:
    armor = alice.gpg("--armor", "--export-secret-keys")
    done = program(server, b"X-Cryptomail: confirmation\n\n" + armor)
    assert subject(done.stdout) == "WARNING: you sent your SECRET key"
    assert armor.split(b"\n")[3] not in done.stdout


def test_a_renewed_key_takes_the_place_of_the_old_one(server: Server, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="2y")
    program(server, letter(owner))
    owner.gpg("--quick-set-expire", fingerprint, "5y")
    answers = [program(server, letter(owner)).stdout for _ in range(2)]
    assert [subject(one) for one in answers] == ["Your OpenPGP key is set up", "Your OpenPGP key was set up already"]
    years = [int(year) for one in answers for year in re.findall(rb"Expires      (\d{4})", one)]
    assert len(set(years)) == 1
    assert b"Mail for you is encrypted to" not in answers[0]


def test_a_revoked_key_cannot_be_set_up_and_one_that_is_there_can_be_removed(
    server: Server, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    owner.revoke(fingerprint)
    assert b"it was revoked" in program(server, letter(owner)).stdout
    server.give(owner.public(ALICE))
    server.config.write_text("removal_delay = 0\n")
    command = b"Subject: remove %b\r\n\r\n" % fingerprint.encode()
    assert b"will be removed on" in program(server, command, sendmail=outbox.program).stdout
    [(_, sent)] = outbox.take()
    assert b"confirm" not in sent  # it cannot be encrypted to that key
    done = program(server, command, sendmail=outbox.program, config=server.config)
    assert subject(done.stdout) == "Your OpenPGP key was removed"
    [(_, sent)] = outbox.take()
    assert b"somebody knows your mail password" in sent.replace(b"\n", b" ")


def test_a_revoked_copy_of_the_owner_s_key_ends_its_use_and_the_answer_says_so(
    server: Server, new_owner: Callable[[], Owner], alice: Owner
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    program(server, letter(owner))
    owner.revoke(fingerprint)
    for _ in range(2):
        answer = program(server, letter(owner)).stdout
        assert subject(answer) == "Your OpenPGP key was revoked"
        assert b"mail is not encrypted to it any more" in answer
        assert b"Mail for you waits, because none of your keys can be used" in answer
        assert server.filter(b"Subject: hello\r\n\r\nThe text.\r\n").returncode == 75
    both = part(b"application/pgp-keys", owner.public(ALICE) + alice.public(ALICE))
    answer = program(server, both).stdout
    assert subject(answer) == "Your OpenPGP key is set up"
    assert b"This was revoked" in answer
    filtered = server.filter(b"Subject: hello\r\n\r\nThe text.\r\n").stdout
    assert b"The text." in decrypt(filtered, alice)
    answer = program(server, letter(owner)).stdout
    assert b"Mail for you is encrypted to:" in answer


def test_an_owner_is_told_where_a_key_that_was_revoked_is_used_on(
    server: Server, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    server.give(owner.public(ALICE), ".gnupg")
    owner.revoke(fingerprint)
    answer = program(server, letter(owner)).stdout
    assert b"it was revoked; the copy of it in" in answer
    assert b".gnupg is still used, because only you can change that" in answer


def test_a_key_in_another_keyring_serves_on(
    server: Server, alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    server.give(alice.public(ALICE), ".gnupg")
    thief = new_owner()
    thief.make_key(ALICE)
    answer = program(server, letter(thief), sendmail=outbox.program).stdout
    assert b"as before, until you have them removed" in answer
    [(_, notice), _] = outbox.take()
    assert b"Another OpenPGP key" in notice
    assert b"Whoever has that key can read it." in decrypt(notice, alice)
    filtered = server.filter(b"Subject: hello\r\n\r\nThe text.\r\n").stdout
    assert b"The text." in decrypt(filtered, alice)
    assert b"The text." in decrypt(filtered, thief)


def test_an_answer_says_what_deliveries_do_now(server: Server, alice: Owner, new_owner: Callable[[], Owner]) -> None:
    no_key = b"Subject: hello\r\n\r\n"
    assert b"Mail for you is not encrypted now." in program(server, no_key).stdout
    expired, revoked = new_owner(), new_owner()
    expired.make_key(ALICE, made_at="20200101T000000", expires="20210101T000000")
    revoked.revoke(revoked.make_key(ALICE))
    server.give(revoked.public(ALICE))
    assert b"Mail for you waits, because none of your keys can be used" in program(server, no_key).stdout
    server.give(expired.public(ALICE))
    answer = program(server, no_key).stdout
    assert b"Mail for you is encrypted to:" in answer
    assert re.search(rb"Note         expired on 2021-01-0", answer)
    server.give(alice.public(ALICE))
    assert b"2021" not in program(server, no_key).stdout


def test_the_command_enroll_does_the_same_for_a_person(server: Server, alice: Owner) -> None:
    from tests.support.server import run

    done = run("enroll", "--user", ALICE, "--home", str(server.home), "--sendmail", "", data=letter(alice))
    assert done.returncode == 0
    assert fingerprint_of(alice)[:4].encode() in done.stdout
