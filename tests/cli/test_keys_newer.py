"""`cryptomail keys` for keys that GnuPG cannot read: of version 6, and of version 4 with newer algorithms."""

import base64
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.armor import dearmor
from sieve_filter.openpgp.encrypted import EncryptedMessage, encrypted_message
from sieve_filter.openpgp.packets import PUBLIC_SUBKEY, split
from tests.support.filtered import MESSAGE, armor_in, decrypt, fingerprint_of
from tests.support.newer import KINDS, NewerOwner
from tests.support.server import ALICE, run
from tests.support.site import NOBODY, Site, said

BESIDE = "certificates.pgp"


def shown(stored: bytes) -> EncryptedMessage:
    message = encrypted_message(dearmor(armor_in(stored)) or b"")
    assert message is not None
    return message


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_that_gnupg_cannot_read_is_imported_listed_tested_checked_and_encrypted_to(kind: str, site: Site) -> None:
    owner = NewerOwner(kind)
    done = site.enrol(owner.armored)
    assert done.returncode == 0, said(done)
    assert f"imported\t{owner.fingerprint}" in said(done)
    assert owner.fingerprint in said(site.keys("list", "--user", ALICE))
    assert f"key:         {owner.fingerprint}" in said(site.keys("show", "--user", ALICE))
    assert f"mail for {ALICE} is encrypted, to " in said(site.keys("test", "--user", ALICE))
    state = json.loads(site.keys("check", "--user", ALICE, "--json").stdout)["owners"][0]
    assert state["keys"][0]["fingerprint"] == owner.fingerprint
    assert state["keys"][0]["used"]
    assert owner.read(site.filter()) == MESSAGE


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_version_4_gets_what_every_client_opens_and_one_of_version_6_what_it_asks_for(
    kind: str, site: Site
) -> None:
    site.enrol(NewerOwner(kind).public)
    message = shown(site.filter())
    expected = ("SEIPD v1", (3,)) if kind.startswith("version 4") else ("SEIPD v2", (6,))
    assert (message.container, message.pkesk_versions) == expected


def test_mail_goes_to_all_keys_of_an_owner_whatever_kinds_they_are(site: Site, alice: Owner) -> None:
    newest, quantum = NewerOwner(), NewerOwner("version 4, ML-KEM")
    done = site.enrol(newest.public + alice.public(ALICE) + quantum.public)
    assert done.returncode == 0, said(done)
    stored = site.filter()
    assert newest.read(stored) == quantum.read(stored) == decrypt(stored, alice) == MESSAGE
    message = shown(stored)
    assert (message.container, message.pkesk_versions) == ("SEIPD v1", (3, 3, 3))
    exported = site.keys("export", "--user", ALICE)
    site.keys("remove", "--user", ALICE, newest.fingerprint)
    assert len(shown(site.filter()).key_ids) == 2
    site.keys("remove", "--user", ALICE, fingerprint_of(alice))
    assert quantum.read(site.filter()) == MESSAGE
    site.keys("remove", "--user", ALICE, quantum.fingerprint)
    assert site.filter() == MESSAGE
    assert site.enrol(exported.stdout).returncode == 0, "what was exported can be imported again"
    assert newest.read(site.filter()) == MESSAGE


def test_what_gnupg_cannot_read_is_the_owners_alone_beside_the_keyring(site: Site) -> None:
    if os.geteuid() == 0:
        os.chown(site.home(ALICE), NOBODY, NOBODY)
    assert site.enrol(NewerOwner().public).returncode == 0
    file = site.home(ALICE) / ".cryptomail" / BESIDE
    assert [path.name for path in file.parent.iterdir()] == [BESIDE]
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_uid == site.home(ALICE).stat().st_uid


