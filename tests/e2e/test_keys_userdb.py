"""`cryptomail keys` asks a real Dovecot who its users are and where their homes are."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import debian13
from lab.keys import Owner

NOBODY = 65534

CONFIG = {
    "dovecot23": """\
passdb {{
  driver = static
  args = password=x
}}
userdb {{
  {userdb}
}}
""",
    "dovecot24": """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
passdb static {{
  password = x
}}
userdb {userdb}
""",
}
SYSTEM = {"dovecot23": "driver = passwd", "dovecot24": "passwd {{\n}}"}
VIRTUAL = {
    "dovecot23": "driver = passwd-file\n  args = username_format=%u {inside}/users",
    "dovecot24": "passwd-file {{\n  passwd_file_path = {inside}/users\n}}",
}


class Dovecot:
    """A Dovecot that knows users and does nothing else, and `cryptomail keys` run beside it as root."""

    def __init__(self, directory: Path, name: str, userdb: str) -> None:
        self.directory = directory
        root = debian13.TREE if name == "dovecot24" else Path("/")
        inside = f"/{directory.relative_to(root)}"
        for made in ("run", "state", "bin", "mail"):
            (directory / made).mkdir()
        head = "".join(f"{key} = {inside}/{value}\n" for key, value in (("base_dir", "run"), ("state_dir", "state")))
        head += f"log_path = {inside}/log\nssl = no\n" + ("protocols = none\n" if name == "dovecot23" else "")
        text = CONFIG[name].format(userdb=userdb.format(inside=inside))
        # The version has to stand first.
        lines = text.splitlines(keepends=True)
        place = 2 if name == "dovecot24" else 0
        (directory / "d.conf").write_text("".join([*lines[:place], head, *lines[place:]]))
        self.into = ["chroot", str(root)] if name == "dovecot24" else []
        self.config = f"{inside}/d.conf"
        for program in ("doveadm", "doveconf"):
            file = directory / "bin" / program
            command = f'exec {" ".join(self.into)} /usr/bin/{program} -c {self.config} "$@"'
            file.write_text(f"#!/bin/sh\necho {program} >> {directory}/calls\n{command}\n")
            file.chmod(0o755)

    def start(self) -> None:
        command = [*self.into, "dovecot", "-c", self.config]
        with (self.directory / "start").open("wb") as output:  # Dovecot's processes hold on to it
            subprocess.run(command, check=True, stdout=output, stderr=output)

    def stop(self) -> None:
        subprocess.run([*self.into, "doveadm", "-c", self.config, "stop"], check=True)
        deadline = time.monotonic() + 20
        while (self.directory / "run/master.pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def home(self, user: str) -> Path:
        return self.directory / "mail" / user

    def make(self, users: list[str]) -> None:
        """Have these virtual users, whose mail is nobody's."""
        shutil.chown(self.directory / "mail", NOBODY, NOBODY)
        lines = [f"{user}:x:{NOBODY}:{NOBODY}::{self.home(user)}::" for user in users]
        (self.directory / "users").write_text("\n".join(lines) + "\n")

    def keys(self, *arguments: str, data: bytes = b"", settings: str = "") -> "subprocess.CompletedProcess[bytes]":
        config = self.directory / "config.toml"
        config.write_text(settings)
        code = f"import sys; from sieve_filter.cli.main import main; sys.exit(main({str(config)!r}, sendmail_path=''))"
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        command = [sys.executable, "-c", code, "keys", *arguments]
        return subprocess.run(command, input=data, capture_output=True, env={"PATH": path}, timeout=300)

    def accounts(self, asked: list[str]) -> dict[str, object]:
        """What Dovecot says about these users, or the error, as text."""
        look_up = f"json.dumps(doveadm.accounts({asked!r}), default=str)"
        code = f"from sieve_filter.dovecot import doveadm; import json; print({look_up})"
        path = f"{self.directory}/bin:{os.environ['PATH']}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env={"PATH": path}, check=True)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    def calls(self) -> int:
        """How often Dovecot's programs were started since this was asked for last."""
        file = self.directory / "calls"
        count = len(file.read_text().splitlines()) if file.exists() else 0
        file.unlink(missing_ok=True)
        return count


