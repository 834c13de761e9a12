"""`cryptomail seal`: encrypts a message and delivers it; against a server that answers what a test wants.

Dovecot itself is at the other end in tests/e2e/test_sealing.py; here are the answers that it gives on bad days only.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.delivery import sealing
from sieve_filter.dovecot import lmtp
from sieve_filter.errors import DeliveryError
from tests.support.filtered import decrypt
from tests.support.lmtp import ENVELOPE, MESSAGE, fake
from tests.support.server import ALICE, Server, run


def seal(
    server: Server, socket_path: str, message: bytes = MESSAGE, environment: dict[str, str] = ENVELOPE
) -> "tuple[int, bytes, bytes]":
    named = {"USER": ALICE, "HOME": str(server.home)} | environment
    done = run("seal", "--socket", socket_path, data=message, environment=named, config=server.config)
    return done.returncode, done.stdout, done.stderr


def test_message_is_delivered_encrypted_with_the_same_envelope(enrolled: Server, alice: Owner) -> None:
    with fake() as server:
        assert seal(enrolled, server.path) == (0, b"sealed", b"")
    assert server.said[1:4] == [
        b"MAIL FROM:<b@example.com> BODY=8BITMIME",
        b"RCPT TO:<alice+x@example.org> ORCPT=rfc822;other+2By@example.org",
        b"DATA",
    ]
    assert server.taken.startswith(b"Received: by us\r\nDelivered-To: list@example.net\r\nSubject: hello\r\n")
    assert decrypt(server.taken, alice) == MESSAGE


@pytest.mark.parametrize(
    "changed",
    [
        {"LHLO": b"421 busy"},
        {"MAIL": b"451 later"},
        {"RCPT": b"550 no such user"},
        {"RCPT": b"452 full"},
        {"DATA": b"554 no"},
        {"end": b"451 later"},
        {"end": b"552 5.2.2 quota exceeded"},
        {"end": b""},
        {"DATA": b""},
    ],
    ids=repr,
)
def test_anything_but_a_yes_is_a_failure(changed: dict[str, bytes], enrolled: Server) -> None:
    enrolled.config.write_text("time_limit = 5\n")
    with fake(**changed) as server:
        code, stdout, stderr = seal(enrolled, server.path)
    assert (code, stdout) == (75, b"")
    assert stderr.count(b"\n") == 1


@pytest.mark.parametrize("answer", [b"250-never ends", b""])
def test_message_of_which_nobody_knows_whether_it_is_stored_is_not_said_to_be_lost(
    answer: bytes, enrolled: Server
) -> None:
    code = "from sieve_filter.dovecot import lmtp; lmtp.ANSWER_SECONDS = 3; "
    code += f"import sys; from sieve_filter.cli.main import main; sys.exit(main({str(enrolled.config)!r}))"
    environment = {"USER": ALICE, "HOME": str(enrolled.home)} | ENVELOPE
    with fake(end=answer) as server:
        command = [sys.executable, "-c", code, "seal", "--socket", server.path]
        done = subprocess.run(command, input=MESSAGE, capture_output=True, env=environment, timeout=30)
        assert server.ended
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"did not say whether it has stored" in done.stderr
    assert b"nothing was stored" not in done.stderr


def test_behind_the_last_octet_there_is_only_waiting(enrolled: Server, alice: Owner) -> None:
    """Its receiver has the message, and may store it after any limit of ours."""
    enrolled.config.write_text("time_limit = 4\n")
    with fake() as server:
        server.delay = 6
        assert seal(enrolled, server.path) == (0, b"sealed", b"")
    assert decrypt(server.taken, alice) == MESSAGE


def test_what_comes_too_late_to_be_read_is_read_out_all_the_same(enrolled: Server) -> None:
    """Dovecot's lmtp panics where a program ends before it has taken the whole message, and its ID is in the log."""
    enrolled.config.write_text("this is not TOML")
    message = b"Message-ID: <early@example.com>\r\n" + MESSAGE + b"text\r\n" * 500_000
    reader, writer = os.pipe()
    code = f"import sys; from sieve_filter.cli.main import main; sys.exit(main({str(enrolled.config)!r}))"
    environment = {"USER": ALICE, "HOME": str(enrolled.home)}
    command = [sys.executable, "-c", code, "seal", "--socket", "/nonexistent"]
    process = subprocess.Popen(command, stdin=reader, stderr=subprocess.PIPE, env=environment)
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        pipe.write(message)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 78
    assert b"message_id=<early@example.com>" in stderr


