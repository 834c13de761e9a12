"""Who owns the mail: `make install` asks Dovecot, and stops before it writes anything where that cannot be told."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from lab import debian13, server

_CONFIGURATIONS = {
    "2.3": """\
base_dir = %(directory)s/run
state_dir = %(directory)s/state
log_path = %(directory)s/log
first_valid_uid = 1
protocols =
ssl = no
mail_location = maildir:~/Maildir
passdb {
  driver = static
  args = password=secret
}
%(userdb)s
""",
    "2.4": """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = %(directory)s/run
state_dir = %(directory)s/state
log_path = %(directory)s/log
first_valid_uid = 1
protocols =
ssl = no
mail_driver = maildir
mail_path = ~/Maildir
passdb static {
  password = secret
}
%(userdb)s
""",
}
_STATIC = {
    "2.3": "userdb {\n  driver = static\n  args = uid=news gid=news home=/home/%%n\n}",
    "2.4": "userdb static {\n  fields {\n    uid = news\n    gid = news\n    home = /home/%%{user | username}\n  }\n}",
}
_FILE = {
    "2.3": "userdb {\n  driver = passwd-file\n  args = %(directory)s/users\n}",
    "2.4": "userdb passwd-file {\n  passwd_file_path = %(directory)s/users\n}",
}
_PASSWD = {"2.3": "userdb {\n  driver = passwd\n}", "2.4": "userdb passwd {\n}"}
_MAIL_UID = "mail_uid = news\nmail_gid = news\n"
_NEWS = pwd.getpwnam("news").pw_uid


class Machine(NamedTuple):
    """Where a Dovecot runs: its version, and the root of its files."""

    version: str
    root: Path

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        inside = list(command) if self.root == Path("/") else ["chroot", str(self.root), *command]
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        with tempfile.TemporaryFile() as output:  # Dovecot's children hold on to it
            done = subprocess.run(inside, env=environment, stdout=output, stderr=subprocess.STDOUT)
            output.seek(0)
            return subprocess.CompletedProcess(inside, done.returncode, output.read().decode(), "")


@pytest.fixture(scope="module", params=["dovecot23", "dovecot24"])
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "dovecot23":
        server.require_packages()
        return Machine("2.3", Path("/"))
    debian13.build()
    return Machine("2.4", debian13.TREE)


@contextmanager
def running(machine: Machine, userdb: str, users: str = "") -> Iterator[Callable[..., tuple[int, str]]]:
    """A Dovecot with that userdb, and that file of users. Its value asks who owns the mail: exit code and answer."""
    outside = Path(tempfile.mkdtemp(prefix="owner-", dir=machine.root / "tmp"))
    try:
        outside.chmod(0o755)
        directory = "/" + str(outside.relative_to(machine.root))
        (outside / "users").write_text(users)
        (outside / "users").chmod(0o644)
        shutil.copy(server.REPOSITORY / "dovecot/mailowner.py", outside)
        values = {"directory": directory}
        configuration = _CONFIGURATIONS[machine.version] % (values | {"userdb": userdb % values})
        (outside / "dovecot.conf").write_text(configuration)

        def ask(*options: str) -> tuple[int, str]:
            program = ["python3", "-I", f"{directory}/mailowner.py", f"{directory}/dovecot.conf"]
            done = machine.run(*program, *options)
            return done.returncode, done.stdout.strip()

        started = machine.run("dovecot", "-c", f"{directory}/dovecot.conf")
        assert started.returncode == 0, started.stdout
        try:
            yield ask
        finally:
            machine.run("doveadm", "-c", f"{directory}/dovecot.conf", "stop")
    finally:
        shutil.rmtree(outside)


def lines(*uids: int) -> str:
    """A passwd-file with users who have these user IDs."""
    return "".join(f"user{n}@example.org:{{PLAIN}}x:{uid}:{uid}::/home/{n}::\n" for n, uid in enumerate(uids))


def test_the_userdb_says_the_same_user_for_everybody(machine: Machine) -> None:
    with running(machine, _STATIC[machine.version]) as ask:
        assert ask() == (0, "news")


def test_each_line_of_the_userdb_says_the_same_user(machine: Machine) -> None:
    with running(machine, _FILE[machine.version], lines(_NEWS, _NEWS)) as ask:
        assert ask() == (0, "news")


def test_the_userdb_says_nothing_but_mail_uid_does(machine: Machine) -> None:
    users = "user@example.org:{PLAIN}x::::/home/user::\n"
    with running(machine, _MAIL_UID + _FILE[machine.version], users) as ask:
        assert ask() == (0, "news")


def test_users_are_the_system_s(machine: Machine) -> None:
    with running(machine, _PASSWD[machine.version]) as ask:
        assert ask() == (0, "")


@pytest.mark.parametrize(
    ("users", "reason"),
    [
        (lines(5001, 5002), "mail belongs to several users, who have no accounts of these names: user ID 5001, user"),
        (lines(5001), "all mail belongs to user ID 5001, which has no name: Dovecot needs one"),
        (lines(_NEWS) + f"news:{{PLAIN}}x:{_NEWS}:9::/home/news::\n" + "games:{PLAIN}x:5:60::/home/games::\n", "some"),
        ("user@example.org:{PLAIN}x::::/home/user::\n", "neither its userdb nor mail_uid says so"),
        ("", "Dovecot has no users yet"),
    ],
)
def test_it_cannot_be_told(machine: Machine, users: str, reason: str) -> None:
    with running(machine, _FILE[machine.version], users) as ask:
        code, said = ask()
        assert code == 1
        assert said.startswith(
            "make install: nothing was installed, because it is not known who owns the mail: " + reason
        )
        assert "MAIL_USER=NAME" in said
        assert len(said.splitlines()) == 1
        assert ask("--told", "news") == (0, "news")
        assert ask("--told", "") == (0, "")


def test_dovecot_does_not_run(tmp_path: Path) -> None:
    server.require_packages()
    machine = Machine("2.3", Path("/"))
    values = {"directory": str(tmp_path)}
    text = _CONFIGURATIONS["2.3"] % (values | {"userdb": _FILE["2.3"] % values})
    (tmp_path / "dovecot.conf").write_text(text)
    program = ["python3", "-I", str(server.REPOSITORY / "dovecot/mailowner.py"), str(tmp_path / "dovecot.conf")]
    done = machine.run(*program)
    assert done.returncode == 1
    assert "is Dovecot running?" in done.stdout


def test_a_user_who_does_not_exist_is_refused(machine: Machine) -> None:
    with running(machine, _STATIC[machine.version]) as ask:
        code, said = ask("--told", "nobody-at-all")
        assert code == 1
        assert "there is no user nobody-at-all on this machine" in said
        assert ask("--staged", "--told", "nobody-at-all") == (0, "nobody-at-all")
        code, said = ask("--staged")
        assert code == 1
