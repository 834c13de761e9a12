"""`make install` over an installation that delivers: it goes on, encrypted, whatever becomes of the upgrade."""

import os
import re
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from lab import debian13, dependencies, keys, server
from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, NewPerson, assert_encrypted_to, assert_nowhere_in_clear, deliver, message
from tests.faults.table import LONG

INTERVAL_SECONDS = 0.05
SHUTTING_DOWN = 421
TEMPORARY_FAILURE = 451
KILLED_AFTER = (0.2, 0.6, 0.95)  # of the time that a whole one takes


@pytest.fixture(scope="module", params=DOVECOTS if LONG in os.environ else ["dovecot23"], ids="own {}".format)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One of its own, because these tests install anew in it. The short version installs for Dovecot 2.3 only."""
    with DOVECOTS[request.param]("sealed") as running:
        yield running


def upgrade(
    lab: Lab, environment: Mapping[str, str] | None = None, limits: Callable[[], None] | None = None
) -> "subprocess.Popen[bytes]":
    """Start `make install` once more, in the lab's place, in a process group of its own."""
    directory = Path(lab.inside(lab.directory))
    variables = ["MAIL_USER=nobody", "SEALING=yes"]
    command = [*server.install_command(directory), *variables]
    if lab.root != Path("/"):
        command = lab.command("env", f"--chdir={directory.parent}/repository", *command)
    return subprocess.Popen(
        command,
        cwd=server.REPOSITORY,
        env={**os.environ, "DEPENDENCIES": _dependencies(lab), **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=limits,
        start_new_session=True,
    )


def _dependencies(lab: Lab) -> str:
    if lab.root != Path("/"):
        return debian13.environment()["DEPENDENCIES"]
    return str(dependencies.fetched(server.REPOSITORY / "build"))


def reload(lab: Lab) -> None:
    """Have Dovecot use what was installed."""
    command = lab.command("doveadm", "-c", lab.inside(lab.directory / "dovecot.conf"), "reload")
    subprocess.run(command, check=True)


def assert_delivers_encrypted(lab: Lab, new_person: NewPerson, canary: str) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    assert deliver(person, sent) == 250
    assert_encrypted_to(person, person.received()[0], sent, canary)


def only_small_files() -> None:
    """Every write beyond that is an error, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


@pytest.mark.parametrize(
    ("environment", "limits"),
    [({"DEPENDENCIES": "", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/nowhere"}, None), ({}, only_small_files)],
    ids=["without a network", "disk full"],
)
def test_an_upgrade_that_fails_leaves_the_old_one_delivering(
    lab: Lab,
    new_person: NewPerson,
    canary: str,
    environment: Mapping[str, str],
    limits: Callable[[], None] | None,
) -> None:
    assert upgrade(lab, environment, limits).wait() != 0
    assert_delivers_encrypted(lab, new_person, canary)
    reload(lab)
    assert_delivers_encrypted(lab, new_person, canary)


def test_an_upgrade_that_is_killed_at_any_time_leaves_the_old_one_or_the_new_one_delivering(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    started = time.monotonic()
    assert upgrade(lab).wait() == 0
    seconds = time.monotonic() - started
    for part in KILLED_AFTER:
        running = upgrade(lab)
        time.sleep(part * seconds)
        os.killpg(running.pid, 9)
        running.wait()
        assert_delivers_encrypted(lab, new_person, canary)
    reload(lab)
    assert_delivers_encrypted(lab, new_person, canary)


def test_an_upgrade_under_load_refuses_nothing_and_stores_nothing_in_clear(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    person = new_person(lab)
    person.set_up_key()
    sent = message(canary)
    answers: list[int] = []
    reloads: list[int] = []
    over = threading.Event()

    def deliver_all_the_time() -> None:
        while not over.wait(INTERVAL_SECONDS):
            try:
                code = deliver(person, sent)
            except (OSError, ValueError):  # a connection that an old process takes just before it ends is closed
                code = SHUTTING_DOWN
            # What Dovecot 2.4 says at any reload; it may have stored the message, which the sender sends again then.
            (reloads if code == SHUTTING_DOWN else answers).append(code)

    sender = threading.Thread(target=deliver_all_the_time)
    sender.start()
    try:
        for _ in range(2):  # the second one takes away what the first one has replaced
            assert upgrade(lab).wait() == 0
            time.sleep(1)
            reload(lab)
            time.sleep(2)
    finally:
        over.set()
        sender.join()
    assert set(answers) == {250}
    received = person.received()
    assert len(answers) <= len(received) <= len(answers) + len(reloads)
    assert_nowhere_in_clear(lab, canary)
    for stored in (received[0], received[-1]):
        assert_encrypted_to(person, stored, sent, canary)
    # The one that delivers now, the one before, from which processes that have not ended yet may still load, and the
    # first, in which the owners' page runs.
    assert len(list((lab.directory / "usr/lib/cryptomail").glob("venv*"))) == 3


def test_an_upgrade_turns_encryption_off_for_nobody_whose_key_has_to_be_settled_now(
    lab: Lab, new_person: NewPerson, canary: str
) -> None:
    """A version before this one took any key in ~/.gnupg with the owner's address, and kept no register."""
    person = new_person(lab)
    person.gpg.make_key(person.address)
    keys.give(lab, person.user, person.gpg.public(person.address), ".gnupg")
    gnupg = lab.home(person.user) / ".gnupg"
    (gnupg / "trustdb.gpg").unlink()
    program = lab.directory / "usr/bin/cryptomail"
    program.write_text(re.sub(', register="[^"]*"', "", program.read_text()))
    shutil.rmtree(lab.directory / "var/lib/cryptomail/enrolled")
    programs = lab.directory / "doveadm"
    programs.mkdir()
    doveadm = f"#!/bin/sh\nif [ \"$2\" = '*' ]; then echo {person.user}; else echo {lab.inside(gnupg.parent)}; fi\n"
    (programs / "doveadm").write_text(doveadm)  # the lab's userdb cannot list its users
    (programs / "doveadm").chmod(0o755)
    assert upgrade(lab, {"PATH": f"{lab.inside(programs)}:/usr/sbin:/usr/bin:/bin"}).wait() == 0
    reload(lab)
    time.sleep(1)  # a connection that an old process takes just before it ends is reset
    assert deliver(person, message(canary)) == TEMPORARY_FAILURE
    keys.trust(gnupg)
    for file in gnupg.iterdir():
        os.chown(file, gnupg.stat().st_uid, gnupg.stat().st_gid)
    assert deliver(person, message(canary)) == 250
    assert_nowhere_in_clear(lab, canary)