@pytest.fixture(params=["dovecot23", "dovecot24"])
def new_dovecot(request: pytest.FixtureRequest) -> Iterator[Callable[[dict[str, str]], Dovecot]]:
    name = request.param
    if name == "dovecot24":
        debian13.build()
    root = debian13.TREE if name == "dovecot24" else Path("/")
    with tempfile.TemporaryDirectory(prefix="users-", dir=root / "tmp") as directory:
        Path(directory).chmod(0o755)
        started: list[Dovecot] = []

        def start(userdb: dict[str, str]) -> Dovecot:
            started.append(Dovecot(Path(directory), name, userdb[name]))
            started[0].start()
            return started[0]

        yield start
        for one in started:
            one.stop()


def test_accounts_that_can_never_get_mail_are_no_owners(new_dovecot: Callable[[dict[str, str]], Dovecot]) -> None:
    dovecot = new_dovecot(SYSTEM)
    done = dovecot.keys("check", "--all", "--json")
    told = json.loads(done.stdout)
    assert told["passed_over"] >= 1, told
    assert "nobody" not in {one["user"] for one in told["owners"]}
    assert [one for one in told["owners"] if one["state"] == "UNKNOWN"] == []
    assert (done.returncode, told["state"]) == ((0, "OK") if told["owners"] else (3, "UNKNOWN"))
    assert dovecot.keys("check", "--user", "nobody").returncode == 3  # who is asked for by name


def test_dovecot_is_asked_about_many_users_at_a_time(
    new_dovecot: Callable[[dict[str, str]], Dovecot], new_owner: Callable[[], Owner], tmp_path: Path
) -> None:
    dovecot = new_dovecot(VIRTUAL)
    users = [f"u{number}@example.org" for number in range(1, 1001)]
    owner = new_owner()
    for user in users[:3]:
        owner.make_key(user)
        (tmp_path / f"{user}.pgp").write_bytes(owner.public(user))
    (tmp_path / "unknown@example.org.pgp").write_bytes(owner.public(users[0]))
    dovecot.make(users)
    for user in users[:3]:
        dovecot.home(user).mkdir()
        shutil.chown(dovecot.home(user), NOBODY, NOBODY)
    done = dovecot.keys("import", "--no-notify", "--all", str(tmp_path))
    assert done.returncode == 65
    assert b"3 imported, 0 renewed, 0 unchanged, 1 refused" in done.stdout
    assert b"Dovecot has no user unknown@example.org" in done.stdout
    assert dovecot.calls() == 1
    done = dovecot.keys("import", "--no-notify", "--all", "-", data=owner.gpg("--export"))
    assert b"0 imported, 0 renewed, 3 unchanged, 0 refused" in done.stdout
    assert dovecot.calls() == 1
    for user in users[:3]:
        assert (dovecot.home(user) / ".cryptomail/pubring.kbx").exists()
    started = time.monotonic()
    done = dovecot.keys("check", "--all")
    assert done.stdout.startswith(b"KEYS OK - 1000 users, 997 without a key | ")
    assert time.monotonic() - started < 60
    assert dovecot.calls() <= 15


def test_answers_are_not_mixed_up_where_some_are_missing(new_dovecot: Callable[[dict[str, str]], Dovecot]) -> None:
    dovecot = new_dovecot(VIRTUAL)
    users = [f"u{number}@example.org" for number in range(1, 41)]
    dovecot.make(users)
    file = dovecot.directory / "users"
    lines = file.read_text().splitlines()
    lines[6] = f"u7@example.org:x:{NOBODY}:{NOBODY}::::"
    file.write_text("\n".join(line for line in lines if not line.startswith("u30@")) + "\n")
    asked = ["u30@example.org", "*", "no\N{EURO SIGN}@example.org", *users]
    found = dovecot.accounts(asked)
    assert set(found) == set(asked)
    for user in set(users) - {"u7@example.org", "u30@example.org"}:
        assert found[user] == [user, NOBODY, NOBODY, str(dovecot.home(user))]
    assert found["u30@example.org"] == "Dovecot has no user u30@example.org"
    assert str(found["u7@example.org"]).startswith("Dovecot knows no home of u7@example.org")
    assert found["*"] == "there can be no user *"


def test_one_answer_that_fails_hides_no_other(new_dovecot: Callable[[dict[str, str]], Dovecot]) -> None:
    dovecot = new_dovecot(SYSTEM)
    found = dovecot.accounts(["root", "nobody", "x"])  # root is nobody whom Dovecot delivers to
    assert isinstance(found["nobody"], list)
    assert str(found["root"]).startswith("doveadm cannot tell about root: ")
    assert found["x"] == "Dovecot has no user x"
