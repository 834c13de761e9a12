"""How often gpg is run for one change of an owner's keys: each run costs a mail server as much as a small message."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.keys import Owner
from tests.support.enrolment import letter, program
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.server import ALICE, Outbox, Server
from tests.support.site import Site, said


class Runs:
    """A PATH with a gpg that notes each run, and what was run since it was asked last."""

    def __init__(self, site: Site) -> None:
        self._noted = site.for_everybody("runs")
        self.path = site.another_gpg(f'echo "$@" >> {self._noted}; exec /usr/bin/gpg "$@"')

    def take(self) -> list[str]:
        runs = self._noted.read_text().splitlines()
        self._noted.write_text("")
        return runs


@pytest.fixture
def runs(site: Site) -> Runs:
    return Runs(site)


@pytest.fixture
def second(new_owner: Callable[[], Owner]) -> Owner:
    """Alice, with another key."""
    owner = new_owner()
    owner.make_key(ALICE)
    return owner


@pytest.mark.parametrize(
    ("way", "first", "another", "removal"),
    [("a test message goes in clear", 3, 6, 4), ("a test message is encrypted here", 4, 7, 4)],
)
def test_saving_a_key_over_imap_costs_few_runs_of_gpg(
    server: Server,
    alice: Owner,
    second: Owner,
    outbox: Outbox,
    runs: Runs,
    way: str,
    first: int,
    another: int,
    removal: int,
) -> None:
    sendmail: Path | str = outbox.program if "in clear" in way else ""

    def save(message: bytes) -> tuple[bytes, list[str]]:
        done = program(server, message, sendmail=sendmail, more={"PATH": runs.path})
        assert done.returncode == 0
        return done.stdout, runs.take()

    answer, ran = save(letter(alice))
    assert b"is set up" in answer
    assert len(ran) <= first, ran
    answer, ran = save(letter(second))
    assert b"is set up" in answer
    assert len(ran) <= another, ran
    answer, ran = save(f"Subject: remove {fingerprint_of(second)}\r\n\r\n".encode())
    assert b"was removed" in answer
    assert len(ran) <= removal, ran
    if sendmail:
        [_, (_, added), _, (_, gone)] = outbox.take()
        assert b"is encrypted to this key too" in decrypt(added, alice)
        assert b"was just taken away" in decrypt(gone, second)


def test_message_costs_one_run_of_gpg_where_nobody_has_seen_the_key(server: Server, alice: Owner, runs: Runs) -> None:
    """The executed filter reads the key itself; GnuPG verifies it as it encrypts."""
    server.give(alice.public(ALICE))
    done = server.filter(MESSAGE, environment={"PATH": runs.path})
    assert decrypt(done.stdout, alice) == MESSAGE
    (ran,) = runs.take()
    assert "--encrypt" in ran


@pytest.mark.parametrize(
    ("told", "first", "another", "removal"),
    [(False, 2, 3, 3), (True, 3, 6, 3)],
    ids=["owners are not told", "owners are told"],
)
def test_importing_and_removing_a_key_costs_few_runs_of_gpg(
    site: Site,
    alice: Owner,
    second: Owner,
    outbox: Outbox,
    runs: Runs,
    told: bool,
    first: int,
    another: int,
    removal: int,
) -> None:
    post = ("--sendmail", str(outbox.program))
    named = ("--user", ALICE, *(post if told else ("--no-notify",)))
    assert "1 imported" in said(site.keys("import", *named, "-", data=alice.public(ALICE), path=runs.path))
    assert len(ran := runs.take()) <= first, ran
    assert "1 imported" in said(site.keys("import", *named, "-", data=second.public(ALICE), path=runs.path))
    assert len(ran := runs.take()) <= another, ran
    assert "1 unchanged" in said(site.keys("import", *named, "-", data=second.public(ALICE), path=runs.path))
    assert len(ran := runs.take()) <= first, ran
    gone = fingerprint_of(second)
    assert "1 left" in said(site.keys("remove", "--user", ALICE, *post, gone, path=runs.path))
    assert len(ran := runs.take()) <= removal, ran
