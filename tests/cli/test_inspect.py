"""`cryptomail inspect`: what it says of each kind of message."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from sieve_filter.cli import inspect
from tests.support.messages import any_message
from tests.support.server import Command, Server, run

WITH_ATTACHMENT = (
    b"Subject: s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\ntext\r\n"
    b'--b\r\nContent-Type: application/pdf; name="a\x1b[31m.pdf"\r\nContent-Transfer-Encoding: base64\r\n'
    b'Content-Disposition: attachment; filename="a.pdf"\r\n\r\nAAAA\r\n--b--\r\n'
)


@pytest.fixture
def inspect_json(command: Command, tmp_path: Path) -> Callable[[bytes], Any]:
    """What the command says of a message."""

    def call(message: bytes) -> Any:
        file = tmp_path / "message.eml"
        file.write_bytes(message)
        done = command("inspect", "--json", str(file))
        assert (done.returncode, done.stderr) == (0, b"")
        return json.loads(done.stdout)

    return call


def test_plain_message_and_its_parts_and_attachments(inspect_json: Callable[[bytes], Any]) -> None:
    found = inspect_json(WITH_ATTACHMENT)
    assert (found["kind"], found["encrypted"]) == ("plain", False)
    assert found["verdict"].startswith("encrypt it, if its owner has a key")
    assert [part["content_type"] for part in found["parts"]] == ["multipart/mixed", "text/plain", "application/pdf"]
    assert [(one["file_name"], one["size"]) for one in found["attachments"]] == [("a.pdf", 3)]


def test_what_the_filter_encrypted_and_to_which_key(inspect_json: Callable[[bytes], Any], enrolled: Server) -> None:
    found = inspect_json(enrolled.filter(WITH_ATTACHMENT).stdout)
    assert (found["kind"], found["encrypted"], found["encrypted_at_delivery"]) == ("PGP/MIME", True, True)
    assert len(found["key_ids"][0]) == 16
    assert found["verdict"].startswith("leave it alone")


def test_claim_without_substance_is_called_that(inspect_json: Callable[[bytes], Any]) -> None:
    message = b"Content-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\n\r\nplain text\r\n--b--\r\n"
    found = inspect_json(message)
    assert (found["kind"], found["encrypted"]) == ("claims to be encrypted but is not", False)


def test_message_is_read_and_told_about_in_text() -> None:
    done = run("inspect", "-", data=WITH_ATTACHMENT)
    assert done.returncode == 0
    assert b"kind:         plain\n" in done.stdout
    assert b"attachment: application/pdf 3 octets 'a.pdf'" in done.stdout
    assert b"\x1b" not in done.stdout


def test_missing_file_is_one_clear_line(command: Command) -> None:
    done = command("inspect", "/nonexistent.eml")
    assert (done.returncode, done.stdout) == (74, b"")
    assert done.stderr == b"cryptomail: cannot read /nonexistent.eml: No such file or directory\n"


@settings(max_examples=150, deadline=None)
@given(any_message)
def test_any_bytes_can_be_inspected(raw: bytes) -> None:
    found = inspect.inspect(raw)
    json.loads(inspect.as_json(found))
    assert inspect.as_text(found).startswith("kind: ")


@pytest.mark.parametrize("count", [1_000, 100_000])
def test_hostile_structure_comes_back_within_seconds(count: int) -> None:
    part = b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    started = time.process_time()
    found = inspect.inspect(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * count)
    assert found.structure_error
    assert time.process_time() - started < 10