def test_a_file_of_certificates_holds_keys_of_every_kind(site: Site, key_file: Path, alice: Owner) -> None:
    owner = NewerOwner()
    assert site.enrol(alice.public(ALICE)).returncode == 0
    assert site.enrol(owner.public).returncode == 0
    stored = site.filter()
    assert owner.read(stored) == decrypt(stored, alice) == MESSAGE
    renewed = NewerOwner("version 4, ML-KEM")
    assert site.enrol(renewed.public).returncode == 0
    assert site.keys("remove", "--user", ALICE, owner.fingerprint).returncode == 0
    stored = site.filter()
    assert renewed.read(stored) == decrypt(stored, alice) == MESSAGE
    there = certificate.read(key_file.read_bytes()).certificates
    assert [one.fingerprint for one in there] == [fingerprint_of(alice), renewed.fingerprint]
    for fingerprint in (fingerprint_of(alice), renewed.fingerprint):
        assert site.keys("remove", "--user", ALICE, fingerprint).returncode == 0
    assert not key_file.exists()


def test_the_same_key_again_changes_nothing_and_a_renewed_one_counts(site: Site) -> None:
    owner = NewerOwner(seconds=40 * 86_400)
    site.enrol(owner.public)
    file = site.home(ALICE) / ".cryptomail" / BESIDE
    before = file.stat().st_ino
    assert f"unchanged\t{owner.fingerprint}" in said(site.enrol(owner.public))
    assert file.stat().st_ino == before
    longer = owner.certificate.set_expiration(datetime.now(UTC) + timedelta(days=1_000), owner.tsk.certifier())
    assert f"renewed\t{owner.fingerprint}" in said(site.enrol(bytes(longer)))
    assert f"unchanged\t{owner.fingerprint}" in said(site.enrol(owner.public)), "an older copy takes nothing back"
    assert owner.read(site.filter()) == MESSAGE


def test_a_revoked_key_is_refused_where_it_is_new_and_no_longer_used_where_it_is_there(site: Site) -> None:
    owner = NewerOwner()
    done = site.enrol(owner.revoked)
    assert (done.returncode, "it was revoked" in said(done)) == (65, True)
    site.enrol(owner.public)
    assert f"revoked\t{owner.fingerprint}" in said(site.enrol(owner.revoked))
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", data=MESSAGE, environment=environment, config=site.config)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"was revoked" in done.stderr
    assert site.enrol(owner.public).returncode == 65, "an older copy does not bring it back"


def test_an_expired_key_is_refused_and_one_that_expires_is_encrypted_to_all_the_same(site: Site) -> None:
    owner = NewerOwner(seconds=1)
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / BESIDE).write_bytes(owner.public)
    time.sleep(2)
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", data=MESSAGE, environment=environment, config=site.config)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert b"expired" in done.stderr
    assert shown(done.stdout).key_ids
    done = site.enrol(owner.public, "bob@example.org", "--foreign")
    assert (done.returncode, "it expired on" in said(done)) == (65, True)


def test_a_key_of_somebody_else_and_a_secret_one_are_refused(site: Site) -> None:
    owner = NewerOwner(address="bob@example.org")
    assert "none of its user IDs has an address of this user's" in said(site.enrol(owner.public))
    done = site.enrol(bytes(NewerOwner().tsk))
    assert "SECRET" in said(done)
    assert not (site.home(ALICE) / ".cryptomail").exists()


def flipped(certificate: bytes, offset: int) -> bytes:
    return certificate[:offset] + bytes([certificate[offset] ^ 1]) + certificate[offset + 1 :]


@pytest.mark.parametrize("place", ["user ID", "binding", "subkey"])
def test_nobody_else_can_change_what_such_a_key_says(place: str, site: Site) -> None:
    owner = NewerOwner("version 4, ML-KEM")
    public = owner.public
    [subkey] = [public.index(one.raw) for one in split(public) if one.tag == PUBLIC_SUBKEY and one.body[5] == 35]
    forged = {
        "user ID": public.replace(b"<alice@", b"<malic@"),
        "binding": flipped(public, len(public) - 1),
        "subkey": flipped(public, subkey + 100),
    }[place]
    done = site.enrol(forged, ALICE, "--foreign")
    assert done.returncode == 65, said(done)
    assert not (site.home(ALICE) / ".cryptomail").exists()


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, None], ids=["empty", "zeros", "cut short"])
def test_mail_waits_while_the_file_is_damaged(damage: bytes | None, site: Site, alice: Owner) -> None:
    site.enrol(NewerOwner().public + alice.public(ALICE))
    file = site.home(ALICE) / ".cryptomail" / BESIDE
    file.write_bytes(file.read_bytes()[:300] if damage is None else damage)
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", data=MESSAGE, environment=environment, config=site.config)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (75, b"", 1)
    assert b"is damaged" in done.stderr


