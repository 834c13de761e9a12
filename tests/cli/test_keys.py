"""`cryptomail keys import`, `list`, `show`, `remove`, `export` and `test`."""

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.openpgp import certificate
from tests.support.certificates import armored, signature
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.samples import packet
from tests.support.server import ALICE, run
from tests.support.site import BOB, NOBODY, Site, answer, doveadm, expired, made, revoked, said

HOMES = "cryptomail-" + 8 * "[a-z0-9_]"


@pytest.fixture(autouse=True)
def _nothing_stays_in_memory() -> Iterator[None]:
    """No quarantine outlives its command."""
    before = set(Path("/dev/shm").glob(HOMES))
    yield
    left = set(Path("/dev/shm").glob(HOMES)) - before
    deadline = time.monotonic() + 20  # those of tests in other processes go too
    while any(path.exists() for path in left):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def uid(text: str) -> bytes:
    return packet(13, text.encode())


def test_mail_is_encrypted_to_an_imported_key(site: Site, alice: Owner) -> None:
    done = site.enrol(alice.public(ALICE))
    assert done.returncode == 0
    assert f"imported\t{fingerprint_of(alice)}" in said(done)
    assert decrypt(site.filter(), alice) == MESSAGE


def test_armored_files_are_imported_several_at_once(site: Site, alice: Owner, bob: Owner, tmp_path: Path) -> None:
    files = []
    for owner, address in ((alice, ALICE), (bob, BOB)):
        files.append(tmp_path / address)
        files[-1].write_bytes(owner.gpg("--armor", "--export", address))
    done = site.keys("import", "--foreign", "--user", ALICE, *map(str, files))
    assert done.returncode == 0
    assert "warning: none of its user IDs has an address of this user's; it has bob@example.org" in said(done)
    assert sorted(site.stored()) == sorted([fingerprint_of(alice), fingerprint_of(bob)])


def test_key_of_somebody_else_is_refused_unless_it_is_meant(site: Site, alice: Owner, bob: Owner) -> None:
    site.enrol(alice.public(ALICE))
    done = site.enrol(bob.public(BOB))
    assert done.returncode == 65
    assert f"it has {BOB}; where that is meant, the administrator imports it with --foreign" in said(done)
    both = site.enrol(alice.public(ALICE) + bob.public(BOB))
    assert both.returncode == 65
    assert site.stored() == [fingerprint_of(alice)]
    done = site.enrol(bob.public(BOB), ALICE, "--foreign")
    assert done.returncode == 0
    assert f"warning: none of its user IDs has an address of this user's; it has {BOB}" in said(done)
    assert sorted(site.stored()) == sorted([fingerprint_of(alice), fingerprint_of(bob)])


def test_folder_gives_nobody_somebody_elses_key_unless_it_is_meant(site: Site, bob: Owner, tmp_path: Path) -> None:
    (tmp_path / f"{ALICE}.pgp").write_bytes(bob.public(BOB))
    done = site.keys("import", "--all", str(tmp_path))
    assert (done.returncode, site.stored()) == (65, [])
    assert site.keys("import", "--foreign", "--all", str(tmp_path)).returncode == 0
    assert site.stored() == [fingerprint_of(bob)]


@pytest.mark.parametrize(
    ("user", "aliases", "code"),
    [("alice", (), 0), ("Alice", (), 0), ("al", (), 65), ("al", (ALICE,), 0), ("bob@example.org", (ALICE,), 0)],
)
def test_key_is_the_owners_by_name_address_or_alias(
    user: str, aliases: tuple[str, ...], code: int, site: Site, alice: Owner, tmp_path: Path
) -> None:
    if aliases:
        site.config.write_text(f'[aliases]\n"{user}" = {json.dumps(aliases)}\n')
    home = tmp_path / "home"
    home.mkdir()
    arguments = ("import", "--no-notify", "--user", user, "--home", str(home), "-")
    done = run(
        "keys", *arguments, data=alice.public(ALICE), environment={"PATH": os.environ["PATH"]}, config=site.config
    )
    assert done.returncode == code, done


