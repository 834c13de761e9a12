"""Large messages pass through `cryptomail filter` in pieces: they cost time, but no memory."""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.mail import protection
from tests.support.filtered import MOST_KILOBYTES, armor_in, filter_and_measure
from tests.support.newer import NewerOwner
from tests.support.server import ALICE, Server
from tests.support.workers import running

HEADER = b"Subject: s\r\nMessage-ID: <1@example.com>\r\nContent-Type: text/plain\r\n\r\n"
MEGABYTES = 30
LARGE = HEADER + b"0123456789abcdef" * 65_536 * MEGABYTES


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_message_of_30_mb_is_encrypted_in_little_memory(
    compression: str, enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    enrolled.config.write_text(f'compression = "{compression}"\n')
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, LARGE, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert protection.restore(alice.gpg("--decrypt", data=armor_in(stored))) == LARGE


@pytest.mark.parametrize("kind", ["version 6", "version 4, ML-KEM"])
def test_message_of_30_mb_to_a_key_that_gnupg_cannot_read_takes_little_memory_too(
    kind: str, server: Server, tmp_path: Path
) -> None:
    owner = NewerOwner(kind)
    (server.home / ".cryptomail").mkdir(mode=0o700)
    (server.home / ".cryptomail" / "certificates.pgp").write_bytes(owner.public)
    code, stored, complaint, kilobytes = filter_and_measure(server, LARGE, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert owner.read(stored) == LARGE


def test_message_of_30_mb_is_unchanged_where_the_owner_has_no_key(server: Server, tmp_path: Path) -> None:
    code, stored, complaint, kilobytes = filter_and_measure(server, LARGE, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert stored == LARGE


@pytest.mark.parametrize("eol", [b"\r\n", b"\n"])
def test_message_of_30_mb_that_is_encrypted_already_is_unchanged(eol: bytes, enrolled: Server, tmp_path: Path) -> None:
    _, once, _, _ = filter_and_measure(enrolled, LARGE, tmp_path)
    once = once.replace(b"\r\n", eol)
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, once, tmp_path)
    assert (code, complaint) == (0, "")
    assert stored == once
    assert kilobytes < MOST_KILOBYTES


def test_message_of_30_mb_that_only_claims_to_be_encrypted_is_encrypted_in_little_memory(
    enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    _, once, _, _ = filter_and_measure(enrolled, LARGE, tmp_path)
    claiming = once + b"This can be read.\r\n"
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, claiming, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert protection.restore(alice.gpg("--decrypt", data=armor_in(stored))) == claiming


def test_message_of_30_mb_of_another_encrypted_form_is_unchanged(enrolled: Server, tmp_path: Path) -> None:
    """It is taken into memory as a whole."""
    _, once, _, _ = filter_and_measure(enrolled, LARGE, tmp_path)
    message = b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(armor_in(once))
    assert filter_and_measure(enrolled, message, tmp_path)[:3] == (0, message, "")


def test_message_above_the_limit_that_may_be_encrypted_is_not_taken_in(enrolled: Server, tmp_path: Path) -> None:
    _, once, _, _ = filter_and_measure(enrolled, LARGE, tmp_path)
    enrolled.config.write_text("size_limit = 5_000_000\n")
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, once, tmp_path)
    assert (code, stored) == (75, b"")
    assert "<1@example.com>" in complaint
    assert kilobytes < MOST_KILOBYTES


@pytest.mark.parametrize("limit", [1_000, 1_000_000, 5_000_000])
def test_message_above_the_limit_is_refused(limit: int, enrolled: Server, tmp_path: Path) -> None:
    enrolled.config.write_text(f"size_limit = {limit}\n")
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, LARGE, tmp_path)
    assert (code, stored) == (75, b"")
    assert f"size_limit, {limit}" in complaint
    assert "<1@example.com>" in complaint
    assert complaint.count("\n") == 1
    assert kilobytes < MOST_KILOBYTES


@pytest.mark.parametrize("limit", [1_000, 1_000_000, 5_000_000])
def test_message_above_the_limit_passes_where_the_administrator_says_so(
    limit: int, enrolled: Server, tmp_path: Path
) -> None:
    enrolled.config.write_text(f'size_limit = {limit}\n[on]\ntoo_large = "store-plain"\n')
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, LARGE, tmp_path)
    assert (code, complaint) == (0, "")
    assert stored == LARGE
    assert kilobytes < MOST_KILOBYTES


@pytest.mark.parametrize("decision", ["refuse", "store-plain"])
@pytest.mark.parametrize("size", [1_000, 1_999_990, 2_000_010, 5_000_000])
def test_limit_is_counted_to_the_octet(size: int, decision: str, enrolled: Server, alice: Owner) -> None:
    message = HEADER + b"x" * (size - len(HEADER))
    enrolled.config.write_text(f'size_limit = {size}\n[on]\ntoo_large = "{decision}"\n')
    done = enrolled.filter(message)
    assert done.returncode == 0
    assert protection.restore(alice.gpg("--decrypt", data=armor_in(done.stdout))) == message
    done = enrolled.filter(message + b"x")
    expected = (75, b"") if decision == "refuse" else (0, message + b"x")
    assert (done.returncode, done.stdout) == expected


def test_disk_that_is_full_is_a_temporary_failure(enrolled: Server, tmp_path: Path) -> None:
    """What the kernel says of a file that may not grow is what it says of a disk that is full, but for the words."""
    program = f"ulimit -f 1000; exec {sys.executable} -m sieve_filter filter"
    environment = {"USER": ALICE, "HOME": str(enrolled.home), "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)}
    done = subprocess.run(["sh", "-c", program], input=LARGE, capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"cannot be kept" in done.stderr
    assert done.stderr.count(b"\n") == 1


HEADERS = {
    "short fields": b"a:\r\n",
    "empty lines of one field": b"a:\r\n" + b" \r\n" * 50_000,
    "bare CR": b"a:\r",
    "HP-Outer": b"HP-Outer:\n",
    "Content-Type": b"Content-Type: a/b\n",
    "recipients": b"To:a@b\n",
    "lines that are no fields": b"x\n",
    "spaces before the colon": b"a :\n",
    "a very long line": b"X-A: " + b"x" * 40_000_000 + b"\r\n",
}


@pytest.mark.parametrize("megabytes", [2, 4, 36])
@pytest.mark.parametrize("name", HEADERS)
def test_header_section_takes_little_memory_and_time(
    name: str, megabytes: int, enrolled: Server, tmp_path: Path, alice: Owner
) -> None:
    size = megabytes * 1_000_000 - 100
    header = b"Subject: s\r\n" + (HEADERS[name] * (size // len(HEADERS[name]) + 1))[:size]
    message = header + b"\r\nTo: b@example.org\r\n\r\ntext\r\n"
    started = time.monotonic()
    code, stored, complaint, kilobytes = filter_and_measure(enrolled, message, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert time.monotonic() - started < 10
    assert stored.startswith(b"Subject: s\r\n")
    assert protection.restore(alice.gpg("--decrypt", data=armor_in(stored))) == message


def test_header_sections_leave_a_worker_no_larger(enrolled: Server, tmp_path: Path) -> None:
    with running(enrolled, tmp_path, processes=1) as worker:
        for unit in HEADERS.values():
            message = b"Subject: s\n" + (unit * (36_000_000 // len(unit) + 1))[:36_000_000] + b"\n\ntext\n"
            assert worker.filter(message).endswith(b"+\n")
        for child in worker.children:
            peak = Path(f"/proc/{child}/status").read_text().partition("VmHWM:")[2].split()[0]
            assert int(peak) < MOST_KILOBYTES