def test_mail_waits_while_the_keyring_beside_it_is_damaged(site: Site, alice: Owner) -> None:
    site.enrol(NewerOwner().public + alice.public(ALICE))
    (site.home(ALICE) / ".cryptomail" / "pubring.kbx").write_bytes(b"\0" * 100)
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    assert run("filter", data=MESSAGE, environment=environment, config=site.config).returncode == 75


def test_a_script_can_name_such_a_key_and_bring_one(site: Site, alice: Owner) -> None:
    owner = NewerOwner()
    site.enrol(owner.public + alice.public(ALICE))
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", "--key", owner.fingerprint, data=MESSAGE, environment=environment, config=site.config)
    assert owner.read(done.stdout) == MESSAGE
    assert len(shown(done.stdout).key_ids) == 1
    other = NewerOwner("version 4, ML-KEM")
    data = base64.b64encode(other.public).decode()
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    done = run("filter", "--keydata", *pieces, data=MESSAGE, environment=environment, config=site.config)
    assert done.returncode == 0, done.stderr
    assert other.read(done.stdout) == MESSAGE


def test_large_messages_and_other_engines_make_no_difference(site: Site) -> None:
    owner = NewerOwner("version 4, ML-KEM")
    site.enrol(owner.public)
    site.config.write_text('engine = "gnupg"\ncompression = "zlib"\n')
    large = b"Subject: s\r\n\r\n" + bytes(range(256)) * 20_000
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    done = run("filter", data=large, environment=environment, config=site.config)
    assert owner.read(done.stdout) == large


def test_check_says_whose_mail_a_quantum_computer_could_read_and_which_keys_few_programs_know(
    site: Site, alice: Owner
) -> None:
    site.config.write_text('[on]\nno_key = "store-plain"\n')
    safe = NewerOwner("version 4, ML-KEM", "bob@example.org")
    assert site.enrol(alice.public(ALICE)).returncode == 0
    assert site.enrol(safe.public, "bob@example.org").returncode == 0
    done = site.keys("check", "--all", "--quantum")
    rare = f"OK: bob@example.org: key {safe.fingerprint} can be used by few programs: it has a post-quantum subkey\n"
    assert rare in done.stdout.decode()
    assert [line for line in done.stdout.decode().splitlines() if line.startswith("QUANTUM")] == [
        f"QUANTUM: {ALICE}: a quantum computer could read mail to key {fingerprint_of(alice)}"
    ]
    assert "QUANTUM" not in said(site.keys("check", "--all"))
    owners = json.loads(site.keys("check", "--all", "--json").stdout)["owners"]
    assert {one["user"]: one["post_quantum"] for one in owners} == {ALICE: False, "bob@example.org": True}
    assert "\ncryptomail_key_users_post_quantum 1\n" in said(site.keys("check", "--all", "--prometheus"))
    assert "no quantum computer is known to open" in said(site.keys("show", "--user", "bob@example.org"))


def test_one_classical_key_is_enough_for_a_quantum_computer(site: Site, alice: Owner) -> None:
    newest, safe = NewerOwner("version 6"), NewerOwner("version 4, ML-KEM")
    assert site.enrol(newest.public + safe.public).returncode == 0
    done = said(site.keys("check", "--user", ALICE, "--quantum"))
    assert f"QUANTUM: {ALICE}: a quantum computer could read mail to key {newest.fingerprint}\n" in done
    assert f"OK: {ALICE}: key {newest.fingerprint} can be used by few programs: it is of version 6\n" in done
