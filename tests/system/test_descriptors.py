"""What the programs that are started get hold of: nothing but their standard input, output and error.

Each kind of process here is started with a listening socket and a pipe, as Dovecot's are.
"""

import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.keys import Owner
from tests.support.descriptors import Recorder
from tests.support.enrolment import letter
from tests.support.lmtp import ENVELOPE, MESSAGE, fake
from tests.support.server import ALICE, Outbox, Server
from tests.support.workers import CLIENT, head
from tests.support.x509 import Card, card, maker

__all__ = ["card", "maker"]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A gpg and an openssl, with the true ones behind them, where every user can reach them."""
    with TemporaryDirectory(prefix="descriptors-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Recorder(Path(directory, "programs"), gpg="/usr/bin/gpg", openssl="/usr/bin/openssl")


@contextmanager
def passed_on() -> Iterator[list[int]]:
    """A listening socket and a pipe, to be inherited."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # a name that nobody else has (unix(7))
        listener.listen()
        reader, writer = os.pipe()
        try:
            yield [listener.fileno(), reader, writer]
        finally:
            os.close(reader)
            os.close(writer)


def started(
    recorder: Recorder, function: str, *arguments: str, data: bytes = b"", environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[bytes]":
    """Call one of our programs' functions in a process that inherits what should go no further."""
    name, _, arguments_of_it = function.partition("(")
    module, _, name = name.rpartition(".")
    code = f"import sys; from sieve_filter.{module} import {name}; sys.exit({name}({arguments_of_it})"
    named = {"PATH": f"{recorder.directory}:/usr/bin:/bin"} | dict(environment)
    with passed_on() as descriptors:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, input=data, capture_output=True, env=named, pass_fds=descriptors, timeout=60, check=True
        )


def all_got_nothing(recorder: Recorder, user: int = os.getuid()) -> bool:
    lines = recorder.take()
    return bool(lines) and all(line.endswith(f" of user {user}: nothing") for line in lines)


def test_openssl_of_an_executed_program_gets_nothing(server: Server, recorder: Recorder, card: Card) -> None:
    (server.home / ".cryptomail").mkdir(mode=0o700)
    (server.home / ".cryptomail/smime.pem").write_bytes(card.pem)
    owner = {"USER": ALICE, "HOME": str(server.home)} | ENVELOPE
    function = f"programs.extprograms.filter_main({str(server.config)!r})"
    done = started(recorder, function, data=MESSAGE, environment=owner)
    assert card.decrypt(done.stdout) == MESSAGE
    assert all_got_nothing(recorder)


def test_gpg_of_an_executed_program_gets_nothing(enrolled: Server, recorder: Recorder) -> None:
    enrolled.config.write_text('engine = "gnupg"\n')
    owner = {"USER": ALICE, "HOME": str(enrolled.home)} | ENVELOPE
    function = f"programs.extprograms.filter_main({str(enrolled.config)!r})"
    assert b"multipart/encrypted" in started(recorder, function, data=MESSAGE, environment=owner).stdout
    assert all_got_nothing(recorder)
    with fake() as lmtp:
        function = f"programs.extprograms.execute_main({str(enrolled.config)!r}, {lmtp.path!r})"
        assert started(recorder, function, "seal", data=MESSAGE, environment=owner).stdout == b"sealed"
    assert all_got_nothing(recorder)


def test_gpg_and_sendmail_of_a_key_that_is_saved_over_imap_get_nothing(
    server: Server, alice: Owner, recorder: Recorder, outbox: Outbox
) -> None:
    sendmail = Recorder(recorder.directory.with_name("mail"), sendmail=str(outbox.program))
    function = f"programs.imapsieve.enroll_main('/nonexistent', '', '{sendmail.directory}/sendmail', 'OpenPGP')"
    started(recorder, function, data=letter(alice), environment={"USER": ALICE, "HOME": str(server.home)})
    assert all_got_nothing(recorder)
    assert all_got_nothing(sendmail)


def test_gpg_that_vets_keys_gets_nothing(server: Server, alice: Owner, recorder: Recorder) -> None:
    """Root imports the keys of an owner who is another system user."""
    user = pwd.getpwnam("games")
    with TemporaryDirectory(prefix="home-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        home = Path(directory, "alice")
        home.mkdir()
        os.chown(home, user.pw_uid, user.pw_gid)
        arguments = ["keys", "import", "--user", ALICE, "--home", str(home), "--no-notify", "-"]
        function = "cli.main.main('/nonexistent', sendmail_path='')"
        started(recorder, function, *arguments, data=alice.public(ALICE), environment={})
        lines = recorder.take()
        assert lines
        assert [line for line in lines if not line.endswith(": nothing")] == []
        started(recorder, function, "keys", "check", "--user", ALICE, "--home", str(home), environment={})
        assert all_got_nothing(recorder, user.pw_uid)


def test_gpg_of_a_worker_gets_nothing_whoever_asks(alice: Owner, recorder: Recorder) -> None:
    """Not the listening socket, which systemd and Dovecot pass on, either as root or as the user who asks."""
    with TemporaryDirectory(prefix="worker-", dir="/tmp") as directory:
        place = Path(directory)
        place.chmod(0o755)
        homes = {}
        for name in ("root", "games"):
            homes[name] = Server(place / name)
            homes[name].home.mkdir()
            homes[name].give(alice.public(ALICE))
            for file in (homes[name].home, *homes[name].home.rglob("*")):
                os.chown(file, pwd.getpwnam(name).pw_uid, -1)
        config = place / "config.toml"
        config.write_text('engine = "gnupg"\n')
        path = str(place / "socket")
        with socket.socket(socket.AF_UNIX) as listener, passed_on() as descriptors:
            listener.bind(path)
            listener.listen()
            Path(path).chmod(0o666)
            code = f"import sys; from sieve_filter.cli.main import main; sys.exit(main({str(config)!r}))"
            worker = subprocess.Popen(
                [sys.executable, "-c", code, "worker", "--processes", "1"],
                env={"PATH": f"{recorder.directory}:/usr/bin:/bin"},
                pass_fds=[listener.fileno(), *descriptors[1:]],
            )
            try:
                for name, server in homes.items():
                    request = head({b"USER": ALICE.encode(), b"HOME": os.fsencode(server.home)}) + MESSAGE
                    asked = subprocess.run(
                        ["/usr/bin/python3", "-I", "-c", CLIENT, path],
                        input=request,
                        stdout=subprocess.PIPE,
                        user=name,
                        extra_groups=[],
                        check=True,
                    )
                    assert asked.stdout.endswith(b"+\n")
                    assert all_got_nothing(recorder, pwd.getpwnam(name).pw_uid)
            finally:
                worker.terminate()
                worker.wait(20)
