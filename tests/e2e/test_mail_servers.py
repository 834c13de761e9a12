"""Mail that comes through a real Postfix and a real Exim, which are set up as the documents say."""

import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.client import Lab
from lab.server import MAIL_USER, REPOSITORY
from tests.e2e.conftest import NewPerson, Person, assert_encrypted_to, assert_nowhere_in_clear, message
from tests.support import mta

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a mail server beside the machine's own")
# With these, a mail server adds nothing below its own line on top.
COMPLETE = ("Date: Mon, 01 Jun 2026 12:00:00 +0000", "Message-ID: <1@example.com>")
README = (REPOSITORY / "README.md").read_text()


def written(begin: str) -> str:
    """The lines that the README gives, from the one that begins so to the end of that block."""
    found = re.search(rf"^ {{4}}{re.escape(begin)}.*\n(?: {{4}}.*\n)*", README, re.MULTILINE)
    assert found is not None
    return re.sub(r"(?m)^ {4}", "", found[0])


@pytest.fixture
def work(lab_sealed: Lab) -> Iterator[Path]:
    """A directory that Dovecot's processes know too."""
    with tempfile.TemporaryDirectory(prefix="mta-", dir=lab_sealed.root / "tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def listener(lab: Lab, lines: str) -> Iterator[None]:
    """Dovecot with these lines in its configuration too."""
    file = lab.directory / "etc/dovecot/conf.d/50-postfix.conf"
    reload = lab.command("doveadm", "-c", lab.inside(lab.directory / "dovecot.conf"), "reload")
    try:
        file.write_text(lines)
        subprocess.run(reload, check=True)
        yield
    finally:
        file.unlink()
        subprocess.run(reload, check=True)


def wait_for_mail(person: Person) -> bytes:
    deadline = time.monotonic() + mta.SECONDS
    while not (stored := person.received()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return stored[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("setting", "domains"),
    [("mailbox_transport", "mydestination"), ("virtual_transport", "virtual_mailbox_domains")],
)
def test_mail_that_postfix_delivers_as_the_readme_says_is_stored_encrypted(
    lab_sealed: Lab, new_person: NewPerson, canary: str, work: Path, setting: str, domains: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    sent = message(canary, *COMPLETE)
    # Postfix is no user of the machine here, and its queue has another place.
    lines = written("service lmtp {").replace("/var/spool/postfix", lab_sealed.inside(work / "spool"))
    lines = re.sub(r"user = postfix\b", f"user = {mta.USER}", lines)
    (transport,) = (line for line in written("mailbox_transport").splitlines() if line.startswith(setting))
    port = free_port()
    lines_of_postfix = f"{transport}\n{domains} = {lab_sealed.domain}"
    with mta.postfix(work, lines_of_postfix, port, person.user), listener(lab_sealed, lines):
        mta.send(port, sent, person.address)
        stored = wait_for_mail(person)
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(lab_sealed, canary)


def test_mail_that_exim_delivers_as_the_readme_says_is_stored_encrypted(
    lab_sealed: Lab, new_person: NewPerson, canary: str, work: Path
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    sent = message(canary, *COMPLETE)
    transport = written("dovecot_lmtp:").replace("/run/dovecot", str(lab_sealed.directory / "run"))
    mta.exim(work, transport, sent, person.address)
    (stored,) = person.received()
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(lab_sealed, canary)


def test_mail_that_postfix_pipes_to_dovecot_lda_is_stored_encrypted(
    labs: Callable[[str, str], Lab], new_person: NewPerson, canary: str
) -> None:
    lab = labs("dovecot23", "sealed")
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary, *COMPLETE)
    texts = ((REPOSITORY / "contrib/postfix" / name).read_text() for name in ("master.cf", "dovecot-lda.conf"))
    service, settings = (re.sub(r"(user ?= ?)vmail", rf"\g<1>{MAIL_USER}", text) for text in texts)
    service = service.replace("/dovecot-lda -f", f"/dovecot-lda -c {lab.directory}/dovecot.conf -f")
    lab.log.chmod(0o666)  # Debian's Dovecot writes to syslog
    lines = "virtual_transport = dovecot-lda\ndovecot-lda_destination_recipient_limit = 1\n"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mta-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        lines += f"virtual_mailbox_domains = {lab.domain}"
        with mta.postfix(Path(name), lines, port, person.user, service), listener(lab, settings):
            mta.send(port, sent, person.address)
            stored = wait_for_mail(person)
    assert_encrypted_to(person, stored, sent, canary)
    assert_nowhere_in_clear(lab, canary)
