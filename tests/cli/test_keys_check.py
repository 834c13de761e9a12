"""`cryptomail keys check` and `list`: what an administrator's monitoring gets from them."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.errors import CryptomailError, UsageError
from sieve_filter.owners import directory
from tests.support.filtered import MESSAGE, fingerprint_of
from tests.support.server import ALICE, run
from tests.support.site import BOB, NOBODY, Site, answer, doveadm, expired, revoked, said


def put(site: Site, data: bytes, user: str = ALICE) -> None:
    """Have a keyring there that `import` would not have made."""
    keyring = site.home(user) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.gpg").write_bytes(data)


def test_all_is_well_where_keys_are_good_or_absent(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    done = site.keys("check", "--all")
    assert done.returncode == 0
    assert said(done).startswith("KEYS OK - 2 users, 1 without a key | users=2 ok=2 ")


def test_key_that_expires_soon_is_a_warning(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="20d")
    site.enrol(owner.public(ALICE))
    done = site.keys("check", "--all")
    assert done.returncode == 1
    assert said(done).startswith("KEYS WARNING - ")
    assert f"WARNING: {ALICE}: key {fingerprint} expires on " in said(done)
    assert site.keys("check", "--all", "--warn-days", "10").returncode == 0


@pytest.mark.parametrize(("make", "reason"), [(expired, "expired"), (revoked, "was revoked")])
def test_owner_whose_mail_waits_is_critical(
    make: Callable[[Owner], bytes], reason: str, site: Site, new_owner: Callable[[], Owner]
) -> None:
    put(site, make(new_owner()))
    site.config.write_text('[on]\nexpired_key = "refuse"\n')
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 2
    assert reason in said(done)
    assert "mail waits" in said(done)


@pytest.mark.parametrize(
    ("setting", "code", "tested", "words"),
    [
        ("encrypt-anyway", 1, 0, "mail is encrypted to it all the same"),
        ("refuse", 2, 75, "mail waits"),
        ("store-plain", 2, 0, "mail is stored in clear"),
    ],
)
def test_of_an_expired_key_is_told_what_deliveries_do(
    setting: str, code: int, tested: int, words: str, site: Site, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    put(site, expired(owner))
    site.config.write_text(f'[on]\nexpired_key = "{setting}"\n')
    environment = {"USER": ALICE, "HOME": str(site.home(ALICE))}
    delivered = run("filter", data=MESSAGE, environment=environment, config=site.config)
    encrypts = delivered.returncode == 0 and delivered.stdout != MESSAGE
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == code
    assert words in said(done)
    assert words in said(site.keys("show", "--user", ALICE))
    (state,) = json.loads(site.keys("list", "--user", ALICE, "--json").stdout)
    assert bool(state["keys"][0]["used"]) == encrypts
    trial = site.keys("test", "--user", ALICE)
    assert trial.returncode == tested == delivered.returncode
    if tested == 0:
        assert ("is encrypted, to" if encrypts else "is NOT encrypted: no usable key") in said(trial)


def test_owner_is_warned_of_a_subkey_that_lives_less_than_a_year(site: Site, new_owner: Callable[[], Owner]) -> None:
    """When it has expired and there is no other, mail waits: see the tests of `filter`."""
    owner = new_owner()
    owner.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never")
    owner.gpg("--quick-add-key", fingerprint_of(owner), "cv25519", "encr", "90d")
    imported = site.enrol(owner.public(ALICE))
    assert imported.returncode == 0
    assert "warning: its encryption subkey is good for 90 days only" in said(imported)
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 1
    assert "has an encryption subkey that is good for 90 days only: set up the next in time" in said(done)


def test_weak_and_old_keys_are_found(site: Site, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    owner.gpg("--quick-gen-key", f"<{ALICE}>", "rsa1024", "cert,encrypt", "never")
    owner.gpg("--cert-digest-algo", "SHA1", "--quick-gen-key", f"<{BOB}>", "rsa2048", "cert,encrypt", "never")
    put(site, owner.public(ALICE))
    put(site, owner.public(BOB), BOB)
    done = site.keys("check", "--all")
    assert done.returncode == 2
    assert f"CRITICAL: {ALICE}: key" in said(done)
    assert "has 1024 bits" in said(done)
    assert f"WARNING: {BOB}: key" in said(done)
    assert "SHA-1" in said(done)


def test_several_keys_are_told_and_which_are_used(site: Site, alice: Owner, new_owner: Callable[[], Owner]) -> None:
    put(site, alice.public(ALICE) + revoked(new_owner()))
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 1
    assert "has 2 keys, of which 1 is used" in said(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_keyring_that_a_delivery_could_not_read_is_critical(site: Site, alice: Owner) -> None:
    put(site, alice.public(ALICE))
    os.chown(site.home(ALICE), NOBODY, NOBODY)
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 2
    assert "check its owner and mode" in said(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("action", ["check", "list", "import", "test", "remove", "export"])
def test_home_that_is_another_user_s_than_dovecot_delivers_as_is_refused(
    action: str, site: Site, alice: Owner, tmp_path: Path
) -> None:
    """After a mistake in the userdb, say: root would change one user's keys with what is meant for another."""
    os.chown(site.home(ALICE), NOBODY, NOBODY)
    environment = doveadm(tmp_path, answer(site, ALICE))  # who says that it delivers as user ID 5000
    more = {"import": ("-",), "remove": ("A" * 40,)}.get(action, ())
    done = run("keys", action, "--user", ALICE, *more, data=alice.public(ALICE), environment=environment)
    assert done.returncode != 0
    assert f"{site.home(ALICE)} belongs to user ID {NOBODY}, and Dovecot delivers as user ID 5000: " in said(done)
    assert site.stored() == []


