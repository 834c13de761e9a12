"""An audit says of each stored message what the filter would say of it, and changes nothing."""

import json
from collections import Counter
from pathlib import Path

from lab.client import Lab
from sieve_filter import limits
from sieve_filter.delivery import incoming
from sieve_filter.detection.classify import Shape
from sieve_filter.mailbox import audit, messages
from sieve_filter.system.spool import MemoryFile
from tests.e2e.conftest import NewPerson, Person, deliver, message
from tests.support import mailboxes
from tests.support.encrypted import ENCRYPTED
from tests.support.mailboxes import SAMPLES, folders, logged_in, mailbox, save

OK, WARNING, UNKNOWN = 0, 1, 3  # as Nagios' plugins end


def filters_verdict(octets: bytes) -> Shape:
    """What a delivery makes of a message with these octets."""
    shape, _ = incoming.look(incoming.receive(iter([octets]), limits.SMALL_OCTETS), MemoryFile)
    return shape


def on_disk(person: Person) -> list[bytes]:
    """The messages on the disk, with the line ends of the wire, which a maildir does not have."""
    return [one.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for one in person.received()]


def test_each_kind_of_message_is_counted(lab_sealed: Lab, new_person: NewPerson, path: str, canary: str) -> None:
    person, other = new_person(lab_sealed), new_person(lab_sealed)
    assert deliver(person, message(canary)) == 250
    person.set_up_key()
    other.set_up_key()
    assert deliver(person, message(canary)) == 250
    assert deliver(person, message(canary, "X-Large: yes") + b"x\r\n" * 1_000_000) == 250
    save(person, person.ciphertext(b"to me"), other.ciphertext(b"to somebody else"))
    save(person, message(canary), folder="Drafts")
    save(person, message(canary), folder="Entw&APw-rfe/Angebote", flags="\\Draft \\Seen")
    save(person, b"Content-Type: text/plain; " + b"x*0=y;" * 20_000 + b"\r\n\r\n", folder="Odd")
    before = {name: mailboxes.messages(person, name) for name in ("INBOX", "Drafts", "Odd")}
    assert folders(person, path) == {
        "INBOX": {"messages": 5, "encrypted": 2, "foreign": 2, "clear": 1},
        "Drafts": {"messages": 1, "clear": 1},
        "Entwürfe/Angebote": {"messages": 1, "clear": 1},
        "Junk": {},
        "Odd": {"messages": 1, "undecidable": 1},
    }
    assert {name: mailboxes.messages(person, name) for name in before} == before
    done = mailbox(person, path, "audit")
    assert done.returncode == WARNING
    first, *rest = done.stdout.splitlines()
    assert first.startswith("MAILBOX WARNING - 1 mailbox: 3 of 8 messages in clear (2 drafts), 1 undecidable | mail")
    assert f"{person.address}\tDrafts\t1\t0\t0\t1\t0\t1" in rest
    assert canary not in done.stdout + done.stderr


