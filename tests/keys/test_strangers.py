"""A keyring with other people's keys: anybody can make one with the owner's address, and mail it to be imported."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import keys
from lab.keys import Owner
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.register import Run
from tests.support.register import keys as keys_command
from tests.support.server import ALICE, Server, run
from tests.support.site import Site, said


@pytest.fixture(scope="module")
def stranger() -> Iterator[Owner]:
    """Somebody who made a key with Alice's address."""
    with keys.owner() as owner:
        owner.make_key(ALICE)
        yield owner


def grips(owner: Owner) -> list[str]:
    """The names of the files with the owner's secret keys: that of the primary key comes first."""
    listed = owner.gpg("--with-colons", "--with-keygrip", "--list-keys").decode()
    return re.findall(r"^grp:{9}([0-9A-F]{40}):", listed, re.MULTILINE)


def give_secret(home: Path, owner: Owner, which: str = "all") -> None:
    """Have the owner's secret keys in a GnuPG home, as where people read mail on the server."""
    (home / "private-keys-v1.d").mkdir(mode=0o700, exist_ok=True)
    primary, subkey = grips(owner)
    for grip in {"all": (primary, subkey), "the primary key's": (primary,), "the subkey's": (subkey,)}[which]:
        name = f"private-keys-v1.d/{grip}.key"
        (home / name).write_bytes((owner.home / name).read_bytes())


def can_read(stored: bytes, owner: Owner) -> bool:
    environment = {"GNUPGHOME": str(owner.home), "PATH": os.environ["PATH"]}
    return run("decrypt", data=stored, environment=environment).returncode == 0


def test_a_stranger_s_key_is_none_of_the_owner_s(server: Server, stranger: Owner) -> None:
    server.give(stranger.public(ALICE), ".gnupg", trusted=False)
    assert server.filter(MESSAGE).stdout == MESSAGE
    assert server.filter(MESSAGE, "--require").returncode == 75


@pytest.mark.parametrize("how", ["trust", "all", "the primary key's", "the subkey's"])
def test_the_owner_s_key_is_known_by_ultimate_trust_or_its_secret_key(
    how: str, server: Server, alice: Owner, stranger: Owner
) -> None:
    server.give(alice.public(ALICE), ".gnupg", trusted=how == "trust")
    server.give(stranger.public(ALICE), ".gnupg", trusted=False)
    if how != "trust":
        give_secret(server.home / ".gnupg", alice, how)
    stored = server.filter(MESSAGE).stdout
    assert decrypt(stored, alice) == MESSAGE
    assert not can_read(stored, stranger)


def test_a_stranger_s_key_that_has_taken_over_the_owner_s_subkey_gets_no_mail(
    server: Server, alice: Owner, new_owner: Callable[[], Owner]
) -> None:
    """The secret of that subkey is there; of the stranger's newer one beside it, it is not."""
    thief = new_owner()
    early, later = ("--faked-system-time", "20240101T000000"), ("--faked-system-time", "20240201T000000")
    thief.gpg(*early, "--quick-gen-key", f"<{ALICE}>", "ed25519", "cert", "never")
    give_secret(thief.home, alice)  # as if it were so: what gpg needs of it is the public half
    taken = grips(alice)[1]
    answers = f"addkey\n13\n{taken}\nq\n0\nsave\n".encode()
    thief.gpg(*later, "--command-fd", "0", "--expert", "--edit-key", ALICE, data=answers)
    thief.gpg("--quick-add-key", fingerprint_of(thief), "cv25519", "encr", "never")
    assert grips(thief)[1] == taken
    for grip in grips(alice):
        (thief.home / "private-keys-v1.d" / f"{grip}.key").unlink()
    server.give(thief.public(ALICE), ".gnupg", trusted=False)
    give_secret(server.home / ".gnupg", alice)
    stored = server.filter(MESSAGE).stdout
    assert stored != MESSAGE
    assert not can_read(stored, thief)
    keys.trust(server.home / ".gnupg")
    assert can_read(server.filter(MESSAGE).stdout, thief)


def test_check_says_which_key_does_not_count_and_how_to_settle_it(site: Site, alice: Owner, stranger: Owner) -> None:
    home = site.home(ALICE) / ".gnupg"
    home.mkdir(mode=0o700)
    (home / "pubring.gpg").write_bytes(stranger.public(ALICE))
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 1
    assert "has no key" in said(done)
    assert f"key {fingerprint_of(stranger)} in {home} has an address of {ALICE}, and does not count" in said(done)
    assert "set it up with cryptomail keys import" in said(done)
    assert f"gpg --edit-key {fingerprint_of(stranger)} trust" in said(done)
    site.enrol(alice.public(ALICE))
    assert site.keys("check", "--user", ALICE).returncode == 0


def test_an_upgrade_turns_encryption_off_for_nobody(site: Site, installed: Run, alice: Owner) -> None:
    """Where such a key served until now, mail waits until it is known whose it is."""
    home = site.home(ALICE) / ".gnupg"
    home.mkdir(mode=0o700)
    (home / "pubring.gpg").write_bytes(alice.public(ALICE))
    assert keys_command(installed, site, "note", "--all") == "0 noted that mail for 1 users is encrypted\n"
    done = installed("filter", data=MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"does not count, because nothing says that it is theirs" in done.stderr
    assert b"cryptomail keys import" in done.stderr
    assert done.stderr.count(b"\n") == 1
    checked = keys_command(installed, site, "check", "--all")
    assert checked.startswith("2 KEYS CRITICAL")
    assert "does not count" in checked
    keys.trust(home)
    assert decrypt(installed("filter", data=MESSAGE).stdout, alice) == MESSAGE


def test_of_several_keys_with_an_address_that_a_script_names_none_is_guessed(
    server: Server, alice: Owner, stranger: Owner
) -> None:
    server.give(alice.public(ALICE), ".gnupg", trusted=False)
    assert decrypt(server.filter(MESSAGE, "--key", ALICE).stdout, alice) == MESSAGE
    server.give(stranger.public(ALICE), ".gnupg", trusted=False)
    done = server.filter(MESSAGE, "--key", ALICE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"several keys in" in done.stderr
    assert decrypt(server.filter(MESSAGE, "--key", fingerprint_of(alice)).stdout, alice) == MESSAGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root can look into everything")
def test_secret_keys_that_cannot_be_looked_at_make_mail_wait(server: Server, alice: Owner) -> None:
    server.give(alice.public(ALICE), ".gnupg", trusted=False)
    (server.home / ".gnupg/private-keys-v1.d").mkdir(mode=0o000)
    assert server.filter(MESSAGE).returncode == 75
