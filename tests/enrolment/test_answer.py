"""What owners ask for by the Subject of a message that they save: try a key, turn encryption off, know how it is."""

import json
import os
import random
import re
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.keys import Owner
from sieve_filter import limits
from sieve_filter.enrolment import waiting
from sieve_filter.enrolment.waiting import ADD, READ, REMOVE, Request
from sieve_filter.errors import RefusedKeyError
from tests.support.enrolment import letter, program
from tests.support.filtered import decrypt, fingerprint_of
from tests.support.server import ALICE, Outbox, Server

CLEAR = b"Subject: hello\r\n\r\nThe text.\r\n"
NOW = 1_800_000_000


@pytest.fixture
def ask(server: Server, outbox: Outbox) -> Callable[..., EmailMessage]:
    """Saves a message with that Subject, and those keys, and returns the answer."""

    def asked(subject: str, keys: bytes = b"", config: Path | str = "/nonexistent") -> EmailMessage:
        saved = f"Subject: {subject}\r\nMessage-ID: <one@example.org>\r\n".encode() + (keys or b"\r\n")
        done = program(server, saved, sendmail=outbox.program, config=config)
        assert done.returncode == 0, done.stderr
        answer = message_from_bytes(done.stdout, policy=policy.default)
        assert isinstance(answer, EmailMessage)
        assert answer["In-Reply-To"] == "<one@example.org>"
        return answer

    return asked


def text(answer: EmailMessage) -> str:
    body = answer.get_body(("plain",))
    assert body is not None
    return " ".join(str(body.get_content()).split())


def code(outbox: Outbox, owner: Owner) -> str:
    """The code in the one message that was sent, which only that owner can read."""
    [(_, sent)] = outbox.take()
    assert b"confirm" not in sent
    [found] = re.findall(rb"^  confirm ([0-9]{6})", decrypt(sent, owner), re.MULTILINE)
    return str(found.decode())


def encrypted(server: Server) -> bool:
    done = server.filter(CLEAR)
    assert done.returncode == 0
    return b"The text." not in done.stdout


