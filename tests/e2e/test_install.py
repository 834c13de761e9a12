"""`make install` and `make uninstall`, into a staging directory; and the lab of an ordinary user."""

import configparser
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import dependencies, keys, server
from lab.client import Lab
from lab.server import REPOSITORY
from tests.e2e.conftest import DOVECOTS, Person, assert_encrypted_to, deliver, lab_with_23, message

SNIPPET = "etc/dovecot/conf.d/99-cryptomail.conf"
SETTINGS = "etc/cryptomail/config.toml"


def make(target: str, staging: Path, **variables: str) -> str:
    """Run make, with what it needs fetched before. Returns what it printed."""
    server.require_packages()
    told = {"DESTDIR": str(staging), "DEPENDENCIES": str(dependencies.fetched(REPOSITORY / "build")), **variables}
    options = [f"{name}={value}" for name, value in told.items()]
    command = ["make", "--no-print-directory", target, *options]
    return subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout


def files_below(directory: Path) -> set[str]:
    return {str(file.relative_to(directory)) for file in directory.rglob("*") if not file.is_dir()}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A staging directory after `make install` with a strict umask, as careful people have it; and what it said."""
    staging = tmp_path_factory.mktemp("staging")
    before = os.umask(0o077)
    try:
        said = make("install", staging, MAIL_USER="vmail", DEPENDENCIES="")
    finally:
        os.umask(before)
    return staging, said


@pytest.fixture(scope="module")
def installed(installation: tuple[Path, str]) -> Path:
    return installation[0]


@pytest.fixture
def staging(installed: Path, tmp_path: Path) -> Path:
    """A copy of `installed` that a test may change."""
    return shutil.copytree(installed, tmp_path / "staging", symlinks=True)


def test_what_is_installed_does_not_know_the_staging_directory(installed: Path) -> None:
    files = [file for file in installed.rglob("*") if file.is_file() and not file.is_symlink()]
    assert [file for file in files if str(installed).encode() in file.read_bytes()] == []
    program = (installed / "usr/local/lib/cryptomail/filter-bin/cryptomail").read_text()
    assert re.match(r"#!/usr/local/lib/cryptomail/venv-[0-9-]+/bin/python -I\n", program)
    assert '"/etc/cryptomail/config.toml"' in program


def test_everybody_can_read_what_is_installed(installed: Path) -> None:
    closed = [path for path in installed.rglob("*") if not path.is_symlink() and not path.stat().st_mode & 0o004]
    assert closed == []


def test_everything_that_the_programs_load_is_compiled_and_pip_is_not_there(installed: Path) -> None:
    """The mail user cannot write there, and would compile it anew for every message."""
    [packages] = installed.glob("usr/local/lib/cryptomail/venv-*/lib/python*/site-packages")
    assert not [file for name in ("pip", "setuptools") for file in packages.glob(f"{name}*")]
    program = """
import pkgutil, sys
import sieve_filter
from importlib import import_module
from pathlib import Path
for module in pkgutil.walk_packages(sieve_filter.__path__, "sieve_filter."):
    if module.name != "sieve_filter.__main__":
        import_module(module.name)
