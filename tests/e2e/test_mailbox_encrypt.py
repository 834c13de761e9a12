"""Stored mail is encrypted: nothing is lost, doubled or changed, whatever happens meanwhile."""

import contextlib
import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

from lab.client import Lab
from tests.e2e.conftest import NewPerson, files_with, message
from tests.support import mailboxes
from tests.support.mailboxes import (
    SAMPLES,
    contents,
    exactly,
    fill,
    folders,
    logged_in,
    mailbox,
    messages,
    numbered,
    running,
    save,
    wait_until_nobody_works,
)

_UNTOLD = 3  # of 300 messages, on a machine that has much else to do
OK, BUSY, LEFT = 0, 75, 76


def test_flags_dates_and_order_stay_and_nothing_is_in_clear(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    fill(person, canary, 60)
    save(person, numbered(canary, 1000), folder="Archive/2019", flags="\\Seen")
    with logged_in(person) as connection:
        connection.select("INBOX")
        connection.fetch("1:*", "(ENVELOPE PREVIEW)")  # so that there is something in the cache
    person.set_up_key()
    before, order = contents(person), [one.octets for one in messages(person)]
    done = mailbox(person, path, "encrypt")
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout == f"{person.address}: 61 messages encrypted\n"
    assert contents(person) == before
    after = messages(person)
    seen = [person.read(one.octets) for one in after if "\\Seen" in one.flags]
    new = [person.read(one.octets) for one in after if "\\Seen" not in one.flags]
    assert [person.read(one.octets) for one in after] == seen + new
    assert seen == [one for one in order if one in set(seen)]
    assert new == [one for one in order if one in set(new)]
    assert folders(person, path)["INBOX"] == {"messages": 60, "encrypted": 60}
    assert files_with(lab_sealed, [canary.encode()]) == []
    done = mailbox(person, path, "encrypt")
    assert done.stdout == f"{person.address}: 0 messages encrypted\n"
    assert messages(person) == after


def test_every_octet_of_odd_messages_stays(lab_sealed: Lab, new_person: NewPerson, path: str) -> None:
    person = new_person(lab_sealed)
    large = {name: one + b"a line\r\n" * 400_000 for name, one in list(SAMPLES.items())[:6]}
    save(person, *SAMPLES.values(), *large.values(), flags="\\Seen")
    person.set_up_key()
    before = Counter(exactly(person).values())
    clear = folders(person, path)["INBOX"]["clear"]
    done = mailbox(person, path, "encrypt")
    # What IMAP cannot give exactly is left, and told of.
    left = int(match[1]) if (match := re.search(r": (\d+) messages? left in clear: IMAP does not", done.stdout)) else 0
    assert done.returncode == (LEFT if left else OK), done.stderr
    assert f": {clear - left} messages encrypted\n" in done.stdout
    assert left <= 2
    after = Counter(person.read(one) for one in exactly(person).values())
    assert sum(after.values()) == sum(before.values())
    assert after - before == Counter()


def test_what_is_not_to_be_encrypted_stays(lab_sealed: Lab, new_person: NewPerson, path: str, canary: str) -> None:
    person, unkeyed = new_person(lab_sealed), new_person(lab_sealed)
    save(unkeyed, message(canary))
    for folder in ("Drafts", "Templates", "Outbox", "OpenPGP"):
        save(person, message(canary), folder=folder)
    save(person, message(canary), flags="\\Draft")
    save(person, message(canary, "X: early"), date="01-Jan-2020 00:00:00 +0000")
    save(person, message(canary, "X: late"), date="03-Jan-2020 00:00:00 +0000")
    person.set_up_key()
    before = {name: messages(person, name) for name in ("INBOX", "Drafts", "Templates", "Outbox", "OpenPGP")}
    done = mailbox(person, path, "encrypt", "--dry-run")
    assert done.stdout == f"{person.address}: 2 messages would be encrypted\n"
    assert {name: messages(person, name) for name in before} == before
    done = mailbox(person, path, "encrypt", "--before", "2020-01-02", "--json")
    [user] = json.loads(done.stdout)["users"]
    assert (user["encrypted"], user["left"]) == (1, [])
    assert not [one for one in user["residue"] if "Maildir/dovecot.index.cache" in one]
    after = {name: messages(person, name) for name in before}
    assert {name: after[name] for name in after if name != "INBOX"} == {
        name: before[name] for name in before if name != "INBOX"
    }
    assert after["INBOX"][:2] == [before["INBOX"][0], before["INBOX"][2]]
    kept = messages(unkeyed)
    done = mailbox(unkeyed, path, "encrypt")
    assert (done.returncode, done.stdout) == (OK, f"{unkeyed.address}: has no key, all is left as it is\n")
    assert messages(unkeyed) == kept


def test_a_draft_is_left_even_where_its_folder_is_named(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    save(person, message(canary), folder="Drafts", flags="\\Draft")
    save(person, message(canary), folder="Drafts")
    done = mailbox(person, path, "encrypt", "--folder", "Drafts")
    assert done.stdout == f"{person.address}: 1 message encrypted\n"
    assert [canary.encode() in one.octets for one in messages(person, "Drafts")] == [True, False]


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
    return found


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def test_a_run_that_is_killed_is_put_right_by_the_next(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    """CRYPTOMAIL_KILLS says how many times; whom: the command, what acts for the owner, or Dovecot's imap."""
    person = new_person(lab_sealed)
    person.set_up_key()
    chance = random.Random(canary)  # noqa: S311
    expected: Counter[tuple[bytes, frozenset[str], str]] = Counter()
    started = time.monotonic()
    fill(person, canary, 24)
    expected = contents(person)
    mailbox(person, path, "encrypt", "--dry-run")
    usual = 0.8
    for number in range(int(os.environ.get("CRYPTOMAIL_KILLS", "8"))):
        if number % 4 == 3:
            fill(person, f"{canary}-{number}", 12)
            expected = contents(person)
        process = running(person, path)
        time.sleep(chance.uniform(0.2, 2 * usual))
        victims = family(process.pid)
        kind = chance.choice(["all", "child", "imap", "command"])
        chosen = {
            "all": victims,
            "child": victims[1:2],
            "imap": [one for one in victims if name_of(one) == "imap"],
            "command": victims[:1],
        }[kind]
        for one in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        process.wait(60)
        count = len(messages(person))
        assert count >= sum(expected.values()), (number, kind)
    wait_until_nobody_works(person, path)
    done = mailbox(person, path, "encrypt")
    assert done.returncode == OK, (done.stdout, done.stderr, time.monotonic() - started)
    assert contents(person) == expected
    assert folders(person, path)["INBOX"] == {"messages": sum(expected.values()), "encrypted": sum(expected.values())}


def test_what_others_change_meanwhile_is_respected(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    fill(person, canary, 300)
    expected = {one.octets: one for one in messages(person)}
    deleted: set[bytes] = set()
    moved: set[bytes] = set()
    flagged: set[bytes] = set()
    chance = random.Random(canary)  # noqa: S311
    with logged_in(person) as connection:
        connection.create("Elsewhere")
        connection.select("INBOX")
        uids = {one.uid: one.octets for one in messages(person)}
        process = running(person, path)
        while process.poll() is None:
            uid = chance.choice(list(uids))
            action = chance.choice(["delete", "move", "flag"])
            octets = uids[uid]
            if action == "flag":
                _, said = connection.uid("STORE", str(uid), "+FLAGS", "$Work")
                if any(one and b"$Work" in one for one in said):
                    flagged.add(octets)
            elif action == "move":
                _, said = connection.uid("MOVE", str(uid), "Elsewhere")
                moved.add(octets)
                uids.pop(uid)
            else:
                connection.uid("STORE", str(uid), "+FLAGS", "\\Deleted")
                connection.uid("EXPUNGE", str(uid))
                deleted.add(octets)
                uids.pop(uid)
            time.sleep(0.005)
        assert process.wait() in (OK, LEFT)
    wait_until_nobody_works(person, path)
    here = Counter(person.read(one) for one in exactly(person).values())
    there = Counter(person.read(one) for one in exactly(person, "Elsewhere").values())
    # What was moved or deleted by a UID that had gone already is still there: then nothing was done.
    assert set(here + there) | deleted == set(expected)
    assert max(here.values()) == max(there.values(), default=1) == 1
    assert set(there) <= moved
    # IMAP cannot tell of what was moved, or flagged, just before the old message is removed.
    assert len(set(there) & set(here)) <= _UNTOLD
    flags = {person.read(one.octets): one.flags for one in messages(person)}
    lost = [one for one in flagged if one in flags and "$Work" not in flags[one]]
    assert len(lost) <= _UNTOLD


def test_two_runs_at_once_do_no_harm(lab_sealed: Lab, new_person: NewPerson, path: str, canary: str) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    fill(person, canary, 100)
    expected = contents(person)
    one = running(person, path)
    other = running(person, path)
    assert sorted([one.wait(120), other.wait(120)]) in ([OK, OK], [OK, BUSY])
    assert contents(person) == expected


def test_all_owners_are_done_and_who_cannot_be_is_told(
    lab_sealed: Lab, new_person: NewPerson, path: str, users: Path, canary: str
) -> None:
    people = [new_person(lab_sealed) for _ in range(3)]
    unkeyed = new_person(lab_sealed)
    for person in [*people, unkeyed]:
        fill(person, canary, 10)
    for person in people:
        person.set_up_key()
    (lab_sealed.home(people[2].user) / ".cryptomail/pubring.kbx").write_bytes(b"")  # it is damaged
    before = [contents(person) for person in people]
    users.write_text("".join(f"{one.address}\n" for one in [*people, unkeyed]))
    done = mailboxes.mailboxes(lab_sealed, path, "encrypt", "--all")
    assert done.returncode == BUSY  # EX_TEMPFAIL: as a delivery would end
    assert f"cryptomail: {people[2].address}: " in done.stderr
    assert sorted(done.stdout.splitlines()) == sorted(
        [
            f"{people[0].address}: 10 messages encrypted",
            f"{people[1].address}: 10 messages encrypted",
            f"{unkeyed.address}: has no key, all is left as it is",
        ]
    )
    assert [contents(person) for person in people] == before
    assert folders(people[2], path)["INBOX"] == {"messages": 10, "clear": 10}


def test_a_run_that_is_stopped_goes_on_later(lab_sealed: Lab, new_person: NewPerson, path: str, canary: str) -> None:
    person = new_person(lab_sealed)
    person.set_up_key()
    fill(person, canary, 150)
    before = contents(person)
    process = running(person, path)
    deadline = time.monotonic() + 60
    journal = lab_sealed.home(person.user) / ".cryptomail-mailbox"
    while not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline
    for one in family(process.pid):
        if name_of(one) == "cryptomail":
            os.kill(one, signal.SIGTERM)
    assert process.wait(30) == BUSY
    assert contents(person) == before
    wait_until_nobody_works(person, path)
    assert mailbox(person, path, "encrypt").returncode == OK
    assert contents(person) == before