def test_a_key_that_is_tried_counts_when_its_owner_could_read_the_test_message(
    server: Server, alice: Owner, outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    answer = ask("try", letter(alice))
    assert answer["Subject"] == "Now see whether you can read the test message"
    assert not encrypted(server)
    confirmed = ask(f"Re: Confirm {code(outbox, alice)}")
    assert confirmed["Subject"] == "Your OpenPGP key is set up"
    assert encrypted(server)
    assert json.loads(facts(ask("status")))["mail"] == "encrypted"


def facts(answer: EmailMessage) -> str:
    [part] = [one for one in answer.walk() if one.get_content_type() == "application/json"]
    return str(part.get_payload())


def test_a_wrong_code_changes_nothing_and_who_guesses_is_stopped(
    server: Server, alice: Owner, outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    ask("try", letter(alice))
    right = code(outbox, alice)
    answer = ask(f"confirm {(int(right) + 1) % 1_000_000:06}")
    assert answer["Subject"] == "Your OpenPGP keys were NOT changed"
    assert "this is not the code of any request that waits" in text(answer)
    assert "six digits" in text(ask("confirm 12345"))
    assert not encrypted(server)


@pytest.mark.parametrize("what", ["somebody else's", "expired", "secret", "none"])
def test_a_key_that_cannot_be_set_up_cannot_be_tried(
    what: str,
    server: Server,
    new_owner: Callable[[], Owner],
    outbox: Outbox,
    ask: Callable[..., EmailMessage],
) -> None:
    owner = new_owner()
    if what == "expired":
        owner.make_key(ALICE, made_at="20200101T000000", expires="20210101T000000")
    elif what != "none":
        owner.make_key("bob@example.net" if what == "somebody else's" else ALICE)
    keys = owner.gpg("--armor", "--export-secret-keys" if what == "secret" else "--export") if what != "none" else b""
    answer = ask("try", b"Content-Type: application/pgp-keys\r\n\r\n" + keys) if what != "secret" else None
    if answer is None:
        done = program(server, b"Subject: try\r\n\r\n" + keys, sendmail=outbox.program)
        assert b"WARNING: you sent your SECRET key" in done.stdout
    else:
        assert answer["Subject"] in ("Your OpenPGP keys were NOT changed", "No OpenPGP key found")
    assert outbox.take() == []
    assert not list(server.home.glob(".cryptomail/*"))


def test_a_stolen_password_removes_no_key_before_its_owner_is_told_and_can_stop_it(
    server: Server, alice: Owner, outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    server.give(alice.public(ALICE))
    fingerprint = fingerprint_of(alice)
    for subject in (f"remove {fingerprint}", "off"):
        answer = ask(subject)
        assert re.fullmatch(r"Your OpenPGP key will be removed on 20..-..-.. ..:.. UTC", answer["Subject"])
        [(_, notice)] = outbox.take()
        assert b"somebody knows your mail password" in decrypt(notice, alice).replace(b"\r\n", b" ")
        assert encrypted(server)
        [removal] = json.loads(facts(ask("status")))["removals"]
        assert removal["fingerprint"] == fingerprint
        assert ask("keep")["Subject"] == "Your OpenPGP keys stay"
        assert json.loads(facts(ask("status")))["removals"] == []
    assert "No key of yours was to be removed." in text(ask("keep"))


def test_who_can_still_read_need_not_wait(
    server: Server, alice: Owner, outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    server.give(alice.public(ALICE))
    ask("off")
    answer = ask(f"confirm {code(outbox, alice)}")
    assert answer["Subject"] == "Your OpenPGP key was removed"
    assert not encrypted(server)
    assert ask("off")["Subject"] == "Encryption is off"


def test_a_thief_who_adds_a_key_can_remove_that_alone(
    server: Server, alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    server.give(alice.public(ALICE))
    thief = new_owner()
    thief.make_key(ALICE)
    ask("try", letter(thief))
    ask(f"confirm {code(outbox, thief)}")
    outbox.take()
    ask("off")
    sent = [message for _, message in outbox.take()]
    read = [opened for one in sent if b"confirm" in (opened := _opened(one, thief))]
    assert (len(sent), len(read)) == (2, 1)
    [theirs] = re.findall(rb"^  confirm ([0-9]{6})", read[0], re.MULTILINE)
    ask(f"confirm {theirs.decode()}")
    assert b"The text." in decrypt(server.filter(CLEAR).stdout, alice)


def test_an_owner_whose_new_key_does_not_work_turns_it_off_at_once(
    server: Server, alice: Owner, new_owner: Callable[[], Owner], ask: Callable[..., EmailMessage]
) -> None:
    program(server, letter(alice))
    assert ask("off")["Subject"] == "Encryption is off"
    assert not encrypted(server)


def _opened(message: bytes, owner: Owner) -> bytes:
    try:
        return decrypt(message, owner)
    except Exception:  # what it is does not matter: it was not for them
        return b""


def test_a_removal_is_done_when_its_time_has_come_and_saving_the_key_again_calls_it_off(
    server: Server, alice: Owner, ask: Callable[..., EmailMessage]
) -> None:
    server.give(alice.public(ALICE))
    ask("off")
    program(server, letter(alice))
    assert json.loads(facts(ask("status")))["removals"] == []
    ask("off")
    assert encrypted(server)
    file = server.home / ".cryptomail" / waiting.FILE
    file.write_text(re.sub(r'"until": \d+', f'"until": {int(time.time())}', file.read_text()))
    status = json.loads(facts(ask("status")))
    assert (status["removals"], status["mail"]) == ([], "clear")
    assert not encrypted(server)


def test_without_a_delay_a_key_is_removed_at_once(
    server: Server, alice: Owner, tmp_path: Path, ask: Callable[..., EmailMessage]
) -> None:
    config = tmp_path / "none.toml"
    config.write_text("removal_delay = 0\n")
    program(server, letter(alice))
    assert ask("off", config=config)["Subject"] == "Encryption is off"
    assert not encrypted(server)


def test_an_owner_says_that_they_could_read_a_test_message(
    server: Server, alice: Owner, outbox: Outbox, ask: Callable[..., EmailMessage]
) -> None:
    program(server, letter(alice))
    assert "you could read a test message" not in text(ask("status"))
    assert ask("test")["Subject"] == "A test message is on its way to your inbox"
    [(_, sent)] = outbox.take()
    # It is handed in as all mail is, and encrypted on its way.
    filtered = server.filter(sent.replace(b"\n", b"\r\n")).stdout
    [found] = re.findall(rb"^  confirm ([0-9]{6})", decrypt(filtered, alice), re.MULTILINE)
    assert ask(f"confirm {found.decode()}")["Subject"] == "You can read your mail"
    assert "you could read a test message" in text(ask("status"))
    assert "not the code of any request" in text(ask(f"confirm {found.decode()}"))


def test_an_owner_chooses_what_is_safer_at_once_and_what_is_less_safe_with_a_code(
    server: Server, alice: Owner, outbox: Outbox, tmp_path: Path, ask: Callable[..., EmailMessage]
) -> None:
    config = tmp_path / "choices.toml"
    config.write_text("owners_may = ['header_policy']\n")
    server.give(alice.public(ALICE))
    assert ask("choose header_policy shy", config=config)["Subject"] == "Your choice counts from now on"
    assert json.loads(facts(ask("status", config=config)))["settings"]["header_policy"] == {
        "value": "shy",
        "level": "owner",
        "choice": True,
    }
    for weaker in ("default", "baseline"):
        answer = ask(f"choose header_policy={weaker}", config=config)
        assert answer["Subject"] == "Confirm your choice with the code in the message to you"
        outbox.take()
    assert "shy" in text(ask("choose header_policy shy", config=config))
    ask("choose header_policy default", config=config)
    confirmed = ask(f"confirm {code(outbox, alice)}", config=config)
    assert "header_policy: no_confidentiality (default)" in text(confirmed)
    for wrong in ("choose no_key refuse", "choose header_policy loud", "choose engine gnupg", "choose", "choose a b c"):
        assert ask(wrong, config=config)["Subject"] == "Your OpenPGP keys were NOT changed"


def test_a_command_in_a_message_with_a_key_does_nothing(
    server: Server, alice: Owner, ask: Callable[..., EmailMessage]
) -> None:
    assert "send one message for each" in text(ask("off", letter(alice)))
    assert not (server.home / ".cryptomail").exists()


@given(st.binary(max_size=200) | st.from_type(dict[str, list[int] | int]).map(lambda one: json.dumps(one).encode()))
def test_a_damaged_file_of_requests_removes_nothing(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(content)
    assert waiting.overdue(file, NOW) == []
    assert waiting.book(file, NOW).requests == ()


def test_codes_are_good_for_a_day_and_once(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    for later, good in ((0, True), (limits.CODE_SECONDS + 1, False)):
        one = waiting.add(file, Request(ADD, "", NOW + limits.CODE_SECONDS, packets=b"key"), NOW)
        if good:
            assert waiting.confirm(file, one.code, NOW + later).packets == b"key"
        with pytest.raises(RefusedKeyError, match="not the code"):
            waiting.confirm(file, one.code, NOW + later)


def test_who_guesses_codes_is_stopped_until_the_next_day(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    one = waiting.add(file, Request(REMOVE, "", NOW + 200_000, "AB" * 20), NOW)
    guesses = [number for number in range(limits.WRONG_CODES_A_DAY + 1) if f"{number:06}" != one.code]
    for guess in guesses[: limits.WRONG_CODES_A_DAY]:
        with pytest.raises(RefusedKeyError, match="not the code"):
            waiting.confirm(file, f"{guess:06}", NOW)
    with pytest.raises(RefusedKeyError, match="too many wrong codes"):
        waiting.confirm(file, one.code, NOW)
    assert waiting.confirm(file, one.code, NOW + 86_400).fingerprint == "AB" * 20


def test_of_many_stolen_passwords_none_removes_a_key_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thief asks for it, and for more codes, and guesses; CRYPTOMAIL_THEFTS says how many, if not a hundred."""
    chance = random.Random(2026)  # noqa: S311 - so that each run is the same
    monkeypatch.setattr("sieve_filter.enrolment.waiting.secrets.randbelow", chance.randrange)
    removed = 0
    with TemporaryDirectory(dir="/dev/shm") as directory:
        for number in range(int(os.environ.get("CRYPTOMAIL_THEFTS", "100"))):
            file = Path(directory, str(number))
            waiting.add(file, Request(REMOVE, "", NOW + 86_400, "AB" * 20), NOW)
            for guess in range(limits.WRONG_CODES_A_DAY + 5):
                if guess % 4 == 0:
                    waiting.add(file, Request(REMOVE, "", NOW + 86_400 + guess, "AB" * 20), NOW + guess)
                try:
                    waiting.confirm(file, f"{chance.randrange(1_000_000):06}", NOW + guess)
                    removed += 1
                except RefusedKeyError:
                    pass
            assert waiting.overdue(file, NOW + 86_399) == []
            assert waiting.overdue(file, NOW + 86_400) == ["AB" * 20]
    assert removed == 0


def test_codes_are_few_in_a_day_and_a_repeated_request_puts_nothing_off(tmp_path: Path) -> None:
    file = tmp_path / "requests"
    for number in range(limits.CODES_A_DAY):
        one = waiting.add(file, Request(REMOVE, "", NOW + 100 + number, "AB" * 20), NOW)
        assert one.until == NOW + 100
    for kind in (READ, ADD):
        with pytest.raises(RefusedKeyError, match="too many"):
            waiting.add(file, Request(kind, "", NOW + 100), NOW)
    assert waiting.overdue(file, NOW + 99) == []
    assert waiting.overdue(file, NOW + 100) == ["AB" * 20]
    assert waiting.overdue(file, NOW + 100) == []