def test_keyring_that_others_may_write_to_is_a_warning(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    (site.home(ALICE) / ".cryptomail").chmod(0o777)
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 1
    assert "others may write to" in said(done)


def test_key_file_that_others_may_write_to_is_a_warning(site: Site, alice: Owner) -> None:
    site.config.write_text(f'[keyrings]\nowner = ["{site.directory}/keys/%u"]\n')
    file = site.directory / "keys" / ALICE
    file.parent.mkdir()
    file.write_bytes(alice.public(ALICE))
    assert site.keys("check", "--user", ALICE).returncode == 0
    for path in (file, file.parent):
        mode = path.stat().st_mode
        path.chmod(mode | 0o022)
        done = site.keys("check", "--user", ALICE)
        assert done.returncode == 1
        assert f"others may write to {path}: chmod go-w it" in said(done)
        path.chmod(mode)


def test_damaged_shared_keyring_is_critical_for_all_whose_keys_may_be_lost(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    shared = site.directory / "shared"
    (site.home(ALICE) / ".cryptomail").rename(shared)
    site.config.write_text(f'[keyrings]\nshared = ["{shared}"]\n')
    assert site.keys("check", "--user", BOB).returncode == 0
    keyring = shared / "pubring.kbx"
    keyring.write_bytes(keyring.read_bytes().replace(ALICE.encode(), b"?" * len(ALICE)))
    done = site.keys("check", "--user", BOB)
    assert done.returncode == 2
    assert "is damaged" in said(done)


def test_damaged_keyring_is_critical(site: Site) -> None:
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.kbx").write_bytes(b"\x00\x00\x00\x20\x01\x01\x00\x02KBXf" + b"\xff" * 900)
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 2
    assert "CRITICAL" in said(done)


def test_keyring_that_was_emptied_is_critical_until_the_key_is_imported_again(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    (site.home(ALICE) / ".cryptomail/pubring.kbx").write_bytes(b"")
    done = site.keys("check", "--user", ALICE)
    assert done.returncode == 2
    assert "is damaged, because gpg finds no key in it: set the keys up again" in said(done)
    assert site.enrol(alice.public(ALICE)).returncode == 0
    assert site.filter() != MESSAGE


def test_nothing_known_is_unknown(site: Site, tmp_path: Path) -> None:
    template = ("--home-template", f"{tmp_path}/none/%d/%n")
    done = run("keys", "check", "--all", *template, environment={"PATH": os.environ["PATH"]})
    assert done.returncode == 3
    assert said(done).startswith("KEYS UNKNOWN - 0 users")
    done = run("keys", "check", "--all", environment={"PATH": str(tmp_path)})
    assert done.returncode == 3
    assert "there is no program doveadm" in said(done)


def test_accounts_that_the_administrator_names_are_no_owners(site: Site, alice: Owner) -> None:
    put(site, b"damaged", BOB)
    assert site.keys("check", "--all").returncode == 2
    for names in ('["bob@example.org"]', '["b?b@*"]'):
        site.config.write_text(f"not_owners = {names}\n")
        done = site.keys("check", "--all")
        assert done.returncode == 0
        assert said(done).startswith("KEYS OK - 1 user, 1 without a key (1 account passed over) | ")
        assert said(done).endswith(" passed_over=1\n")
    assert json.loads(site.keys("check", "--all", "--json").stdout)["passed_over"] == 1
    assert b"cryptomail_key_accounts_passed_over 1\n" in site.keys("check", "--all", "--prometheus").stdout
    assert site.keys("list", "--all").returncode == 0
    assert site.keys("check", "--user", BOB).returncode == 2  # who is asked for by name is looked at
    site.config.write_text('not_owners = "bob"\n')
    assert "not_owners must be a list of user names" in said(site.keys("check", "--all"))


def test_machines_get_json_or_prometheus(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    told = json.loads(site.keys("check", "--all", "--json").stdout)
    assert (told["state"], told["passed_over"]) == ("OK", 0)
    assert [(one["user"], one["state"], len(one["keys"])) for one in told["owners"]] == [
        (ALICE, "OK", 1),
        (BOB, "OK", 0),
    ]
    lines = site.keys("check", "--all", "--prometheus").stdout.decode().splitlines()
    assert 'cryptomail_key_users{state="ok"} 2' in lines
    assert f'cryptomail_keys_used{{user="{ALICE}"}} 1' in lines
    assert all(line.startswith("#") or float(line.rpartition(" ")[2]) >= 0 for line in lines)


def test_list_has_a_line_for_each_key(site: Site, alice: Owner, bob: Owner) -> None:
    site.enrol(alice.public(ALICE))
    site.enrol(bob.public(BOB), BOB)
    rows = [line.split("\t") for line in site.keys("list", "--all").stdout.decode().splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [
        (ALICE, fingerprint_of(alice), "used"),
        (BOB, fingerprint_of(bob), "used"),
    ]


def test_looking_changes_nothing(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    before = {path: path.stat() for path in site.directory.rglob("*")}
    for action in (["list", "--all"], ["check", "--all"], ["show", "--user", ALICE], ["test", "--user", ALICE]):
        assert site.keys(*action).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in site.directory.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }


def test_terminal_gets_a_table(site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main('/nonexistent'))"
    command = [sys.executable, "-c", code, "keys", "list", "--all", "--home-template", site.template]
    parent, child = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "200", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=environment) as process:
        process.wait(30)
        time.sleep(0.1)
        shown = os.read(parent, 65536).decode()
    os.close(parent)
    os.close(child)
    assert fingerprint_of(alice) in shown
    assert "\u2502" in shown  # a line of the table


@pytest.mark.parametrize(
    ("template", "made", "users"),
    [
        ("%d/%n", ["a.org/x", "a.org/y", "b.org/x", ".git/x", "a.org/.x"], ["x@a.org", "x@b.org", "y@a.org"]),
        ("%u/mail", ["x@a.org/mail", "y/mail", "z"], ["x@a.org", "y"]),
        ("%d/%n/%u", ["a.org/x/x@a.org", "a.org/x/y@a.org"], ["x@a.org"]),
        ("100%%/[x]/%n", ["100%/[x]/u", "100%/x/u"], ["u"]),
    ],
)
def test_users_are_the_directories_that_fit_the_template(
    template: str, made: list[str], users: list[str], tmp_path: Path
) -> None:
    for path in made:
        (tmp_path / path).mkdir(parents=True)
    whole = f"{str(tmp_path).replace('%', '%%')}/{template}"
    directory.check(whole)
    assert sorted(directory.everybody(whole)) == users
    for _, account in directory.find_each(users, whole):
        assert not isinstance(account, CryptomailError)
        assert Path(account.home).is_dir()


@pytest.mark.parametrize("template", ["", "x/%u", "/x", "/x/%d", "/%h/%u", "/%u%", "/%q%u"])
def test_template_that_could_not_be_right_is_refused(template: str) -> None:
    with pytest.raises(UsageError):
        directory.check(template)
