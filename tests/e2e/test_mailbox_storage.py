"""Mailboxes are encrypted however Dovecot stores them, and where a quota ends."""

import imaplib
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.client import Lab
from sieve_filter import limits
from sieve_filter.dovecot import imap
from tests.e2e.conftest import NewPerson, Person, files_with
from tests.support.mailboxes import append, contents, numbered

OK, OVER_QUOTA = 0, 73
_QUOTA = {
    "2.3": "mail_plugins = quota\nplugin {{\n  quota = count:User quota\n  quota_rule = *:storage={0}\n"
    "  quota_vsizes = yes\n  quota_grace = 0\n}}\n",
    "2.4": 'mail_plugins {{\n  quota = yes\n}}\nquota "User quota" {{\n  driver = count\n  storage_size = {0}\n'
    "  storage_grace = 0\n}}\n",
}


class Storage:
    """The lab's Dovecot with other settings, for who says so: its mail is elsewhere, and may be limited."""

    def __init__(self, lab: Lab, kind: str, quota: str = "") -> None:
        self.lab = lab
        self.file = lab.directory / f"dovecot-{kind}-{quota or 'unlimited'}.conf"
        text = (lab.directory / "dovecot.conf").read_text()
        text = re.sub(r"(?m)^mail_location = .*", f"mail_location = {kind}:~/{kind}", text)
        text = re.sub(r"(?m)^mail_driver = maildir", f"mail_driver = {kind}", text)
        text = re.sub(r"(?m)^mail_path = .*", f"mail_path = ~/{kind}", text)
        version = "2.4" if "dovecot_config_version" in text else "2.3"
        head, _, rest = text.partition("\nnamespace ")  # before any protocol's own
        self.file.write_text(f"{head}\n{_QUOTA[version].format(quota) if quota else ''}\nnamespace {rest}")

    def _doveadm(self, *arguments: str) -> list[str]:
        return self.lab.command("doveadm", "-c", self.lab.inside(self.file), *arguments)

    @contextmanager
    def session(self, person: Person) -> Iterator[imap.Session]:
        command = self._doveadm("exec", "imap", "-u", person.address)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as one:
            assert one.stdout is not None
            assert one.stdin is not None
            yield imap.Session(one.stdout, one.stdin, limits.IMAP_LITERAL_OCTETS)
            one.stdin.close()

    def fill(self, person: Person, messages: list[bytes]) -> None:
        command = shlex.join(self._doveadm("exec", "imap", "-u", person.address)) + " 2>/dev/null"
        with imaplib.IMAP4_stream(command) as connection:
            for number, one in enumerate(messages):
                append(
                    connection,
                    one,
                    "INBOX",
                    "\\Seen" if number % 3 else "",
                    f"0{number % 9 + 1}-Jul-2018 10:00:00 +0000",
                )

    def mailbox(self, person: Person, path: str, action: str) -> "subprocess.CompletedProcess[str]":
        """Run the command as if it were installed into this Dovecot."""
        config = self.lab.inside(self.lab.directory / "etc/cryptomail/config.toml")
        main = f"main({config!r}, dovecot_conf={self.lab.inside(self.file)!r}, argv=sys.argv[1:])"
        code = f"import sys; from sieve_filter.cli.main import main; sys.exit({main})"
        python = [self.lab.inside(self.lab.python), "-I", "-c", code]
        command = self.lab.command("env", f"PATH={path}", *python, "mailbox", action, "--user", person.address)
        return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("kind", ["sdbox", "mdbox"])
def test_dbox_is_encrypted_and_nothing_of_the_old_stays(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str, kind: str
) -> None:
    person = new_person(lab_sealed)
    storage = Storage(lab_sealed, kind)
    person.set_up_key()
    storage.fill(person, [numbered(canary, number) for number in range(70)])
    before = contents(person, way=storage.session)
    done = storage.mailbox(person, path, "encrypt")
    assert (done.returncode, done.stderr) == (OK, "")
    assert done.stdout == f"{person.address}: 70 messages encrypted\n"
    assert contents(person, way=storage.session) == before
    assert files_with(lab_sealed, [canary.encode()]) == []
    done = storage.mailbox(person, path, "audit")
    assert "0 of 70 messages in clear" in done.stdout
    assert ("mdbox keeps what is removed" in done.stdout) == (kind == "mdbox")


def test_where_a_quota_ends_nothing_is_lost(lab_sealed: Lab, new_person: NewPerson, path: str, canary: str) -> None:
    person = new_person(lab_sealed)
    small, large = Storage(lab_sealed, "sdbox", "1M"), Storage(lab_sealed, "sdbox", "2M")
    person.set_up_key()
    small.fill(person, [numbered(canary, number) + b"some octets of text\r\n" * 400 for number in range(110)])
    before = contents(person, way=small.session)
    done = small.mailbox(person, path, "encrypt")
    assert done.returncode == OVER_QUOTA, (done.stdout, done.stderr)
    assert done.stderr.endswith("the quota has no room for more encrypted mail: raise it, and run this again\n")
    encrypted = int(re.findall(r": (\d+) messages encrypted", done.stdout)[0])
    assert 0 < encrypted < 110
    assert contents(person, way=small.session) == before
    done = large.mailbox(person, path, "encrypt")
    assert (done.returncode, done.stdout) == (OK, f"{person.address}: {110 - encrypted} messages encrypted\n")
    assert contents(person, way=large.session) == before
    assert files_with(lab_sealed, [canary.encode()]) == []


def test_where_a_quota_has_room_for_one_message_it_is_enough(
    lab_sealed: Lab, new_person: NewPerson, path: str, canary: str
) -> None:
    person = new_person(lab_sealed)
    storage = Storage(lab_sealed, "sdbox", "1M")
    person.set_up_key()
    storage.fill(person, [numbered(canary, number) + b"text\r\n" * 1600 for number in range(60)])
    before = contents(person, way=storage.session)
    done = storage.mailbox(person, path, "encrypt")
    assert (done.returncode, done.stdout) == (OK, f"{person.address}: 60 messages encrypted\n")
    assert contents(person, way=storage.session) == before