loaded = [Path(module.__cached__) for module in sys.modules.values() if getattr(module, "__cached__", None)]
print(*(file for file in loaded if file.is_relative_to(sys.argv[1]) and not file.exists()), sep="\\n")
"""
    python = packages.parent.parent.parent / "bin/python"
    command = [str(python), "-B", "-I", "-c", program, str(packages)]
    assert subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout == b"\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sysconfig.get_config_var = lambda name: '/nowhere'", "Python has no pip: apt-get install python3-venv"),
        ("sys.version_info = (3, 10, 9)", "the package needs Python 3.11 or later: say PYTHON=/path for one"),
    ],
)
def test_a_python_that_does_not_do_is_told_in_one_line(tmp_path: Path, change: str, reason: str) -> None:
    script = str(REPOSITORY / "dovecot/dependencies.py")
    program = f"import runpy, sys, sysconfig\n{change}\nrunpy.run_path({script!r}, run_name='__main__')"
    command = ["/usr/bin/python3", "-I", "-c", program, str(tmp_path)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, f"make install: nothing was installed, because {reason}\n")


@pytest.mark.parametrize("dovecot", DOVECOTS)
def test_the_fast_engine_is_installed_unless_somebody_does_not_want_it(
    labs: Callable[[str, str], Lab], dovecot: str
) -> None:
    directory = labs(dovecot, "sealed").directory
    assert any(directory.glob("usr/lib/cryptomail/venv-*/lib/python*/site-packages/pysequoia"))


def test_who_does_not_want_the_fast_engine_says_so_once(staging: Path) -> None:
    packages = "usr/local/lib/cryptomail/venv-*/lib/python*/site-packages/pysequoia"
    before = set(staging.glob(packages))
    assert before
    for options in ({"SEQUOIA": "no", "DEPENDENCIES": ""}, {}):
        make("install", staging, **options)
        assert set(staging.glob(packages)) <= before


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that is needed but PySequoia."""
    directory = tmp_path_factory.mktemp("wheels")
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    needed = filter(None, setup["options"]["install_requires"].split("\n"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(directory), *needed]
    subprocess.run(pip, check=True)
    return directory


@pytest.fixture
def without_fast_engine(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip finds everything but the wheel of PySequoia, as on a machine for which there is none."""
    shutil.copytree(wheels, tmp_path / "wheels")
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(tmp_path / "wheels"), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)


@pytest.mark.usefixtures("without_fast_engine")
def test_where_there_is_no_wheel_of_the_fast_engine_one_line_says_so_and_gnupg_encrypts(
    new_owner: Callable[[], keys.Owner], canary: str
) -> None:
    with lab_with_23("sealed", packages="") as lab:
        said = (lab.directory / "log/install.log").read_text().splitlines()
        line = "make install: there is no wheel of pysequoia for this machine: GnuPG encrypts, more slowly"
        assert [one for one in said if "pysequoia" in one] == [line]
        assert not any("ERROR" in one for one in said)
        person = Person(lab, new_owner())
        person.set_up_key()
        sent = message(canary)
        assert deliver(person, sent) == 250
        assert_encrypted_to(person, person.received()[0], sent, canary)


@pytest.mark.usefixtures("without_fast_engine")
def test_a_missing_wheel_that_is_needed_is_what_pip_names(staging: Path, tmp_path: Path) -> None:
    for wheel in (tmp_path / "wheels").glob("dnspython*"):
        wheel.unlink()
    command = ["make", "install", f"DESTDIR={staging}"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert "dnspython" in done.stderr


def test_the_filter_s_directory_holds_one_program(installed: Path) -> None:
    assert files_below(installed / "usr/local/lib/cryptomail/filter-bin") == {"cryptomail"}


def test_uninstalling_leaves_nothing(staging: Path) -> None:
    make("uninstall", staging)
    assert files_below(staging) == set()


def test_uninstalling_leaves_keys_and_edited_configuration_alone(staging: Path) -> None:
    keyring = staging / "home/alice/.cryptomail/pubring.kbx"
    keyring.parent.mkdir(parents=True)
    keyring.touch()
    for name in (SNIPPET, SETTINGS):
        with (staging / name).open("a") as file:
            file.write("# edited\n")
    said = make("uninstall", staging)
    # The snippet would have Dovecot look for scripts that are gone, and store mail in clear without a word.
    assert files_below(staging) == {"home/alice/.cryptomail/pubring.kbx", f"{SNIPPET}.removed", SETTINGS}
    assert f"{SNIPPET}.removed, which Dovecot does not read" in said


def test_installing_says_in_a_few_lines_what_is_next(installation: tuple[Path, str]) -> None:
    said = installation[1].splitlines()
    assert len(said) < 15
    for words in ("keys import", "keys test", "doveadm reload", "Postfix"):
        assert any(words in line for line in said)
    assert not any("install -" in line for line in said)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_what_a_staged_installation_leaves_to_root_can_be_run_as_it_is_said(tmp_path: Path) -> None:
    """The mail user has to have a place for notes, or mail is stored in clear while a home is not there."""
    place = tmp_path / "place"
    places = {"PREFIX": f"{place}/usr", "SYSCONFDIR": f"{place}/etc", "LOCALSTATEDIR": f"{place}/var"}
    said = make("install", tmp_path / "staging", MAIL_USER="nobody", **places)
    (tmp_path / "staging" / place.relative_to("/")).rename(place)
    commands = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    [compile_scripts, make_place, note] = [line for line in commands if re.match("for |place=|.* keys note", line)]
    subprocess.run(["sh", "-ec", f"{compile_scripts}\n{make_place}"], check=True)
    assert (place / "etc/cryptomail/guard.svbin").exists()
    account = pwd.getpwnam("nobody")
    notes = (place / f"var/lib/cryptomail/enrolled/{account.pw_uid}").stat()
    assert (notes.st_uid, notes.st_gid, notes.st_mode & 0o7777) == (account.pw_uid, account.pw_gid, 0o700)
    program, arguments = note.split("#")[0].split(maxsplit=1)
    assert (program, arguments.strip()) == (f"{place}/usr/bin/cryptomail", "keys note --all")
    owner = place / "homes/example.org/alice"
    owner.mkdir(parents=True)
    noted = subprocess.run([program, *arguments.split(), "--home-template", f"{place}/homes/%d/%n"], check=True)
    assert noted.returncode == 0


def test_installing_again_replaces_what_nobody_edited(staging: Path) -> None:
    make("install", staging, SYSCONFDIR="/etc", PREFIX="/usr/local")
    assert not (staging / f"{SNIPPET}.new").exists()


def test_installing_again_keeps_what_was_edited_and_says_so(staging: Path) -> None:
    edited = (staging / SNIPPET).read_text().replace("180s", "190s")
    (staging / SNIPPET).write_text(edited)
    said = make("install", staging)
    assert f"{staging / SNIPPET} was edited and is kept" in said
    assert (staging / SNIPPET).read_text() == edited
    assert "180s" in (staging / f"{SNIPPET}.new").read_text()


def test_what_install_was_told_is_remembered(staging: Path) -> None:
    make("install", staging, KEY_FOLDER="Keys", SEALING="no")
    make("install", staging, KEY_FOLDER="")
    snippet = (staging / SNIPPET).read_text()
    assert "before-without-sealing.sieve" in snippet
    assert "user = vmail" in snippet
    assert "imap_sieve" not in snippet


def test_a_remembered_line_is_never_run(staging: Path, tmp_path: Path) -> None:
    with (staging / "etc/cryptomail/install.conf").open("a") as file:
        file.write(f"SEALING=$(shell touch {tmp_path}/make)\nKEY_FOLDER=`touch {tmp_path}/shell`\nDESTDIR=/nowhere\n")
    make("install", staging)
    assert not (tmp_path / "make").exists()
    assert not (tmp_path / "shell").exists()
    assert "OpenPGP" in (staging / SNIPPET).read_text()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "this is for another system"),
        ({"DESTDIR": "", "MAIL_USER": "nobody-at-all"}, "there is no user nobody-at-all"),
    ],
)
def test_installing_without_knowing_who_owns_the_mail_writes_nothing(
    tmp_path: Path, variables: dict[str, str], reason: str
) -> None:
    places = {"PREFIX": f"{tmp_path}/usr", "SYSCONFDIR": f"{tmp_path}/etc", "LOCALSTATEDIR": f"{tmp_path}/var"}
    options = [f"{name}={value}" for name, value in {"DESTDIR": str(tmp_path), **places, **variables}.items()]
    done = subprocess.run(["make", "--silent", "install", *options], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0
    assert reason in done.stderr
    assert files_below(tmp_path) == set()


def rendered(tmp_path: Path, configuration: str, *scope: str) -> dict[str, str]:
    """The plugin settings that Dovecot 2.3 has, with that configuration and our snippet after it.

    `scope` are options of doveconf that say for which of its processes.
    """
    server.require_packages()
    file = tmp_path / "dovecot.conf"
    file.write_text(configuration)
    render = [
        "/usr/bin/python3",
        str(REPOSITORY / "dovecot/render.py"),
        "2.3",
        str(file),
        "/programs",
        "/ours",
        "/etc/ours/guard.sieve",
        "/dev/shm",
        "/run/dovecot",
        "/var/lib/cryptomail",
        "yes",
        "vmail",
        "OpenPGP",
    ]
    file.write_text(configuration + subprocess.run(render, check=True, stdout=subprocess.PIPE, text=True).stdout)
    listing = ["doveconf", "-c", str(file), *scope, "plugin"]
    lines = subprocess.run(listing, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict(line.strip().split(" = ", 1) for line in lines if " = " in line)


def test_the_snippet_adds_to_an_administrator_s_lists(tmp_path: Path) -> None:
    settings = rendered(
        tmp_path,
        "plugin {\n  sieve_plugins = sieve_imapsieve\n  sieve_extensions = +imapflags\n"
        "  sieve_before = /theirs.sieve\n  sieve_before2 = /theirs-too.sieve\n}\n",
    )
    assert settings["sieve_plugins"] == "sieve_imapsieve sieve_extprograms"
    assert settings["sieve_extensions"] == "+imapflags +vnd.dovecot.filter"
    assert settings["sieve_before"] == "/ours/before.sieve"
    assert settings["sieve_before2"] == "/etc/ours/guard.sieve"
    assert settings["sieve_before3"] == "/theirs.sieve"
    assert settings["sieve_before4"] == "/theirs-too.sieve"


def test_the_second_delivery_runs_the_administrator_s_scripts_and_not_ours(tmp_path: Path) -> None:
    configuration = "plugin {\n  sieve_before = /theirs.sieve\n}\n"
    rendered(tmp_path, configuration)
    expected = "executable = lmtp -o plugin/sieve_before=/theirs.sieve -o plugin/sieve_before2= "
    assert expected in (tmp_path / "dovecot.conf").read_text()


def test_the_snippet_does_not_widen_a_list_of_all_allowed_extensions(tmp_path: Path) -> None:
    settings = rendered(tmp_path, "plugin {\n  sieve_extensions = fileinto reject\n}\n")
    assert settings["sieve_extensions"] == "fileinto reject vnd.dovecot.filter"


def test_the_snippet_adds_to_an_administrator_s_imapsieve_folders(tmp_path: Path) -> None:
    theirs = (
        "plugin {\n  sieve_plugins = sieve_imapsieve\n  imapsieve_mailbox1_name = Junk\n"
        "  imapsieve_mailbox1_causes = COPY\n  imapsieve_mailbox1_before = file:/theirs.sieve\n}\n"
        "protocol imap {\n  mail_plugins = imap_quota imap_sieve\n"
        "  plugin {\n    imapsieve_mailbox2_name = Trash\n  }\n}\n"
    )
    once = rendered(tmp_path, theirs, "-f", "protocol=imap")
    assert once["sieve_plugins"] == "sieve_imapsieve sieve_extprograms"
    assert once["imapsieve_mailbox1_before"] == "file:/theirs.sieve"
    assert once["imapsieve_mailbox2_name"] == "Trash"
    assert once["imapsieve_mailbox3_name"] == "OpenPGP"
    assert once["imapsieve_mailbox3_causes"] == "APPEND COPY"
    assert once["imapsieve_mailbox3_before"] == "file:/ours/enroll.sieve"
    assert rendered(tmp_path, (tmp_path / "dovecot.conf").read_text(), "-f", "protocol=imap") == once


@pytest.mark.parametrize("prefix", ["", "INBOX/", "INBOX."])
def test_the_folder_for_keys_is_in_the_namespace_of_the_inbox(tmp_path: Path, prefix: str) -> None:
    namespaces = (
        f"namespace other {{\n  prefix = Other{prefix[-1:] or '/'}\n  location = maildir:/nowhere\n}}\n"
        f"namespace inbox {{\n  inbox = yes\n  prefix = {prefix}\n  separator = {prefix[-1:] or '/'}\n}}\n"
    )
    settings = rendered(tmp_path, namespaces, "-f", "protocol=imap")
    assert settings["imapsieve_mailbox1_name"] == f"{prefix}OpenPGP"


def test_only_imap_processes_look_into_the_directory_with_the_program_that_enrols(tmp_path: Path) -> None:
    assert rendered(tmp_path, "", "-f", "protocol=imap")["sieve_filter_bin_dir"] == "/programs/imap-bin"
    for protocol in ("lmtp", "lda", "sieve"):
        settings = rendered(tmp_path, "", "-f", f"protocol={protocol}")
        assert settings["sieve_filter_bin_dir"] == "/programs/filter-bin"
        assert "imapsieve" not in settings["sieve_plugins"]


def test_rendering_the_snippet_twice_changes_nothing(tmp_path: Path) -> None:
    once = rendered(tmp_path, "plugin {\n  sieve_before = /theirs.sieve\n}\n")
    assert rendered(tmp_path, (tmp_path / "dovecot.conf").read_text()) == once


@pytest.fixture
def ordinary_user() -> Iterator[tuple[dict[str, object], Path]]:
    """How subprocess.run becomes an ordinary user, and a directory in which that user has a copy of the repository."""
    account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    home = Path(tempfile.mkdtemp(prefix="home-", dir="/tmp"))
    try:
        ignored = shutil.ignore_patterns("build", ".git", ".venv", ".*_cache", ".hypothesis")
        shutil.copytree(REPOSITORY, home / "cryptomail", ignore=ignored)
        home.chmod(0o755)
        (home / "lab").mkdir()
        os.chown(home / "lab", account.pw_uid, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        environment = {**os.environ, "HOME": str(home), "PATH": "/usr/bin:/bin"}
        yield {**identity, "env": environment, "cwd": home / "cryptomail"}, home / "lab"
    finally:
        shutil.rmtree(home)


def test_an_ordinary_user_can_start_a_lab_deliver_to_it_and_stop_it(
    ordinary_user: tuple[dict[str, object], Path], new_owner: Callable[[], keys.Owner], canary: str
) -> None:
    identity, directory = ordinary_user
    subprocess.run(["make", "lab", f"LAB={directory}"], check=True, stdout=subprocess.DEVNULL, **identity)  # type: ignore[call-overload]
    try:
        description = json.loads((directory / "lab.json").read_text())
        master = int((directory / "run/master.pid").read_text())
        assert description["mail_uid"] == Path(f"/proc/{master}").stat().st_uid
        person = Person(Lab.load(directory), new_owner())
        person.set_up_key()
        sent = message(canary)
        assert deliver(person, sent) == 250
        assert_encrypted_to(person, person.received()[0], sent, canary)
    finally:
        subprocess.run(["make", "lab-stop", f"LAB={directory}"], check=True, stdout=subprocess.DEVNULL, **identity)  # type: ignore[call-overload]
    assert not (directory / "run/master.pid").exists()


@pytest.mark.parametrize("name", ["inbox", "mine", ""])
def test_the_folder_for_keys_is_made_and_subscribed_in_a_namespace_that_has_a_name(tmp_path: Path, name: str) -> None:
    rendered(tmp_path, f"namespace {name} {{\n  inbox = yes\n  prefix = INBOX/\n  separator = /\n}}\n")
    command = ["doveconf", "-c", str(tmp_path / "dovecot.conf"), "-n", "namespace"]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert ("mailbox OpenPGP {\n    auto = subscribe\n" in listing) == bool(name)
    assert listing.count("inbox = yes") == 1
    assert listing.count("prefix = INBOX/") == 1
