"""An owner whose mail was encrypted yesterday is not one without a key today because the home is not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.errors import RegisterError
from sieve_filter.owners import register
from tests.support.enrolment import letter
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.register import Run, keys
from tests.support.server import ALICE
from tests.support.site import BOB, NOBODY, Site


def lose(site: Site, what: str) -> Path:
    """Take a home away, as a file system that is not mounted does; or the keyring alone."""
    lost = {"the home": site.home(ALICE), "all homes": site.home(ALICE).parent, "the keyring": None}[what]
    lost = lost or site.home(ALICE) / ".cryptomail"
    return lost.rename(site.directory / "elsewhere")


def test_mail_waits_while_the_home_of_an_owner_with_a_key_is_not_there(
    site: Site, installed: Run, alice: Owner
) -> None:
    assert installed("filter", data=MESSAGE).stdout == MESSAGE  # before there is a key
    site.enrol(alice.public(ALICE))
    assert decrypt(installed("filter", data=MESSAGE).stdout, alice) == MESSAGE
    away = lose(site, "the home")
    done = installed("filter", data=MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"had a key, and there is none in" in done.stderr
    assert b"is the home there?" in done.stderr
    assert f"cryptomail keys off --user {ALICE}".encode() in done.stderr
    assert installed("filter", data=MESSAGE, user=BOB).stdout == MESSAGE
    away.rename(site.home(ALICE))
    assert decrypt(installed("filter", data=MESSAGE).stdout, alice) == MESSAGE


@pytest.mark.parametrize("what", ["the home", "all homes", "the keyring"])
def test_an_imported_key_is_noted_before_the_first_delivery(
    what: str, site: Site, installed: Run, alice: Owner
) -> None:
    assert keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE)).startswith("0")
    lose(site, what)
    assert installed("filter", data=MESSAGE).returncode == 75


@pytest.mark.parametrize("what", ["the home", "all homes", "the keyring"])
def test_check_shows_who_has_no_keyring_any_more(what: str, site: Site, installed: Run, alice: Owner) -> None:
    keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE))
    lose(site, what)
    for which in (("--all",), ("--user", ALICE)):
        done = keys(installed, site, "check", *which)
        assert done.startswith("2 KEYS CRITICAL"), done
        assert f"CRITICAL: {ALICE}: " in done
        assert "had a key, and " in done
        assert f"cryptomail keys off --user {ALICE}" in done


def test_a_key_that_is_removed_turns_encryption_off(site: Site, installed: Run, alice: Owner) -> None:
    keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE))
    assert keys(installed, site, "off", "--user", ALICE).startswith("65")
    assert keys(installed, site, "remove", "--user", ALICE, fingerprint_of(alice)).startswith("0")
    assert installed("filter", data=MESSAGE).stdout == MESSAGE
    assert keys(installed, site, "check", "--all").startswith("0 KEYS OK")


def test_the_owner_turns_it_off_over_imap(site: Site, installed: Run, alice: Owner) -> None:
    installed("enroll", data=letter(alice))
    assert decrypt(installed("filter", data=MESSAGE).stdout, alice) == MESSAGE
    answer = installed("enroll", data=b"Subject: remove %s\r\n\r\n" % fingerprint_of(alice).encode()).stdout
    assert b"Mail for you is not encrypted now." in answer
    assert installed("filter", data=MESSAGE).stdout == MESSAGE


@pytest.mark.parametrize("what", ["the home", "the keyring"])
def test_an_administrator_turns_it_off_where_the_keyring_is_gone(
    what: str, site: Site, installed: Run, alice: Owner
) -> None:
    keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE))
    lose(site, what)
    assert keys(installed, site, "off", "--user", ALICE) == (
        f"0 mail for {ALICE} is stored as the setting no_key says from now on\n"
    )
    assert keys(installed, site, "off", "--user", ALICE) == f"0 nothing was noted of {ALICE}\n"
    assert installed("filter", data=MESSAGE).stdout == MESSAGE
    assert keys(installed, site, "check", "--all").startswith("0 KEYS OK")


def test_what_is_said_of_an_owner_whose_keyring_is_gone_is_what_becomes_of_mail(
    site: Site, installed: Run, alice: Owner
) -> None:
    keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE))
    lose(site, "the keyring")
    assert keys(installed, site, "test", "--user", ALICE).startswith("75")
    answer = installed("enroll", data=b"Subject: what now?\r\n\r\n").stdout
    assert b"Mail for you waits" in answer


def test_mail_waits_while_the_register_cannot_be_read(site: Site, installed: Run, notes: Path, alice: Owner) -> None:
    own = notes / str(os.geteuid())
    own.rmdir()
    own.write_bytes(b"")
    done = installed("filter", data=MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"which notes whose mail is encrypted: Not a directory" in done.stderr
    own.unlink()
    notes.rmdir()  # nothing was installed that keeps one
    assert installed("filter", data=MESSAGE).stdout == MESSAGE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")
def test_nobody_can_note_or_forget_anything_of_another_user_s(site: Site, notes: Path) -> None:
    register.make(str(notes), NOBODY, NOBODY)
    register.note(str(notes), "root's")

    def as_nobody(code: str) -> str:
        become = f"import os; os.setgid({NOBODY}); os.setuid({NOBODY}); n = '{notes}'; r = \"root's\"; "
        command = [sys.executable, "-c", f"from sieve_filter.owners import register; {become}{code}"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        return done.stdout.decode() + done.stderr.decode().rpartition("\n")[0].rpartition("\n")[2]

    assert as_nobody("register.note(n, 'x'); print(register.has(n, 'x'), register.has(n, r))") == "True False\n"
    assert as_nobody("print(register.everybody(n), register.forget(n, r))") == "{'x'} False\n"
    assert "Permission denied" in as_nobody("os.mkdir(f'{n}/1234')")
    assert "Permission denied" in as_nobody("os.listdir(f'{n}/0')")
    assert "Permission denied" in as_nobody(f"os.rename(f'{{n}}/{NOBODY}', f'{{n}}/0')")
    assert register.everybody(str(notes)) == {"x", "root's"}
    os.chown(notes / "0", NOBODY, NOBODY)
    with pytest.raises(RegisterError, match="does not belong to user 0"):
        register.has(str(notes), "root's")


@pytest.mark.parametrize("user", ["alice@example.org", "a b/c", "..", ".x", "\u00e4\udcff", "%41", "x" * 320])
def test_every_name_has_a_file_of_its_own(user: str, notes: Path) -> None:
    place = notes / str(os.geteuid())
    register.note(str(notes), user)
    register.note(str(notes), user)
    assert register.has(str(notes), user)
    assert not register.has(str(notes), f"{user}.")
    assert len(list(place.iterdir())) == 1
    (noted,) = register.everybody(str(notes))
    assert noted == user or user.startswith(noted)
    assert register.forget(str(notes), user)
    assert list(place.iterdir()) == []


def test_monitor_reads_of_it_too(site: Site, installed: Run, alice: Owner) -> None:
    keys(installed, site, "import", "--user", ALICE, "-", data=alice.public(ALICE))
    lose(site, "the home")
    done = installed("keys", "check", "--home-template", site.template, "--all", "--json")
    assert {one["user"]: one["state"] for one in json.loads(done.stdout)["owners"]} == {ALICE: "CRITICAL", BOB: "OK"}