def test_missing_service_is_a_failure(enrolled: Server) -> None:
    code, stdout, stderr = seal(enrolled, "/nonexistent/lmtp")
    assert (code, stdout) == (75, b"")
    assert b"/nonexistent/lmtp" in stderr


def test_nothing_is_delivered_for_a_caller_who_has_gone(enrolled: Server) -> None:
    """Its message is with the sender still, and will come again."""
    code = f"import sys; from sieve_filter.cli.main import main; sys.exit(main({str(enrolled.config)!r}))"
    environment = {"USER": ALICE, "HOME": str(enrolled.home)} | ENVELOPE
    reader, writer = os.pipe()
    os.close(reader)
    with fake() as server:
        command = [sys.executable, "-c", code, "seal", "--socket", server.path]
        done = subprocess.run(command, input=MESSAGE, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert done.returncode == 75
    assert b"has gone" in done.stderr
    assert not server.ended


def test_service_that_belongs_to_somebody_else_is_named_with_what_to_set() -> None:
    if os.getuid() != 0:
        pytest.fail("only root can be somebody else for a while: run this as root")
    with fake() as server:
        Path(server.path).parent.chmod(0o755)
        Path(server.path).chmod(0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(DeliveryError, match=r"it does not belong to user 65534, .* set MAIL_USER"):
                lmtp.connect(server.path)
        finally:
            os.seteuid(0)


def test_dovecot_s_process_that_was_told_to_end_is_not_the_last(enrolled: Server) -> None:
    with fake() as server:
        server.hung_up = 1
        assert seal(enrolled, server.path) == (0, b"sealed", b"")
        assert server.ended
    with fake() as server:
        server.hung_up = 2
        code, said, complaint = seal(enrolled, server.path)
    assert (code, said, b"cannot deliver" in complaint) == (os.EX_TEMPFAIL, b"", True)


def test_message_of_an_owner_without_a_key_is_passed(server: Server) -> None:
    assert seal(server, "/nonexistent/lmtp") == (0, b"pass", b"")


def test_message_that_is_encrypted_already_is_passed(enrolled: Server) -> None:
    sealed = enrolled.filter(MESSAGE).stdout
    assert seal(enrolled, "/nonexistent/lmtp", sealed) == (0, b"pass", b"")


@pytest.mark.parametrize("name", ["SENDER", "RECIPIENT", "ORIG_RECIPIENT"])
def test_no_command_can_be_smuggled_in_by_the_envelope(name: str, enrolled: Server) -> None:
    with fake() as server:
        code, stdout, _ = seal(
            enrolled, server.path, environment=ENVELOPE | {name: "x@example.org>\r\nRCPT TO:<eve@example.org"}
        )
    assert (code, stdout) == (64, b"")
    assert not server.said


def test_only_the_fields_of_this_delivery_are_taken_off() -> None:
    assert sealing.without_trace(MESSAGE).startswith(b"Received: by us\r\nDelivered-To: list@example.net\r\n")
    assert sealing.without_trace(b"Return-Path: <a>\r\n folded\r\nSubject: s\r\n") == b"Subject: s\r\n"
    assert sealing.without_trace(b"Subject: s\r\n") == b"Subject: s\r\n"
    assert sealing.without_trace(b"") == b""
