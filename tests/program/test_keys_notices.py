"""What owners are told about their keys: by `keys test --send`, `keys remove` and `keys check --notify`."""

import os
import re
from collections.abc import Callable

import pytest

from lab.keys import Owner
from sieve_filter import reminder
from tests.program.conftest import ALICE, Outbox
from tests.program.test_filter import decrypt, fingerprint_of
from tests.program.test_keys import BOB, NOBODY, Site, bob, said, site

__all__ = ["bob", "site"]

DAY = 86_400


def test_a_test_message_is_sent_on_demand(site: Site, alice: Owner, outbox: Outbox) -> None:
    site.enrol(alice.public(ALICE))
    done = site.keys("test", "--user", ALICE, "--send", "--sendmail", str(outbox.program))
    assert done.returncode == 0
    [(arguments, sent)] = outbox.take()
    assert arguments.endswith(f" {ALICE}")
    assert b"If you can read this" in decrypt(sent, alice)


def test_without_a_key_or_a_way_there_is_no_test_message(site: Site, alice: Owner, outbox: Outbox) -> None:
    assert site.keys("test", "--user", ALICE, "--send", "--sendmail", str(outbox.program)).returncode == 75
    site.enrol(alice.public(ALICE))
    done = site.keys("test", "--user", ALICE, "--send", "--socket", "", "--sendmail", "")
    assert done.returncode == 75
    assert "there is neither the service lmtp-sealed nor a sendmail program" in said(done)


def test_who_loses_a_key_is_told_encrypted_to_it(site: Site, alice: Owner, outbox: Outbox) -> None:
    site.enrol(alice.public(ALICE))
    fingerprint = fingerprint_of(alice)
    assert site.keys("remove", "--user", ALICE, fingerprint, "--sendmail", str(outbox.program)).returncode == 0
    [(_, sent)] = outbox.take()
    assert b"taken away" not in sent
    assert b"This key of yours was just taken away" in decrypt(sent, alice)


def test_owners_of_keys_that_expire_soon_are_told_once(
    site: Site, new_owner: Callable[[], Owner], bob: Owner, outbox: Outbox
) -> None:
    if os.geteuid() == 0:
        os.chown(site.home(ALICE), NOBODY, NOBODY)
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="20d")
    site.enrol(owner.public(ALICE))
    site.enrol(bob.public(BOB), BOB)
    notify = ("check", "--all", "--notify", "--sendmail", str(outbox.program))
    for _ in range(3):
        assert site.keys(*notify).returncode == 1
    [(arguments, sent)] = outbox.take()
    assert arguments.endswith(f" {ALICE}")
    assert re.search(rb"\nSubject: Your OpenPGP key expires in (19|20) days\n", sent)
    record = site.home(ALICE) / ".cryptomail" / reminder.FILE
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.stat().st_uid == site.home(ALICE).stat().st_uid

    owner.gpg("--quick-set-expire", fingerprint, "5d")
    owner.gpg("--quick-set-expire", fingerprint, "5d", "*")
    site.enrol(owner.public(ALICE))
    site.keys(*notify)
    site.keys(*notify)
    assert [bool(re.search(rb"expires in [45] days", sent)) for _, sent in outbox.take()] == [True]


def test_who_could_not_be_told_is_told_later(site: Site, new_owner: Callable[[], Owner], outbox: Outbox) -> None:
    owner = new_owner()
    owner.make_key(ALICE, expires="20d")
    site.enrol(owner.public(ALICE))
    done = site.keys("check", "--user", ALICE, "--notify", "--sendmail", "/bin/false")
    assert f"{ALICE} was not told that key" in said(done)
    assert done.returncode == 1
    site.keys("check", "--user", ALICE, "--notify", "--sendmail", str(outbox.program))
    assert len(outbox.take()) == 1


def test_a_link_in_the_place_of_the_record_is_not_followed(
    site: Site, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    owner = new_owner()
    owner.make_key(ALICE, expires="20d")
    site.enrol(owner.public(ALICE))
    (site.home(ALICE) / ".cryptomail" / reminder.FILE).symlink_to(site.directory / "elsewhere")
    done = site.keys("check", "--user", ALICE, "--notify", "--sendmail", str(outbox.program))
    assert "cannot use" in said(done)
    assert not (site.directory / "elsewhere").exists()
    assert outbox.take() == []


@pytest.mark.parametrize(
    ("left", "told", "due"),
    [
        (31 * DAY, (), None),
        (30 * DAY, (), 30),
        (29 * DAY, (30,), None),
        (7 * DAY, (30,), 7),
        (7 * DAY, (), 7),
        (6 * DAY, (30, 7), None),
        (DAY, (30, 7), 1),
        (DAY // 2, (30, 7, 1), None),
        (20 * DAY, (7,), None),  # the clock went back
        (0, (), None),
        (-DAY, (), None),
    ],
)
def test_owners_are_told_thirty_days_seven_days_and_one_day_before(
    left: int, told: tuple[int, ...], due: int | None
) -> None:
    assert reminder.due(1_000_000_000 + left, 1_000_000_000, told) == due
    assert reminder.due(None, 1_000_000_000, ()) is None