def test_drafts_alone_are_no_warning_nor_is_mail_of_owners_without_a_key(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    save(person, message(canary))
    assert mailbox(person, path, "audit").returncode == OK
    person.set_up_key()
    assert mailbox(person, path, "audit").returncode == WARNING
    assert mailbox(person, path, "audit", "--folder", "Junk").returncode == OK
    with logged_in(person) as connection:
        connection.select("INBOX")
        connection.store("1", "+FLAGS", "\\Draft")
    done = mailbox(person, path, "audit", "--prometheus")
    assert done.returncode == OK
    assert f'cryptomail_mailbox_messages{{user="{person.address}",kind="clear"}} 1' in done.stdout
    assert f'cryptomail_mailbox_messages{{user="{person.address}",kind="drafts"}} 1' in done.stdout


def test_the_verdict_on_odd_messages_is_the_filter_s(lab_sealed: Lab, new_person: NewPerson, path: str) -> None:
    person = new_person(lab_sealed)
    large = {f"large {name}": one + b"\r\n" * 70_000 for name, one in SAMPLES.items()}
    save(person, *SAMPLES.values(), *large.values())
    expected = Counter(audit.Verdict(filters_verdict(one), marked=False).among(None) for one in on_disk(person))
    assert expected["foreign"] >= len(ENCRYPTED)
    [counts] = [one for one in folders(person, path).values() if one]
    marked = counts.pop("encrypted", 0)  # the audit looks at the mark, too
    assert counts.pop("messages") == len(SAMPLES) + len(large)
    assert Counter(counts) + Counter(foreign=marked) == expected


def test_octets_that_imap_cannot_give_are_found_out(lab_sealed: Lab, new_person: NewPerson) -> None:
    person = new_person(lab_sealed)
    texts = {
        b"Subject: a\r\n\r\nplain\r\n": b"BODY.PEEK[]",
        b"Subject: a\r\n\r\n\xe2\x80\x9cquoted\xe2\x80\x9d\r\n": b"BODY.PEEK[]",
        b"Subject: a\r\n\r\nprice: \x80 10\r\n": b"BODY.PEEK[]",
        b"Subject: a\r\n\r\nNUL \0 and \x80\r\n": b"BINARY.PEEK[]",
        b"Subject: a\r\n\r\nNUL \0 in a long one\r\n" + b"x" * 3_000_000 + b"\r\n": b"BINARY.PEEK[]",
        b"Content-Transfer-Encoding: base64\r\n\r\nQUFB\r\n\x80\r\n": None,
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=41=\r\n\0\r\n": None,
    }
    save(person, *texts)
    with mailboxes.session(person) as session:
        session.run(b"EXAMINE INBOX")
        sections = [messages.section(session, uid, True) for uid in range(1, len(texts) + 1)]
        assert sections == list(texts.values())
        for uid, (text, section) in enumerate(texts.items(), 1):
            assert section is None or b"".join(messages.pieces(session, uid, section)) == text
        assert list(messages.pieces(session, 1000)) == []


def test_what_a_cache_still_has_of_removed_messages_is_told(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    save(person, message(canary), message(canary))
    with logged_in(person) as connection:
        connection.select("INBOX")
        connection.fetch("1:*", "(ENVELOPE PREVIEW)")
        connection.store("1", "+FLAGS", "\\Deleted")
        connection.expunge()
    [user] = json.loads(mailbox(person, path, "audit", "--json").stdout)["users"]
    [residue] = user["residue"]
    assert "Maildir/dovecot.index.cache may have the Subject or the first words of 1 removed message" in residue
    purge = lab_sealed.command("env", f"PATH={path}", "doveadm", "mailbox", "cache", "purge", "-u", person.address)
    mailboxes.succeed([*purge, "INBOX"])
    [user] = json.loads(mailbox(person, path, "audit", "--json").stdout)["users"]
    assert user["residue"] == []


def test_all_owners_are_looked_at_and_who_cannot_be_is_told(
    lab_sealed: Lab, new_person: NewPerson, path: str, users: Path, canary: str
) -> None:
    person, other = new_person(lab_sealed), new_person(lab_sealed)
    for one in (person, other):
        save(one, message(canary))
    users.write_text(f"{person.address}\n{other.address}\n")
    done = mailboxes.mailboxes(lab_sealed, path, "audit", "--all", "--json")
    assert done.returncode == OK
    found = json.loads(done.stdout)["users"]
    assert {one["user"]: one["folders"][0]["clear"] for one in found} == {person.address: 1, other.address: 1}
    users.write_text(f"{person.address}\nno/user\n")
    done = mailboxes.mailboxes(lab_sealed, path, "audit", "--all")
    assert done.returncode == UNKNOWN
    assert "UNKNOWN: no/user: USER is not a user name" in done.stdout
    done = mailbox(person, path, "audit", "--folder", "None such")
    assert done.returncode == UNKNOWN
    assert "there is no folder 'None such'" in done.stdout