def test_new_keyring_is_the_owners_alone(site: Site, alice: Owner) -> None:
    root = os.geteuid() == 0
    if root:
        os.chown(site.home(ALICE), NOBODY, NOBODY)
    assert site.enrol(alice.public(ALICE)).returncode == 0
    keyring = site.home(ALICE) / ".cryptomail"
    assert [path.name for path in keyring.iterdir()] == ["pubring.kbx"]
    for path, mode in ((keyring, 0o700), (keyring / "pubring.kbx", 0o600)):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert status.st_uid == (NOBODY if root else os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_each_system_user_gets_a_keyring_of_the_own_and_a_link_leads_nowhere(
    site: Site, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    users = {f"u{number}@example.org": NOBODY - 1 - number for number in range(5)}
    site.make(*users)
    for user, account in users.items():
        owner.make_key(user)
        os.chown(site.home(user), account, account)
    bad, *good = users
    roots = site.directory / "roots"
    roots.mkdir(mode=0o755)
    (site.home(bad) / ".cryptomail").symlink_to(roots)
    done = site.keys("import", "--all", "-", data=owner.gpg("--export"))
    assert (done.returncode, done.stdout.count(b"\timported\t")) == (65, len(good))
    assert f"{site.home(bad)}/.cryptomail as a keyring: it is a link" in said(done)
    assert list(roots.iterdir()) == []
    for user in good:
        keyring = site.home(user) / ".cryptomail"
        for path, mode in ((keyring, 0o700), (keyring / "pubring.kbx", 0o600)):
            status = path.stat()
            assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (users[user], users[user], mode)
        assert decrypt(site.filter(user), owner) == MESSAGE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_gpg_reads_what_is_given_with_nobodys_rights(site: Site, alice: Owner) -> None:
    os.chown(site.home(ALICE), NOBODY, NOBODY)
    log = site.for_everybody("log")
    path = site.another_gpg(f'echo $(id -u) $(id -G) >> {log}; exec /usr/bin/gpg "$@"')
    assert site.keys("import", "--user", ALICE, "-", data=alice.public(ALICE), path=path).returncode == 0
    (ids,) = set(log.read_text().splitlines())
    account, *groups = map(int, ids.split())
    assert groups == [account]
    with pytest.raises(KeyError):
        pwd.getpwuid(account)


def test_key_that_gpg_adds_to_a_certificate_is_noticed(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    given = owner.public(ALICE)
    owner.gpg("--quick-add-key", fingerprint, "cv25519", "encr")
    more = site.for_everybody("more")
    more.write_bytes(owner.public(ALICE))
    again = f'/usr/bin/gpg "$@" < {more} > /dev/null 2>&1'
    path = site.another_gpg(f'/usr/bin/gpg "$@"; code=$?; case "$*" in *--import*) {again};; esac; exit $code')
    done = site.keys("import", "--user", ALICE, "-", data=given, path=path)
    assert done.returncode == 65
    assert "gpg added a key to it" in said(done)
    assert site.stored() == []


def test_home_that_does_not_exist_yet_is_made_where_mail_is(site: Site, alice: Owner) -> None:
    if os.geteuid() == 0:
        for path in (site.directory / "mail", site.directory / "mail/example.org"):
            os.chown(path, NOBODY, NOBODY)
    user = "carol@example.org"
    done = site.enrol(alice.public(ALICE), user, "--foreign")
    assert done.returncode == 0, done.stderr
    assert site.home(user).stat().st_uid == (site.directory / "mail").stat().st_uid
    assert len(site.stored(user)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could")
def test_home_is_not_made_where_root_keeps_things(site: Site, alice: Owner) -> None:
    done = site.enrol(alice.public(ALICE), "carol@example.net", "--foreign")
    assert done.returncode == 65
    assert "belongs to root: make it, or mend the path" in said(done)
    assert not site.home("carol@example.net").exists()


def test_same_key_again_changes_nothing_and_a_newer_copy_renews_it(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="5d")
    old = owner.public(ALICE)
    assert "imported" in said(site.enrol(old))
    before = (site.home(ALICE) / ".cryptomail/pubring.kbx").read_bytes()
    assert "unchanged" in said(site.enrol(old))
    assert (site.home(ALICE) / ".cryptomail/pubring.kbx").read_bytes() == before
    time.sleep(1.1)  # a signature's time has seconds, and the newer one counts
    owner.gpg("--quick-set-expire", fingerprint, "1y")
    owner.gpg("--quick-set-expire", fingerprint, "1y", "*")
    assert f"renewed\t{fingerprint}" in said(site.enrol(owner.public(ALICE)))
    (state,) = json.loads(site.keys("show", "--user", ALICE, "--json").stdout)
    assert state["keys"][0]["expires"] > time.time() + 300 * 86400
    assert site.stored() == [fingerprint]
    assert decrypt(site.filter(), owner) == MESSAGE


def test_second_key_is_put_beside_the_first(site: Site, alice: Owner, bob: Owner) -> None:
    site.enrol(alice.public(ALICE))
    assert site.enrol(bob.public(BOB), ALICE, "--foreign").returncode == 0
    stored = site.filter()
    assert decrypt(stored, alice) == decrypt(stored, bob) == MESSAGE


def test_old_kind_of_keyring_goes_on_being_used(site: Site, alice: Owner, bob: Owner) -> None:
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.gpg").write_bytes(alice.public(ALICE))
    assert "imported" in said(site.enrol(bob.public(BOB), ALICE, "--foreign"))
    assert sorted(site.stored()) == sorted([fingerprint_of(alice), fingerprint_of(bob)])
    assert not (keyring / "pubring.kbx").exists()


def secret(owner: Owner) -> bytes:
    return owner.gpg("--export-secret-keys")


def test_secret_key_is_refused_loudly_and_nothing_is_stored(site: Site, alice: Owner) -> None:
    for data in (secret(alice), alice.public(ALICE) + secret(alice), armored(secret(alice), b"PRIVATE KEY BLOCK")):
        for done in (site.enrol(data), site.keys("import", "--all", "-", data=data)):
            assert done.returncode == 65
            assert "SECRET key, which must never be on a mail server" in said(done)
    assert site.stored() == []


def without_user_id(owner: Owner) -> bytes:
    owner.make_key(ALICE)
    whole = owner.public(ALICE)
    first = whole.index(b"<" + ALICE.encode())
    return whole[: first - 2] + whole[first + len(ALICE) + 2 :]


def with_another_key_s_name(owner: Owner) -> bytes:
    owner.make_key(ALICE)
    whole = owner.public(ALICE)
    first = whole.index(b"<" + ALICE.encode())
    return whole.replace(b"<" + ALICE.encode(), b"<" + ALICE.replace("alice", "mally").encode()) if first else b""


BAD: dict[str, tuple[Callable[[Owner], bytes], str]] = {
    "no encryption subkey": (lambda owner: made(owner, "ed25519", "sign", "never"), "it cannot encrypt"),
    "expired": (expired, "expired on 2020-0"),
    "revoked": (revoked, "was revoked"),
    "weak RSA": (lambda owner: made(owner, "rsa1024", "default", "never"), "has 1024 bits"),
    "weak DSA": (lambda owner: made(owner, "dsa1024", "default", "never"), "(DSA) has 1024 bits"),
    "no user ID": (without_user_id, "it has no user ID"),
    "user ID without its key's signature": (with_another_key_s_name, "gpg does not take it"),
    "version 3": (lambda _: packet(6, b"\x03" + b"\x00" * 40) + uid(ALICE), "it is a key of version 3"),
    "random octets": (lambda _: bytes(range(128, 256)) * 3, "does not begin with a public key"),
    "text": (lambda _: b"My key is in the attachment.\n", "there is no OpenPGP certificate in it"),
    "nothing": (lambda _: b"", "there is no OpenPGP certificate in it"),
    "broken packets": (lambda _: packet(6, b"\x04\x65\x00\x00\x00\x16") + uid(ALICE), "gpg does not take it"),
}


@pytest.mark.parametrize("kind", BAD)
def test_key_that_could_not_be_encrypted_to_is_refused(
    kind: str, site: Site, alice: Owner, new_owner: Callable[[], Owner]
) -> None:
    make, reason = BAD[kind]
    data = make(new_owner())
    done = site.enrol(data)
    assert done.returncode == 65
    assert reason in said(done)
    assert site.stored() == []
    # Nor is a good one taken that came with it, where one user was named.
    done = site.enrol(alice.gpg("--armor", "--export") + armored(data))
    assert done.returncode == 65
    assert site.stored() == []


def test_revocation_is_not_undone_by_an_older_copy(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    old = owner.public(ALICE)
    site.enrol(old)
    owner.revoke(fingerprint)
    keyring = site.home(ALICE) / ".cryptomail"
    command = ["gpg", "--homedir", str(keyring), "--batch", "--quiet", "--no-autostart", "--import"]
    subprocess.run(command, input=owner.public(ALICE), check=True, capture_output=True)
    done = site.enrol(old)
    assert done.returncode == 65
    assert "it was revoked" in said(done)


def revocation(owner: Owner) -> bytes:
    """The packet in which the owner's key says that it was revoked, which gpg made with it."""
    armored = (owner.home / "openpgp-revocs.d" / f"{fingerprint_of(owner)}.rev").read_bytes()
    return owner.gpg("--dearmor", data=armored.replace(b":-----BEGIN", b"-----BEGIN"))


def with_revocation(public: bytes, made: bytes) -> bytes:
    """The public key with a packet where revocations are, behind the primary key."""
    assert public[0] == 0x98  # so that the next octet is its length
    return public[: 2 + public[1]] + made + public[2 + public[1] :]


def test_revoked_copy_of_a_key_that_is_there_ends_its_use(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    old = owner.public(ALICE)
    site.enrol(old)
    owner.revoke(fingerprint)
    for data in (owner.public(ALICE), owner.public(ALICE), old):
        done = site.enrol(data)
        assert done.returncode == 65
        assert "was revoked" in said(done)
        assert deliver(site).returncode == 75
    again = site.enrol(owner.public(ALICE))
    assert f"revoked\t{fingerprint}\tit was revoked" in said(again)
    assert "1 of 1 key was revoked: see the report" in said(again)
    (outcome,) = json.loads(site.keys("import", "--user", ALICE, "--json", "-", data=owner.public(ALICE)).stdout)
    assert outcome["status"] == "revoked"
    assert site.keys("check", "--user", ALICE).returncode == 2
    site.config.write_text('[on]\nunusable_key = "store-plain"\n')
    assert deliver(site).stdout == MESSAGE


def test_key_whose_encryption_subkey_was_revoked_is_used_no_more(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    site.enrol(owner.public(ALICE))
    owner.gpg("--command-fd", "0", "--edit-key", fingerprint, data=b"key 1\nrevkey\ny\n0\n\ny\nsave\n")
    done = site.enrol(owner.public(ALICE))
    assert f"revoked\t{fingerprint}\tit has no usable encryption subkey" in said(done)
    assert deliver(site).returncode == 75
    time.sleep(1.1)
    owner.gpg("--quick-add-key", fingerprint, "cv25519", "encr")
    assert f"renewed\t{fingerprint}" in said(site.enrol(owner.public(ALICE)))
    assert decrypt(site.filter(), owner) == MESSAGE


def test_revocation_that_another_key_made_changes_nothing(site: Site, alice: Owner, mallory: Owner) -> None:
    public = alice.public(ALICE)
    site.enrol(public)
    before = (site.home(ALICE) / ".cryptomail/pubring.kbx").read_bytes()
    others = revocation(mallory)
    forged, own = others, revocation(alice)
    for size in (20, 8):  # the issuer's fingerprint and its key ID
        theirs, hers = (bytes.fromhex(fingerprint_of(one))[-size:] for one in (mallory, alice))
        forged = forged.replace(theirs, hers)
    spoilt = own[:-1] + bytes([own[-1] ^ 1])
    assert len({others, forged, spoilt, own}) == 4
    for wrong in (others, forged, spoilt):
        assert "unchanged" in said(site.enrol(with_revocation(public, wrong)))
        assert (site.home(ALICE) / ".cryptomail/pubring.kbx").read_bytes() == before
    assert "revoked" in said(site.enrol(with_revocation(public, own)))


def test_revoked_key_that_is_not_there_is_refused_and_changes_no_other(
    site: Site, alice: Owner, new_owner: Callable[[], Owner]
) -> None:
    site.enrol(alice.public(ALICE))
    done = site.enrol(revoked(new_owner()))
    assert "refused" in said(done)
    assert site.stored() == [fingerprint_of(alice)]
    assert decrypt(site.filter(), alice) == MESSAGE


def test_new_key_is_taken_that_comes_with_the_revoked_old_one(
    site: Site, alice: Owner, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    site.enrol(owner.public(ALICE))
    owner.revoke(fingerprint)
    both = owner.public(ALICE) + alice.public(ALICE)
    done = site.enrol(both)
    assert f"revoked\t{fingerprint}" in said(done)
    assert f"imported\t{fingerprint_of(alice)}" in said(done)
    assert decrypt(site.filter(), alice) == MESSAGE


def test_revocation_is_taken_though_what_came_with_it_is_refused(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    site.enrol(owner.public(ALICE))
    owner.revoke(fingerprint)
    done = site.enrol(expired(new_owner()) + owner.public(ALICE))
    assert f"revoked\t{fingerprint}" in said(done)
    assert deliver(site).returncode == 75


def test_revocation_alone_is_refused_with_what_to_do(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    owner.make_key(ALICE)
    site.enrol(owner.public(ALICE))
    assert "it is a revocation alone: import it into a copy of the key" in said(site.enrol(revocation(owner)))


def deliver(site: Site) -> "subprocess.CompletedProcess[bytes]":
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    return run("filter", data=MESSAGE, environment=environment, config=site.config)


def test_keys_are_set_up_and_removed_in_a_key_file(site: Site, alice: Owner, bob: Owner, key_file: Path) -> None:
    assert "imported" in said(site.enrol(alice.public(ALICE)))
    assert certificate.read(key_file.read_bytes()).certificates[0].fingerprint == fingerprint_of(alice)
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o644
    assert decrypt(site.filter(), alice) == MESSAGE
    before = key_file.stat()
    assert "unchanged" in said(site.enrol(alice.public(ALICE)))
    assert key_file.stat() == before
    assert "imported" in said(site.enrol(bob.public(BOB), ALICE, "--foreign"))
    reading = certificate.read(key_file.read_bytes())
    assert (len(reading.certificates), reading.problems) == (2, ())
    assert site.keys("check", "--user", ALICE).returncode == 0
    assert decrypt(site.filter(), bob) == MESSAGE
    assert "1 left" in said(site.keys("remove", "--user", ALICE, fingerprint_of(bob)))
    assert "no key is left" in said(site.keys("remove", "--user", ALICE, fingerprint_of(alice)))
    assert list(key_file.parent.iterdir()) == []
    assert site.filter() == MESSAGE


def test_revocation_is_taken_over_into_a_key_file(site: Site, new_owner: Callable[[], Owner], key_file: Path) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    key_file.write_bytes(owner.public(ALICE))
    owner.revoke(fingerprint)
    assert f"revoked\t{fingerprint}" in said(site.enrol(owner.public(ALICE)))
    assert deliver(site).returncode == 75


def test_key_file_in_a_directory_that_is_not_there_is_refused(site: Site, alice: Owner, key_file: Path) -> None:
    key_file.parent.rmdir()
    done = site.enrol(alice.public(ALICE))
    assert done.returncode == 65
    assert f"there is no directory {key_file.parent}: make it" in said(done)


def test_link_in_the_place_of_a_key_file_is_not_followed(site: Site, alice: Owner, bob: Owner, key_file: Path) -> None:
    other = site.directory / "other"
    other.write_bytes(bob.public(BOB))
    key_file.symlink_to(other)
    assert "cannot read" in said(site.enrol(alice.public(ALICE)))
    assert "cannot read" in said(site.keys("remove", "--user", ALICE, fingerprint_of(bob)))
    assert other.read_bytes() == bob.public(BOB)


def test_fifty_thousand_strangers_signatures_are_not_stored_and_cost_little(site: Site, alice: Owner) -> None:
    whole = alice.public(ALICE)
    place = whole.index(ALICE.encode()) + len(ALICE) + 1
    crowded = whole[:place] + signature("C" * 40, by_fingerprint=True) * 50_000 + whole[place:]
    started = time.monotonic()
    assert site.enrol(crowded).returncode == 0
    assert time.monotonic() - started < 15
    assert (site.home(ALICE) / ".cryptomail/pubring.kbx").stat().st_size < 2_000


def test_certificates_are_given_to_the_users_whose_exact_addresses_they_have(
    site: Site, alice: Owner, bob: Owner, mallory: Owner
) -> None:
    stream = b"".join([mallory.public("m" + ALICE), alice.public(ALICE), bob.public(BOB)])
    done = site.keys("import", "--all", "-", "--json", data=stream)
    assert done.returncode == 65
    outcomes = {one["user"]: one for one in json.loads(done.stdout)}
    assert {user: one["status"] for user, one in outcomes.items()} == {
        ALICE: "imported",
        BOB: "imported",
        "m" + ALICE: "refused",
    }
    assert "there is no such user" in outcomes["m" + ALICE]["note"]
    assert (site.stored(ALICE), site.stored(BOB)) == ([fingerprint_of(alice)], [fingerprint_of(bob)])
    assert sorted(path.name for path in (site.directory / "mail/example.org").iterdir()) == ["alice", "bob"]


def test_address_in_a_stream_counts_only_if_its_key_signed_it(site: Site, mallory: Owner) -> None:
    forged = mallory.public("m" + ALICE) + uid(ALICE)
    done = site.keys("import", "--all", "-", data=forged)
    assert done.returncode == 65
    assert f"no valid user ID of it has the address {ALICE}" in said(done)
    assert site.stored() == []


def test_user_name_in_a_stream_cannot_be_a_path(site: Site, alice: Owner) -> None:
    whole = alice.public(ALICE)
    for address in ("..@example.org", "../x@example.org", "alice@..", "a/b@example.org"):
        done = site.keys("import", "--all", "-", data=whole + uid(address))
        assert "imported" in said(done)
    assert site.stored() == [fingerprint_of(alice)]


def test_folder_has_a_file_for_each_user_and_a_bad_one_stops_no_other(
    site: Site, alice: Owner, bob: Owner, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{ALICE}.asc").write_bytes(alice.gpg("--armor", "--export"))
    (folder / f"{BOB}.pgp").write_bytes(secret(bob))
    (folder / "README").write_bytes(b"not a key")
    done = site.keys("import", "--all", str(folder))
    assert done.returncode == 65
    assert "1 imported, 0 renewed, 0 unchanged, 1 refused" in said(done)
    assert "SECRET" in said(done)
    assert (site.stored(ALICE), site.stored(BOB)) == ([fingerprint_of(alice)], [])


def test_two_users_never_share_a_keyring(site: Site, alice: Owner, bob: Owner) -> None:
    both = alice.public(ALICE) + bob.public(BOB)
    site.config.write_text(f'[keyrings]\nowner = ["{site.directory}/keys"]\n')
    done = site.keys("import", "--all", "-", data=both)
    assert (done.returncode, done.stdout) == (64, b"")
    assert "the same place for everybody" in said(done)
    assert not (site.directory / "keys").exists()


def test_keyring_that_is_a_link_is_refused(site: Site, alice: Owner, bob: Owner) -> None:
    site.enrol(bob.public(BOB), BOB)
    (site.home(ALICE) / ".cryptomail").symlink_to(site.home(BOB) / ".cryptomail")
    done = site.enrol(alice.public(ALICE))
    assert done.returncode == 65
    assert "it is a link" in said(done)
    assert site.stored(BOB) == [fingerprint_of(bob)]


def test_imports_at_the_same_time_lose_nothing_and_deliveries_go_on(
    site: Site, new_owner: Callable[[], Owner], alice: Owner
) -> None:
    owner = new_owner()
    addresses = [f"k{number}@example.org" for number in range(6)]
    made = [owner.make_key(address) for address in addresses]
    site.enrol(alice.public(ALICE))
    with ThreadPoolExecutor(8) as pool:
        imports = [pool.submit(site.enrol, owner.public(address), ALICE, "--foreign") for address in addresses]
        deliveries = [pool.submit(site.filter) for _ in range(12)]
        assert [one.result().returncode for one in imports] == [0] * len(addresses)
        assert all(decrypt(one.result(), alice) == MESSAGE for one in deliveries)
    assert sorted(site.stored()) == sorted([*made, fingerprint_of(alice)])


def test_gpg_that_fails_changes_nothing(site: Site, alice: Owner) -> None:
    path = site.another_gpg("echo 'gpg: out of order' >&2; exit 2")
    done = site.keys("import", "--user", ALICE, "-", data=alice.public(ALICE), path=path)
    assert done.returncode == 65
    assert "gpg cannot import keys: gpg: out of order" in said(done)
    assert site.stored() == []


@pytest.mark.parametrize("terminal", [False, True])
def test_command_that_is_stopped_leaves_nothing_behind(terminal: bool, site: Site, alice: Owner) -> None:
    started = site.for_everybody("started")
    path = site.another_gpg(f'case "$*" in *--import*) echo >> {started}; exec sleep 60;; esac; exec /usr/bin/gpg "$@"')
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
    command = [sys.executable, "-c", code, "keys", "import", "--home-template", site.template, "--user", ALICE, "-"]
    with subprocess.Popen(
        command, stdin=-1, stdout=-1, stderr=-1, env={"PATH": path}, start_new_session=True
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(alice.public(ALICE))
        process.stdin.close()
        while not started.read_bytes():
            time.sleep(0.05)
        if terminal:
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: all processes of the command get it
        else:
            process.send_signal(signal.SIGTERM)
        error = process.stderr.read()
        process.wait(20)
    assert process.returncode == 75
    assert error.startswith(b"cryptomail: stopped by SIG" + (b"INT" if terminal else b"TERM"))
    assert error.count(b"\n") == 1
    assert site.stored() == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--user", ALICE], "name a FILE"),
        (["x"], "name --user, or --all"),
        (["--user", ALICE, "--all", "-"], "name --user, or --all"),
        (["--all", "-", "x"], "takes one folder"),
        (["--all", "-", "--home", "/x"], "--home is one owner's"),
        (["--user", "../x", "-"], "it must not be a path"),
        (["--user", "-x@y", "--home", "relative", "-"], "expected one argument"),
        (["--user", ALICE, "--home", "relative", "-"], "HOME is not an absolute path"),
        (["--user", ALICE, "--home-template", "/home/%h", "-"], "must have %u or %n"),
        (["--user", ALICE, "--home-template", "/home/x", "-"], "must have %u or %n"),
        (["--user", ALICE, "--home-template", "home/%u", "-"], "not an absolute path"),
        (["--user", ALICE, "--home-template", "/home/%u%", "-"], "not an absolute path"),
    ],
)
def test_wrong_command_line_is_one_line(arguments: list[str], line: str, site: Site, alice: Owner) -> None:
    done = site.keys("import", *arguments, data=alice.public(ALICE))
    assert (done.returncode, done.stdout) == (64, b"")
    assert line in said(done)


def test_dovecot_says_where_homes_are(site: Site, alice: Owner, tmp_path: Path) -> None:
    environment = doveadm(
        tmp_path,
        f'[ "$1" = user ] || exit 64\ncase "$*" in "user -- {ALICE}") {answer(site, ALICE)};;'
        f' "user *") printf "%s\\n" {ALICE};; *) exit 67;; esac',
    )
    arguments = ("keys", "import", "--user", ALICE, "-")
    done = run(*arguments, data=alice.public(ALICE), environment=environment, config=site.config)
    assert done.returncode == 0, done.stderr
    listed = run("keys", "list", "--all", environment=environment, config=site.config)
    assert listed.stdout.decode().startswith(f"{ALICE}\t{fingerprint_of(alice)}\t{ALICE}\t")
    nobody = run("keys", "list", "--user", BOB, environment=environment, config=site.config)
    assert f"Dovecot has no user {BOB}" in said(nobody)
    mask = run("keys", "list", "--user", "*@example.org", environment=environment, config=site.config)
    assert "there can be no user *@example.org" in said(mask)


@pytest.mark.parametrize(
    ("script", "line"),
    [("echo 'Error: auth: connect failed' >&2; exit 75", "auth: connect failed; is Dovecot up?"), ("true", "no home")],
)
def test_dovecot_that_cannot_say_is_a_clear_error(
    script: str, line: str, site: Site, alice: Owner, tmp_path: Path
) -> None:
    environment = doveadm(tmp_path, script)
    arguments = ("keys", "import", "--user", ALICE, "-")
    done = run(*arguments, data=alice.public(ALICE), environment=environment, config=site.config)
    assert done.returncode == 67
    assert line in said(done)
    assert "--home-template" in said(done)


def test_key_is_removed_by_its_full_fingerprint_only(site: Site, alice: Owner, bob: Owner) -> None:
    site.enrol(alice.public(ALICE))
    site.enrol(bob.public(BOB), ALICE, "--foreign")
    fingerprint = fingerprint_of(alice)
    short = site.keys("remove", "--user", ALICE, fingerprint[-16:])
    assert short.returncode == 64
    assert "is not a full fingerprint" in said(short)
    absent = site.keys("remove", "--user", ALICE, "A" * 40)
    assert absent.returncode == 65
    assert f"there is no key {'A' * 40} in " in said(absent)
    assert "1 left" in said(site.keys("remove", "--user", ALICE, fingerprint.lower()))
    assert site.stored() == [fingerprint_of(bob)]
    assert "no key is left" in said(site.keys("remove", "--user", ALICE, fingerprint_of(bob)))
    assert site.filter() == MESSAGE
    assert "there is no keyring" in said(site.keys("remove", "--user", BOB, fingerprint))


def test_a_test_uses_the_engine_that_deliveries_use_and_checks_what_it_wrote(
    site: Site, alice: Owner, bob: Owner
) -> None:
    """gpg says here that it has encrypted, and what it wrote is for somebody else."""
    site.enrol(alice.public(ALICE))
    wrong = site.for_everybody("wrong")
    wrong.write_bytes(bob.gpg("--trust-model", "always", "-r", f"<{BOB}>", "--encrypt", data=b"trial"))
    script = f'case "$*" in *--encrypt*) cat >/dev/null; echo "[GNUPG:] END_ENCRYPTION" >&2; cat {wrong};;'
    path = site.another_gpg(f'{script} *) exec /usr/bin/gpg "$@";; esac')
    site.config.write_text('engine = "gnupg"\n')
    done = site.keys("test", "--user", ALICE, path=path)
    assert done.returncode == 75
    assert "gpg encrypted to other keys than it was asked to" in said(done)
    site.config.write_text('engine = "sequoia"\n')
    assert site.keys("test", "--user", ALICE, path=path).returncode == 0


def test_show_and_test_tell_what_a_delivery_would_do(site: Site, alice: Owner) -> None:
    assert "is NOT encrypted: its owner has no key set up" in said(site.keys("test", "--user", ALICE))
    site.enrol(alice.public(ALICE))
    shown = said(site.keys("show", "--user", ALICE))
    assert fingerprint_of(alice) in shown
    (state,) = json.loads(site.keys("show", "--user", ALICE, "--json").stdout)
    done = site.keys("test", "--user", ALICE)
    assert done.returncode == 0
    assert f"mail for {ALICE} is encrypted, to {state['keys'][0]['used']}" in said(done)


def test_test_fails_where_a_delivery_would(site: Site, new_owner: Callable[[], Owner]) -> None:
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.gpg").write_bytes(revoked(new_owner()))
    done = site.keys("test", "--user", ALICE)
    assert done.returncode == 75
    assert "no usable key" in said(done)


def test_key_is_exported_in_armor_whatever_its_length(site: Site, alice: Owner, new_owner: Callable[[], Owner]) -> None:
    for name in ("a", "ab", "abc"):  # so that base64 needs padding, or not
        owner, stranger = new_owner(), new_owner()
        owner.gpg("--quick-gen-key", f"{name} <{ALICE}>", "ed25519", "cert", "never")
        owner.gpg("--quick-add-key", fingerprint_of(owner), "cv25519", "encr", "never")
        user = f"{name}@example.org"
        site.make(user)
        assert site.enrol(owner.public(ALICE), user, "--foreign").returncode == 0
        done = site.keys("export", "--user", user)
        assert done.returncode == 0
        stranger.gpg("--import", data=done.stdout)
        assert fingerprint_of(stranger) == fingerprint_of(owner)
    assert "has no key" in said(site.keys("export", "--user", BOB))


def test_web_key_directory_has_each_key_where_gpg_looks_for_it(
    site: Site, alice: Owner, bob: Owner, tmp_path: Path
) -> None:
    site.enrol(alice.public(ALICE))
    site.enrol(bob.public(BOB), BOB)
    done = site.keys("export", "--all", "--wkd", str(tmp_path / "www"))
    assert done.returncode == 0, done.stderr
    listing = alice.gpg("--with-wkd-hash", "--list-keys").decode()
    (name,) = (line.split("@")[0].strip() for line in listing.splitlines() if line.strip().endswith("@example.org"))
    domain = tmp_path / "www/openpgpkey/example.org"
    assert (domain / "policy").exists()
    assert (
        f":{fingerprint_of(alice)}:"
        in alice.gpg("--with-colons", "--show-keys", data=(domain / "hu" / name).read_bytes()).decode()
    )
    assert len(list((domain / "hu").iterdir())) == 2
