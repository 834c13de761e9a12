"""Every failure of `cryptomail keys` has its exit code, whatever the action; `check` has those of Nagios' plugins."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.keys import Owner
from tests.support.filtered import fingerprint_of
from tests.support.server import ALICE, Command, run
from tests.support.site import BOB, NOBODY, Site, answer, doveadm, expired, said

FINGERPRINT = "A" * 40
UNKNOWN, REFUSED, NO_USER, OFFLINE, NO_PLACE, LATER, WRONG_CONFIG = 3, 65, 67, 69, 73, 75, 78

OF_ONE = {
    "import": ["import", "--no-notify", "--user", ALICE, "-"],
    "list": ["list", "--user", ALICE],
    "list --json": ["list", "--user", ALICE, "--json"],
    "show": ["show", "--user", ALICE],
    "show --json": ["show", "--user", ALICE, "--json"],
    "remove": ["remove", "--user", ALICE, FINGERPRINT],
    "export": ["export", "--user", ALICE],
    "test": ["test", "--user", ALICE],
    "test --send": ["test", "--send", "--user", ALICE],
    "fetch": ["fetch", "--no-notify", "--user", ALICE, "--from", "wkd"],
    "refresh": ["refresh", "--no-notify", "--user", ALICE, "--from", "wkd"],
    "check": ["check", "--user", ALICE],
    "check --json": ["check", "--user", ALICE, "--json"],
    "check --prometheus": ["check", "--user", ALICE, "--prometheus"],
}
OF_ALL = {
    "list": ["list", "--all"],
    "export": ["export", "--all", "--wkd", "/nonexistent/www"],
    "refresh": ["refresh", "--no-notify", "--all", "--from", "wkd"],
    "check": ["check", "--all"],
    "check --json": ["check", "--all", "--json"],
    "check --prometheus": ["check", "--all", "--prometheus"],
}
EVERY = [pytest.param(one, id=f"{name} of one") for name, one in OF_ONE.items()]
EVERY += [pytest.param(one, id=f"{name} of all") for name, one in OF_ALL.items()]
EACH = [pytest.param(one, id=name) for name, one in OF_ONE.items()]


def code(arguments: list[str], otherwise: int) -> int:
    return UNKNOWN if arguments[0] == "check" else otherwise


@pytest.mark.parametrize("arguments", EACH)
def test_user_whom_dovecot_does_not_know(arguments: list[str], site: Site, alice: Owner, tmp_path: Path) -> None:
    environment = doveadm(tmp_path, "exit 67")
    done = run("keys", *arguments, data=alice.public(ALICE), environment=environment, config=site.config)
    assert done.returncode == code(arguments, NO_USER), done
    assert "--prometheus" in arguments or f"Dovecot has no user {ALICE}" in said(done)


@pytest.mark.parametrize("arguments", EVERY)
def test_server_without_doveadm(arguments: list[str], site: Site, alice: Owner, tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path)}
    done = run("keys", *arguments, data=alice.public(ALICE), environment=environment, config=site.config)
    assert done.returncode == code(arguments, NO_USER), done
    assert "--prometheus" in arguments or "there is no program doveadm" in said(done)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("arguments", EVERY)
def test_ordinary_user_who_may_not_look_into_others_homes(arguments: list[str], site: Site, alice: Owner) -> None:
    site.enrol(alice.public(ALICE))
    main = "from sieve_filter.cli.main import main; import sys; sys.exit(main('/nonexistent', sendmail_path=''))"
    command = [sys.executable, "-c", main, "keys", *arguments, "--home-template", site.template]
    done = subprocess.run(
        command, input=alice.public(ALICE), capture_output=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/"
    )
    reported = {"import": REFUSED, "refresh --all": OFFLINE}  # a line of the report says why
    action = "refresh --all" if arguments[0] == "refresh" and "--all" in arguments else arguments[0]
    assert done.returncode == code(arguments, reported.get(action, NO_PLACE)), done
    error = done.stderr.decode()
    assert "Traceback" not in error
    assert "--prometheus" in arguments or "run this as that user, or as root" in done.stdout.decode() + error


@pytest.mark.parametrize("content", [b"no_such_setting = 1\n", b"this is not TOML\n", b"\xff\n", None])
@pytest.mark.parametrize("arguments", EVERY)
def test_configuration_that_cannot_be_read(
    arguments: list[str], content: bytes | None, site: Site, alice: Owner
) -> None:
    site.config.mkdir() if content is None else site.config.write_bytes(content)
    done = site.keys(*arguments, data=alice.public(ALICE))
    assert done.returncode == code(arguments, WRONG_CONFIG), done
    assert "--prometheus" in arguments or str(site.config) in said(done)
    assert said(done).count("\n") == 1 or {"--json", "--prometheus"} & set(arguments)


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["test"], ["check"]])
def test_keyring_that_a_delivery_could_not_read(arguments: list[str], site: Site, alice: Owner) -> None:
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.kbx").write_bytes(b"\x00\x00\x00\x20\x01\x01\x00\x02KBXf" + b"\xff" * 900)
    done = site.keys(*arguments, "--user", ALICE)
    assert done.returncode == (2 if arguments == ["check"] else LATER), done
    assert str(keyring) in said(done)


def test_one_owner_who_cannot_be_looked_at_hides_no_other(site: Site, alice: Owner, tmp_path: Path) -> None:
    site.enrol(alice.public(ALICE))
    know = f'case "$*" in "user -- {ALICE}") {answer(site, ALICE)};; "user *") echo {ALICE}; echo {BOB};;'
    environment = doveadm(tmp_path, f"{know} *) exit 75;; esac")
    listed = run("keys", "list", "--all", environment=environment, config=site.config)
    assert listed.stdout.decode().startswith(f"{ALICE}\t{fingerprint_of(alice)}\t")
    assert listed.returncode == NO_USER
    assert f"cannot tell about {BOB}" in listed.stderr.decode()
    directory = tmp_path / "www"
    written = run("keys", "export", "--all", "--wkd", str(directory), environment=environment, config=site.config)
    assert b"1 user's keys written" in written.stdout
    assert written.returncode == NO_USER
    assert f"cannot tell about {BOB}" in written.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--all", "--no-such-option"],
        ["--all", "--warn-days", "soon"],
        ["--user", ALICE, "--all"],
        ["--all", "--json", "--prometheus"],
        ["--all", "--config", "/nonexistent/config.toml"],
        ["--user", "../x"],
    ],
)
def test_monitor_is_told_unknown_in_one_line_where_check_was_called_wrongly(
    arguments: list[str], command: Command
) -> None:
    done = command("keys", "check", "--home-template", "/nonexistent/%n", *arguments)
    assert done.returncode == UNKNOWN
    assert done.stderr == b""
    if "--json" not in arguments:
        assert done.stdout.startswith(b"KEYS UNKNOWN - ")


def test_expired_keys_are_listed_without_a_failure(site: Site, new_owner: Callable[[], Owner]) -> None:
    keyring = site.home(ALICE) / ".cryptomail"
    keyring.mkdir(mode=0o700)
    (keyring / "pubring.gpg").write_bytes(expired(new_owner()))
    assert site.keys("list", "--user", ALICE).returncode == 0
    assert site.keys("list", "--user", BOB).returncode == 0
