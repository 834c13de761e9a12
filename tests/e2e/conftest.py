"""The labs, and people who have a mailbox in one."""

import itertools
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import pytest

from lab import client, debian13, dependencies, keys, server
from lab.client import Lab
from sieve_filter.delivery import restore
from tests.support.owners import Owner

RunningLab = Callable[[str], Lab]
NewPerson = Callable[..., "Person"]
_numbers = itertools.count(1)


@contextmanager
def lab_with_23(mode: str, packages: str | None = None) -> Iterator[Lab]:
    """`packages` is where what pip fetches is; empty: pip fetches it now."""
    if packages is None:
        packages = str(dependencies.fetched(server.REPOSITORY / "build"))
    directory = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    try:
        server.start(directory, mode, packages)
        try:
            yield Lab.load(directory)
        finally:
            server.stop(directory)
    finally:
        shutil.rmtree(directory)


DOVECOTS: dict[str, Callable[[str], AbstractContextManager[Lab]]] = {
    "dovecot23": lab_with_23,
    "dovecot24": debian13.lab,
}


# Their tests take long, and the program that they are about hardly knows which Dovecot it works with: where both are
# asked for, each runs with one, in turns. With CRYPTOMAIL_BOTH, with both.
_IN_TURNS = {
    "test_descriptors.py",
    "test_doctor_probe.py",
    "test_killed_workers.py",
    "test_mail_clients.py",
    "test_mailbox_audit.py",
    "test_mailbox_encrypt.py",
    "test_mailbox_over_imap.py",
    "test_mailbox_restore.py",
    "test_mailbox_storage.py",
    "test_saved_mail.py",
    "test_web.py",
    "test_web_browser.py",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out one of the two in turns."""
    here = Path(__file__).parent
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.path.parent == here and item.path.name in _IN_TURNS:
            tests.setdefault(re.sub(r"dovecot\d+", "", item.nodeid), []).append(item)
    pairs = [] if os.environ.get("CRYPTOMAIL_BOTH") else [pair for pair in tests.values() if len(pair) == len(DOVECOTS)]
    left_out = {pair[number % len(DOVECOTS)] for number, pair in enumerate(pairs)}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def labs() -> Iterator[Callable[[str, str], Lab]]:
    """The lab of that Dovecot and mode. Starting one takes seconds: it serves all tests, which leave it as it was."""
    with ExitStack() as stack:
        yield cache(lambda dovecot, mode: stack.enter_context(DOVECOTS[dovecot](mode)))


@pytest.fixture(scope="session", params=DOVECOTS)
def running_lab(labs: Callable[[str, str], Lab], request: pytest.FixtureRequest) -> RunningLab:
    """The lab of that mode, with each Dovecot."""
    return partial(labs, request.param)


@pytest.fixture(scope="session", params=["sealed", "filter"])
def lab(running_lab: RunningLab, request: pytest.FixtureRequest) -> Lab:
    """A Dovecot as `make install` leaves it, with sealing and without: the global script encrypts all mail."""
    return running_lab(request.param)


@pytest.fixture(scope="session")
def lab_sealed(running_lab: RunningLab) -> Lab:
    """A Dovecot as `make install` leaves it where one user owns all mail."""
    return running_lab("sealed")


@pytest.fixture(scope="session")
def lab_off(running_lab: RunningLab) -> Lab:
    """A Dovecot without the global script: nothing is encrypted but by users' own scripts."""
    return running_lab("off")


@pytest.fixture(scope="session")
def lab_users(running_lab: RunningLab) -> Lab:
    """A Dovecot as `make install` leaves it where each mailbox belongs to a system user: each test has its own."""
    return running_lab("users")


@pytest.fixture(scope="session")
def path(lab_sealed: Lab) -> str:
    """A PATH in which the command doveadm asks the lab's Dovecot."""
    directory = lab_sealed.directory / "bin-of-the-lab"
    directory.mkdir()
    configuration = lab_sealed.inside(lab_sealed.directory / "dovecot.conf")
    # Any name is a user's there, so Dovecot cannot list them.
    (directory / "doveadm").write_text(
        f"""#!/bin/sh
if [ "$1 $2" = "user *" ]; then exec cat {lab_sealed.inside(directory)}/users; fi
exec /usr/bin/doveadm -c {configuration} "$@"
"""
    )
    (directory / "doveadm").chmod(0o755)
    return f"{lab_sealed.inside(directory)}:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture
def users(lab_sealed: Lab) -> Path:
    """A file of all users, one a line."""
    return lab_sealed.directory / "bin-of-the-lab" / "users"


@pytest.fixture
def canary() -> str:
    """A word that occurs nowhere else; it stands for what must not be stored in clear."""
    return f"canary-{secrets.token_hex(12)}"


@dataclass(frozen=True)
class Person:
    """Somebody with a mailbox in a lab, and a GnuPG home of their own."""

    lab: Lab
    gpg: keys.Owner
    user: str = field(default_factory=lambda: f"user{next(_numbers)}")

    @property
    def address(self) -> str:
        return self.lab.address(self.user)

    def set_up_key(self, **options: str) -> str:
        """A new key, its public half on the server. Returns the fingerprint."""
        fingerprint = self.gpg.make_key(self.address, **options)
        self.give_key()
        return fingerprint

    def give_key(self) -> None:
        keys.give(self.lab, self.user, self.gpg.public(self.address))

    def received(self) -> list[bytes]:
        return self.lab.stored(self.user)

    def read(self, stored: bytes) -> bytes:
        """The message as it was before it was encrypted; as it is, if it was not."""
        opened = self.opened(stored)
        return stored if opened is None else opened

    def opened(self, stored: bytes) -> bytes | None:
        """What `cryptomail decrypt` finds in there. A process for each message would take longer than all else."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("GNUPGHOME", str(self.gpg.home))
            return restore.decrypt(stored)

    def ciphertext(self, text: bytes) -> bytes:
        """A PGP/MIME message (RFC 3156) to this person, as a mail client makes it."""
        options = ["--armor", "--trust-model", "always", "--encrypt", "-r", f"<{self.address}>"]
        armored = self.gpg.gpg(*options, data=text).replace(b"\n", b"\r\n")
        return b"\r\n".join(
            (
                b"From: sender@example.com",
                b"Subject: hello",
                b"MIME-Version: 1.0",
                b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=part',
                b"",
                b"--part",
                b"Content-Type: application/pgp-encrypted",
                b"",
                b"Version: 1",
                b"",
                b"--part",
                b"Content-Type: application/octet-stream",
                b"",
                armored + b"--part--",
                b"",
            )
        )


@pytest.fixture
def new_person(new_owner: Callable[[], keys.Owner]) -> NewPerson:
    return lambda lab: Person(lab, new_owner())


@pytest.fixture
def owner(lab_off: Lab, new_person: NewPerson, tmp_path: Path) -> Owner:
    """An owner on a server that encrypts nothing, and knows no key."""
    person = new_person(lab_off)
    person.gpg.make_key(person.address)
    made = Owner(person, tmp_path)
    made.key.write_bytes(person.gpg.gpg("--armor", "--export"))
    return made


def message(canary: str, *fields: str) -> bytes:
    """A message with these header fields too; its body holds the canary and bytes that are no text."""
    head = ["From: sender@example.com", "Subject: hello", *fields, "", ""]
    return "\r\n".join(head).encode() + f"{canary}\r\n.a line with a dot\r\n".encode() + b"8-bit: \xff\xfe\r\n"


def deliver(person: Person, sent: bytes, sender: str = "sender@example.com") -> int:
    """Deliver over LMTP. Returns the code of the answer."""
    [reply] = client.lmtp(person.lab, sent, [person.address], sender)
    return reply.code


def assert_encrypted_to(person: Person, stored: bytes, sent: bytes, canary: str) -> None:
    """Nothing of the body can be seen, and the owner reads every byte that was sent."""
    assert canary.encode() not in stored
    assert b"\nX-Cryptomail: encrypted-at-delivery\n" in stored
    assert person.read(stored).endswith(sent)


def assert_unchanged(stored: bytes, sent: bytes) -> None:
    """Dovecot's own fields on top, then the message as it was sent; a maildir has LF for CRLF."""
    assert stored.endswith(sent.replace(b"\r\n", b"\n"))


def assert_nowhere_in_clear(lab: Lab, canary: str) -> None:
    """No file of the lab holds the canary: no mailbox, no temporary file, no log."""
    assert files_with(lab, [canary.encode()]) == []


def files_with(lab: Lab, needles: Iterable[bytes]) -> list[Path]:
    """The files of the lab that hold one of these."""
    found = []
    for file in lab.directory.rglob("*"):
        with suppress(FileNotFoundError):  # Dovecot has removed it meanwhile
            if file.is_file() and not file.is_symlink() and any(needle in file.read_bytes() for needle in needles):
                found.append(file)
    return found
