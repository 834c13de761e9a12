"""What owners are told about their keys: by `keys test --send`, `keys remove` and `keys check --notify`."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import keys
from lab.keys import Owner
from sieve_filter.notify import reminders
from tests.support.filtered import decrypt, fingerprint_of
from tests.support.server import ALICE, Outbox
from tests.support.site import BOB, NOBODY, Site, said

DAY = 86_400
SHOWS = b"If your mail program shows that this message was encrypted"


def test_a_test_message_is_sent_on_demand(site: Site, alice: Owner, outbox: Outbox) -> None:
    site.enrol(alice.public(ALICE))
    done = site.keys("test", "--user", ALICE, "--send", "--sendmail", str(outbox.program))
    assert done.returncode == 0
    [(arguments, sent)] = outbox.take()
    assert arguments.endswith(f" {ALICE}")
    assert SHOWS in sent  # in clear: it is for the delivery to encrypt


def test_without_a_key_or_a_way_there_is_no_test_message(site: Site, alice: Owner, outbox: Outbox) -> None:
    assert site.keys("test", "--user", ALICE, "--send", "--sendmail", str(outbox.program)).returncode == 75
    site.enrol(alice.public(ALICE))
    done = site.keys("test", "--user", ALICE, "--send", "--socket", "", "--sendmail", "")
    assert done.returncode == 75
    assert "there is neither an LMTP service nor a sendmail program" in said(done)


def test_owner_of_a_key_that_is_imported_gets_a_test_message(site: Site, alice: Owner, outbox: Outbox) -> None:
    imported = ("import", "--user", ALICE, "--sendmail", str(outbox.program), "-")
    assert site.keys(*imported, data=alice.public(ALICE)).returncode == 0
    [(arguments, sent)] = outbox.take()
    assert arguments.endswith(f" {ALICE}")
    assert SHOWS in sent
    assert b"To turn this off again" in sent
    assert "unchanged" in said(site.keys(*imported, data=alice.public(ALICE)))
    assert outbox.take() == []


def test_owners_of_keys_that_are_imported_together_get_a_message_each(
    site: Site, alice: Owner, bob: Owner, mallory: Owner, outbox: Outbox
) -> None:
    stream = alice.public(ALICE) + bob.public(BOB) + mallory.public("m" + ALICE)
    site.keys("import", "--all", "-", "--sendmail", str(outbox.program), data=stream)
    sent = {arguments.split()[-1]: message for arguments, message in outbox.take()}
    assert sent.keys() == {ALICE, BOB}
    assert fingerprint_of(bob)[:4].encode() in sent[BOB]


def test_where_nothing_changes_gpg_is_run_no_oftener_than_without_notices(
    site: Site, alice: Owner, outbox: Outbox
) -> None:
    site.enrol(alice.public(ALICE))
    runs = site.for_everybody("runs")
    path = site.another_gpg(f'echo run >> {runs}; exec /usr/bin/gpg "$@"')
    counts = []
    for more in (("--no-notify",), ("--sendmail", str(outbox.program))):
        done = site.keys("import", "--user", ALICE, *more, "-", data=alice.public(ALICE), path=path)
        assert "unchanged" in said(done)
        counts.append(runs.read_text().count("run"))
    assert counts[1] == 2 * counts[0]


def test_nobody_is_told_of_an_import_where_the_administrator_says_so(site: Site, alice: Owner, outbox: Outbox) -> None:
    more = ("--no-notify", "--sendmail", str(outbox.program))
    assert site.keys("import", "--user", ALICE, *more, "-", data=alice.public(ALICE)).returncode == 0
    assert outbox.take() == []


def test_administrator_is_told_that_owners_cannot_be(site: Site, alice: Owner, bob: Owner) -> None:
    both = alice.public(ALICE) + bob.public(BOB)
    more = ("--socket", "", "--sendmail", "")
    done = site.keys("import", "--all", "-", *more, data=both)
    assert done.returncode == 0
    assert "owners were not told of it, because there is neither an LMTP service nor a sendmail" in said(done)
    assert done.stderr.count(b"\n") == 1
    assert site.keys("import", "--all", "-", *more, data=both).stderr == b""
    failing = site.keys("import", "--user", ALICE, "--foreign", "--sendmail", "/bin/false", "-", data=bob.public(BOB))
    assert failing.returncode == 0
    assert b"a notice to 'alice@example.org' was not sent: /bin/false ended with exit code 1" in failing.stderr


def test_owner_is_told_encrypted_to_the_old_key_when_another_is_imported(
    site: Site, alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    site.enrol(alice.public(ALICE))
    newer = new_owner()
    fingerprint = newer.make_key(ALICE)
    site.keys("import", "--user", ALICE, "--sendmail", str(outbox.program), "-", data=newer.public(ALICE))
    [(_, addition), (_, trial)] = outbox.take()
    assert b"another" not in addition
    text = decrypt(addition, alice)
    assert b"is encrypted to this key too" in text
    assert fingerprint[:4].encode() in text
    assert SHOWS in trial


def test_owner_is_told_when_an_imported_key_takes_the_place_of_the_one_in_another_keyring(
    site: Site, alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    keyring = site.home(ALICE) / ".gnupg"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.gpg").write_bytes(alice.public(ALICE))
    keys.trust(keyring)
    newer = new_owner()
    newer.make_key(ALICE)
    site.keys("import", "--user", ALICE, "--sendmail", str(outbox.program), "-", data=newer.public(ALICE))
    [(_, addition), _] = outbox.take()
    assert b"is encrypted to this key instead of yours" in decrypt(addition, alice)


def test_owner_of_a_revoked_key_is_told_encrypted_to_one_that_works_and_else_in_clear(
    site: Site, alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    for user in (ALICE, BOB):
        site.enrol(owner.public(ALICE), user, "--foreign")
    site.enrol(alice.public(ALICE))
    owner.revoke(fingerprint)
    for user in (ALICE, BOB):
        for _ in range(2):  # once is enough
            site.keys("import", "--user", user, "--sendmail", str(outbox.program), "-", data=owner.public(ALICE))
    [(_, to_alice), (_, to_bob)] = outbox.take()
    assert b"revoked" not in to_alice.partition(b"\n\n")[2]
    assert b"This was revoked" in decrypt(to_alice, alice)
    assert b"Mail for you waits" in to_bob
    assert ALICE.encode() not in to_bob


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
    record = site.home(ALICE) / ".cryptomail" / reminders.FILE
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.stat().st_uid == site.home(ALICE).stat().st_uid

    owner.gpg("--quick-set-expire", fingerprint, "5d")
    owner.gpg("--quick-set-expire", fingerprint, "5d", "*")
    site.enrol(owner.public(ALICE))
    site.keys(*notify)
    site.keys(*notify)
    assert [bool(re.search(rb"expires in [45] days", sent)) for _, sent in outbox.take()] == [True]


def test_owners_of_key_files_are_told_once_and_nothing_is_left_beside_these(
    site: Site, new_owner: Callable[[], Owner], outbox: Outbox, key_file: Path
) -> None:
    if os.geteuid() == 0:  # where only root may write
        os.chown(site.home(ALICE), NOBODY, NOBODY)
        for place in key_file.parents[:3]:
            place.chmod(0o755)
    owner = new_owner()
    owner.make_key(ALICE, expires="20d")
    key_file.write_bytes(owner.public(ALICE))
    for _ in range(2):
        done = site.keys("check", "--user", ALICE, "--notify", "--sendmail", str(outbox.program))
        assert (done.returncode, done.stderr) == (1, b"")
    [(arguments, _)] = outbox.take()
    assert arguments.endswith(f" {ALICE}")
    assert list(key_file.parent.iterdir()) == [key_file]
    record = site.home(ALICE) / f".{reminders.FILE}"
    assert record.stat().st_mode & 0o777 == 0o600
    assert record.stat().st_uid == site.home(ALICE).stat().st_uid


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
    (site.home(ALICE) / ".cryptomail" / reminders.FILE).symlink_to(site.directory / "elsewhere")
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
    assert reminders.due(1_000_000_000 + left, 1_000_000_000, told) == due
    assert reminders.due(None, 1_000_000_000, ()) is None
