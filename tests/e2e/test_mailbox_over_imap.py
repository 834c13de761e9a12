"""Owners encrypt their own mailbox from anywhere, over connections that break."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person, files_with, message
from tests.support import mailboxes
from tests.support.mailboxes import contents, fill, folders, mailbox, messages, running, save, wait_until_nobody_works

OK, LEFT = 0, 76
_UNAVAILABLE = 69


class Owner:
    """Somebody at their own machine, with a password in a file, and their key in another."""

    def __init__(self, person: Person, directory: Path) -> None:
        self.person = person
        self.port = person.lab.imap[1]
        self._directory = directory
        self.password = directory / "password"
        self.password.write_text(person.lab.password + "\n")
        self.key = directory / "key.asc"

    def start(self, action: str, *arguments: str) -> "subprocess.Popen[str]":
        code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
        url = f"imap://{quote(self.person.address, safe='')}@127.0.0.1:{self.port}"
        command = [sys.executable, "-c", code, "mailbox", action, "--imap", url]
        command += ["--password-file", str(self.password), *arguments]
        environment = {"XDG_STATE_HOME": str(self._directory / "state"), "PATH": os.environ["PATH"]}
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
        )

    def run(self, action: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(action, *arguments)
        said, complained = process.communicate(timeout=300)
        return process.returncode, said, complained

    def encrypt(self, *arguments: str) -> tuple[int, str, str]:
        return self.run("encrypt", "--key-file", str(self.key), *arguments)


@pytest.fixture
def owner(lab_off: Lab, new_person: NewPerson, tmp_path: Path) -> Owner:
    """An owner on a server that encrypts nothing, and knows no key."""
    person = new_person(lab_off)
    person.gpg.make_key(person.address)
    made = Owner(person, tmp_path)
    made.key.write_bytes(person.gpg.gpg("--armor", "--export"))
    return made


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


@contextlib.contextmanager
def breaking(port: int, chance: random.Random, octets: int) -> Iterator[int]:
    """A way to the server on which each connection breaks after some octets, in either direction. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pass_on(source: socket.socket, target: socket.socket, left: int) -> None:
            with contextlib.suppress(OSError):
                while left > 0 and (piece := source.recv(min(left, 10_000))):
                    target.sendall(piece)
                    left -= len(piece)
            for one in (source, target):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    with near, socket.create_connection(("127.0.0.1", port)) as far:
                        ways = [(near, far), (far, near)]
                        threads = [
                            threading.Thread(target=pass_on, args=(*way, chance.randrange(500, octets))) for way in ways
                        ]
                        for thread in threads:
                            thread.start()
                        for thread in threads:
                            thread.join()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        server.join(10)


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


@contextlib.contextmanager
def through(port: int, at: int) -> Iterator[None]:
    """The same way, and nothing breaks any more."""
    program = (
        "import socket, sys, threading\n"
        "def go(a, b):\n"
        "    while piece := a.recv(65536):\n"
        "        b.sendall(piece)\n"
        "    b.shutdown(socket.SHUT_WR)\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "print(flush=True)\n"
        "near, _ = listener.accept()\n"
        "far = socket.create_connection(('127.0.0.1', int(sys.argv[2])))\n"
        "threading.Thread(target=go, args=(near, far), daemon=True).start()\n"
        "go(far, near)\n"
    )
    command = [sys.executable, "-c", program, str(at), str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


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
