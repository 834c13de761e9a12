"""`cryptomail doctor`: it finds each of many broken set-ups, and nothing in a sound one."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab.client import Lab
from tests.e2e.conftest import DOVECOTS, RunningLab

WARNING, CRITICAL, UNKNOWN = 1, 2, 3
BROKEN = "broken.conf"

Change = tuple[str, str]


class Edit(NamedTuple):
    """A configuration that is broken in one way: its state, words of the finding, and what is replaced by what, in both
    versions, and in each; an empty old text stands for the end.
    """

    state: int
    words: str
    both: tuple[Change, ...] = ()
    only_23: tuple[Change, ...] = ()
    only_24: tuple[Change, ...] = ()


def doctor(lab: Lab, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and the findings."""
    command = lab.command(lab.inside(lab.cryptomail), "doctor", "--json", *options)
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.stderr
    report = json.loads(done.stdout)
    assert report["state"] == ("OK", "WARNING", "CRITICAL", "UNKNOWN")[done.returncode]
    return done.returncode, report["findings"]


def is_23(lab: Lab) -> bool:
    return lab.root == Path("/")


def snippet(lab: Lab) -> Path:
    return lab.directory / "etc/dovecot/conf.d/99-cryptomail.conf"


@contextmanager
def edited(lab: Lab, changes: tuple[Change, ...]) -> Iterator[str]:
    """A configuration of that lab's, with those changes; Dovecot does not run with it. Its path inside."""
    whole = (lab.directory / "dovecot.conf").read_text()
    include = f"!include {lab.inside(lab.directory)}/etc/dovecot/conf.d/*.conf"
    text = whole.replace(include, snippet(lab).read_text())
    assert text != whole
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new) if old else f"{text}\n{new}\n"
    file = lab.directory / BROKEN
    file.write_text(text.replace("@LAB@", lab.inside(lab.directory)))
    try:
        yield lab.inside(file)
    finally:
        file.unlink()


def in_turns(lab: Lab, name: str, cases: Iterable[str]) -> None:
    """What is the same for both versions is tried with one of them: a run takes half a second."""
    if list(cases).index(name) % 2 == is_23(lab):
        pytest.skip("this one is tried with the other version")


def changes(lab: Lab, edit: Edit) -> tuple[Change, ...]:
    return (*edit.both, *(edit.only_23 if is_23(lab) else edit.only_24))


def assert_found(findings: list[dict[str, Any]], state: int, words: str) -> None:
    states = {"WARNING": WARNING, "CRITICAL": CRITICAL, "UNKNOWN": UNKNOWN}
    for one in findings:
        assert one["what"]
        assert one["why"]
        assert one["command"]
        assert "\n" not in one["what"] + one["why"] + one["command"]
    assert [one for one in findings if words in one["what"] and states[one["state"]] == state], findings


@pytest.fixture(scope="module", params=DOVECOTS)
def lab_sealed(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One without owners: each run here looks at all of them."""
    with DOVECOTS[request.param]("sealed") as running:
        yield running


def not_about_owners(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are not about keys in trouble: in the same lab, other tests have owners who have some."""
    return [one for one in findings if "keys check --all" not in one["command"]]


@pytest.mark.parametrize("mode", ["executed", "filter", "users", "saved"])
def test_nothing_is_found_where_nothing_is_wrong(running_lab: RunningLab, mode: str) -> None:
    assert not_about_owners(doctor(running_lab(mode))[1]) == []


_LISTENER = "service lmtp-sealed {{\n  unix_listener lmtp-sealed {{\n    {}\n  }}\n}}"
_SCRIPT_24 = "sieve_script early {{\n  type = before\n  path = @LAB@/{}\n  precedence = {}\n}}"
_DROP = "drop_priv_before_exec = yes"

EDITS = {
    "the snippet is not read": Edit(CRITICAL, "nothing calls the filter", (("@ALL@", ""),)),
    "sieve is not loaded for LMTP": Edit(
        CRITICAL,
        "the plugin sieve is not in mail_plugins",
        only_23=(("", "protocol lmtp {\n  mail_plugins =\n}"),),
        only_24=(("", "protocol lmtp {\n  mail_plugins {\n    sieve = no\n  }\n}"),),
    ),
    "sieve is not loaded for LDA": Edit(
        CRITICAL,
        "dovecot-lda: nothing calls the filter",
        only_23=(("", "protocol lda {\n  mail_plugins =\n}"),),
        only_24=(("", "protocol lda {\n  mail_plugins {\n    sieve = no\n  }\n}"),),
    ),
    "extprograms is not loaded": Edit(
        CRITICAL,
        "sieve_extprograms is not in sieve_plugins",
        only_23=(("sieve_plugins = sieve_extprograms\n", "sieve_plugins =\n"),),
        only_24=(("sieve_extprograms = yes", "sieve_extprograms = no"),),
    ),
    "both scripts are turned off": Edit(
        WARNING,
        "no global script calls the filter",
        only_23=(("", "plugin {\n  sieve_before =\n}"),),
        only_24=(
            ("", "sieve_script cryptomail {\n  type = none\n}\nsieve_script cryptomail-guard {\n  type = none\n}"),
        ),
    ),
    "only the script that encrypts is turned off": Edit(
        CRITICAL,
        "all mail waits",
        only_23=(("", "plugin {\n  sieve_before = @LAB@/etc/cryptomail/guard.sieve\n  sieve_before2 =\n}"),),
        only_24=(("", "sieve_script cryptomail {\n  type = none\n}"),),
    ),
    "the guard is turned off": Edit(
        WARNING,
        "mail is stored in clear",
        only_23=(("", "plugin {\n  sieve_before2 =\n}"),),
        only_24=(("", "sieve_script cryptomail-guard {\n  type = none\n}"),),
    ),
    "the guard comes first": Edit(
        CRITICAL,
        "guard.sieve runs before",
        only_23=(
            ("  sieve_before = ", "  sieve_beforeX = "),
            ("  sieve_before2 = ", "  sieve_before = "),
            ("  sieve_beforeX = ", "  sieve_before2 = "),
        ),
        only_24=(("precedence = 1", "precedence = 3"),),
    ),
    "a script files mail before ours": Edit(
        CRITICAL,
        "spam.sieve runs before",
        only_23=(
            ("  sieve_before2 = ", "  sieve_before3 = "),
            ("  sieve_before = ", "  sieve_before2 = "),
            ("", "plugin {\n  sieve_before = @LAB@/spam.sieve\n}"),
        ),
        only_24=(("", _SCRIPT_24.format("spam.sieve", 0)),),
    ),
    "a script is between ours": Edit(
        WARNING,
        "spam.sieve runs before",
        only_23=(
            ("  sieve_before2 = ", "  sieve_before3 = "),
            ("", "plugin {\n  sieve_before2 = @LAB@/spam.sieve\n}"),
        ),
        only_24=(("precedence = 2", "precedence = 9"), ("", _SCRIPT_24.format("spam.sieve", 5))),
    ),
    "two filters": Edit(
        WARNING,
        "several scripts change mail",
        only_23=(("", "plugin {\n  sieve_before3 = @LAB@/gpgit.sieve\n}"),),
        only_24=(("", _SCRIPT_24.format("gpgit.sieve", 3)),),
    ),
    "two scripts of ours": Edit(
        WARNING,
        "several scripts change mail",
        only_23=(("", "plugin {\n  sieve_before3 = @LAB@/ours.sieve\n}"),),
        only_24=(("", _SCRIPT_24.format("ours.sieve", 3)),),
    ),
    "a gap in the numbers": Edit(
        WARNING,
        "a number before it is missing",
        only_23=(("", "plugin {\n  sieve_before4 = @LAB@/spam.sieve\n}"),),
    ),
    "a before script is not there": Edit(
        WARNING,
        "there is no",
        only_23=(("", "plugin {\n  sieve_before3 = @LAB@/none.sieve\n}"),),
        only_24=(("", _SCRIPT_24.format("none.sieve", 3)),),
    ),
    "global scripts may not execute": Edit(
        CRITICAL,
        "vnd.dovecot.execute, which",
        only_23=(("sieve_global_extensions = +vnd.dovecot.execute", "sieve_global_extensions ="),),
        only_24=(("vnd.dovecot.execute = yes", "vnd.dovecot.execute = no"),),
    ),
    "users may execute": Edit(
        WARNING,
        "users' own scripts may use vnd.dovecot.execute",
        only_23=(("sieve_extensions = +vnd.dovecot.filter", "sieve_extensions = +vnd.dovecot.execute"),),
        only_24=(("vnd.dovecot.filter = yes", "vnd.dovecot.execute = yes"),),
    ),
    "no time for the filter": Edit(
        WARNING,
        "sieve_filter_exec_timeout is 10s",
        (("filter_exec_timeout = 180s", "filter_exec_timeout = 10s"),),
    ),
    "no time to seal": Edit(
        WARNING,
        "sieve_execute_exec_timeout is 1 mins",
        (("sieve_execute_exec_timeout = 180s", "sieve_execute_exec_timeout = 1 mins"),),
    ),
    "sockets are in base_dir": Edit(
        CRITICAL,
        "sieve_filter_socket_dir is Dovecot's base_dir",
        (("sieve_filter_socket_dir = ../var/lib/cryptomail/filter", "sieve_filter_socket_dir = ."),),
    ),
    "nobody listens where Dovecot looks for the worker": Edit(
        WARNING,
        "no service of Dovecot's listens on",
        (("sieve_execute_socket_dir = ../var/lib/cryptomail/execute", "sieve_execute_socket_dir = ../var/lib/other"),),
    ),
    "no program": Edit(
        CRITICAL,
        "neither sieve_execute_bin_dir nor",
        only_23=(("", "plugin {\n  sieve_execute_bin_dir =\n  sieve_execute_socket_dir =\n}"),),
        only_24=(("", "sieve_execute_bin_dir =\nsieve_execute_socket_dir ="),),
    ),
    "the worker runs as root": Edit(CRITICAL, "keeps root's rights", ((f"{_DROP}\n", "drop_priv_before_exec = no\n"),)),
    "too few clients": Edit(WARNING, "has client_limit = 10", (("client_limit = 1000", "client_limit = 10"),)),
    "two supervisors": Edit(WARNING, "process_limit = 2", (("process_limit = 1", "process_limit = 2"),)),
    "nobody of that name": Edit(
        CRITICAL,
        "there is no user nosuchuser",
        ((f"user = nobody\n  {_DROP}", f"user = nosuchuser\n  {_DROP}"),),
    ),
    "little memory": Edit(
        WARNING, "the service lmtp has vsz_limit = 256 M", (("", "service lmtp {\n  vsz_limit = 256M\n}"),)
    ),
    "little memory to seal": Edit(
        WARNING,
        "the service lmtp-sealed has vsz_limit",
        only_23=(("client_limit = 1\n  vsz_limit = 4G", "client_limit = 1"),),
        only_24=(("client_limit = 1\n  vsz_limit = 4G", "client_limit = 1"),),
    ),
    "no private service": Edit(
        CRITICAL, "lmtp-sealed", (("unix_listener lmtp-sealed {", "unix_listener lmtp-other {"),)
    ),
    "everybody may deliver": Edit(
        CRITICAL,
        "others can connect to",
        (("", _LISTENER.format("mode = 0666")),),
    ),
    "the worker may not deliver": Edit(
        CRITICAL,
        "belongs to root",
        (("", _LISTENER.format("user = root")),),
    ),
    "the private service is on the network": Edit(
        CRITICAL,
        "listens on the network",
        (("", "service lmtp-sealed {\n  inet_listener sealed {\n    port = 2424\n  }\n}"),),
    ),
    "the private service runs our script": Edit(
        CRITICAL,
        "runs in the service lmtp-sealed, too",
        only_23=(("-o plugin/sieve_before= ", ""),),
        only_24=(("-o sieve_script/cryptomail/type=none ", ""),),
    ),
    "a limit of deliveries, as 2.4 has by default": Edit(
        WARNING,
        "counts in the service lmtp-sealed",
        (("", "lmtp_user_concurrency_limit = 10"),),
        only_23=((" -o lmtp_user_concurrency_limit=0", ""),),
        only_24=((" -o lmtp_user_concurrency_limit=unlimited", ""),),
    ),
    "few processes to seal": Edit(
        WARNING, "fewer processes (2) than lmtp", (("", "service lmtp-sealed {\n  process_limit = 2\n}"),)
    ),
    "no namespace for failures": Edit(
        CRITICAL, "no namespace with the prefix", (("prefix = cryptomail-tempfail/", "prefix = other-tempfail/"),)
    ),
    "failures can be stored": Edit(CRITICAL, "can be opened", (("/dev/null/nowhere", "@LAB@/home/failures"),)),
    "failures count against quotas": Edit(WARNING, "not of type public", (("type = public", "type = private"),)),
    "failures can be seen": Edit(WARNING, "can be seen by mail clients", (("  list = no", "  list = yes"),)),
    "temporary files on a disk": Edit(WARNING, "mail_temp_dir is /tmp", (("", "mail_temp_dir = /tmp"),)),
    "no place for temporary files": Edit(CRITICAL, "cannot use", (("", "mail_temp_dir = @LAB@/none"),)),
    "another delimiter": Edit(WARNING, "recipient_delimiter is '-'", (("delimiter = +", "delimiter = -"),)),
    "IMAPSieve is not loaded": Edit(
        WARNING,
        "imap_sieve is not in mail_plugins",
        only_23=(("mail_plugins = $mail_plugins imap_sieve", "mail_plugins = $mail_plugins"),),
        only_24=(("imap_sieve = yes", "imap_sieve = no"),),
    ),
    "sieve_imapsieve is not loaded": Edit(
        WARNING,
        "sieve_imapsieve is not in sieve_plugins",
        only_23=(("sieve_extprograms sieve_imapsieve", "sieve_extprograms"),),
        only_24=(("sieve_imapsieve = yes", "sieve_imapsieve = no"),),
    ),
    "no script for the folder of keys": Edit(
        WARNING,
        "no script runs for what is saved in the folder",
        only_23=(("imapsieve_mailbox1_name = OpenPGP", "imapsieve_mailbox1_name = Other"),),
        only_24=(('mailbox "OpenPGP" {\n    sieve', 'mailbox "Other" {\n    sieve'),),
    ),
    "what was saved stays": Edit(
        WARNING,
        "imapsieve_expunge_discarded",
        (("discarded = yes", "discarded = no"),),
    ),
    "deliveries may set up keys": Edit(
        CRITICAL,
        "the same sieve_filter_bin_dir",
        (("/filter-bin", "/imap-bin"),),
    ),
    "what Dovecot cannot read": Edit(CRITICAL, "doveconf: ", (("", "no_such_setting = 1"),)),
}


@pytest.fixture
def scripts(lab_sealed: Lab) -> Iterator[None]:
    """The administrator's own, which configurations here name."""
    texts = {
        "spam.sieve": 'require "fileinto";\nfileinto "Junk";\n',
        "gpgit.sieve": 'require "vnd.dovecot.filter";\nfilter "gpgit";\n',
        "ours.sieve": 'require "vnd.dovecot.filter";\nif not filter "cryptomail" {\n  stop;\n}\n',
    }
    for name, text in texts.items():
        (lab_sealed.directory / name).write_text(text)
    yield
    for name in texts:
        (lab_sealed.directory / name).unlink()


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("name", EDITS)
def test_a_broken_configuration(lab_sealed: Lab, name: str) -> None:
    edit = EDITS[name]
    wanted = changes(lab_sealed, edit)
    if not (edit.only_23 or edit.only_24):
        in_turns(lab_sealed, name, EDITS)
    elif not wanted:
        pytest.skip("there is no such thing in this version")
    if wanted[0][0] == "@ALL@":
        wanted = ((snippet(lab_sealed).read_text(), ""),)
    with edited(lab_sealed, wanted) as broken:
        code, findings = doctor(lab_sealed, "--dovecot-conf", broken)
    assert_found(findings, edit.state, edit.words)
    assert code >= edit.state


@contextmanager
def gone(path: Path) -> Iterator[None]:
    aside = path.rename(path.with_name(f"{path.name}.aside"))
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def mode(path: Path, bits: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o7777
    path.chmod(bits)
    try:
        yield
    finally:
        path.chmod(before)


@contextmanager
def belongs(path: Path, user: int) -> Iterator[None]:
    before = path.stat().st_uid
    os.chown(path, user, -1)
    try:
        yield
    finally:
        os.chown(path, before, -1)


@contextmanager
def content(path: Path, text: bytes, later: float = 0) -> Iterator[None]:
    """Another content, with the time it had, or one so many seconds later."""
    before, status = path.read_bytes(), path.stat()
    path.write_bytes(text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + int(later * 1e9)))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def added(path: Path) -> Iterator[None]:
    path.write_text("")
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def touched(path: Path) -> Iterator[None]:
    status = path.stat()
    os.utime(path, (time.time() + 60, time.time() + 60))
    try:
        yield
    finally:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def script(lab: Lab) -> Path:
    return lab.directory / "usr/share/cryptomail/sieve/before.sieve"


def binary(lab: Lab) -> Path:
    return script(lab).with_suffix(".svbin")


def settings(lab: Lab) -> Path:
    return lab.directory / "etc/cryptomail/config.toml"


def programs(lab: Lab) -> Path:
    return lab.directory / "usr/lib/cryptomail"


def _venv(lab: Lab) -> tuple[str, ...]:
    return lab.python.parent.parent.relative_to(lab.cryptomail.parent.parent).parts


@contextmanager
def _without_sequoia(lab: Lab) -> Iterator[None]:
    [metadata] = lab.python.parent.parent.glob("lib/python3*/site-packages/pysequoia-*.dist-info")
    with content(settings(lab), b'\nengine = "sequoia"\n'), gone(metadata):
        yield


class Break(NamedTuple):
    """An installed tree that is broken in one way: its state, words of the finding, and how it is done and undone."""

    state: int
    words: str
    do: Callable[[Lab], AbstractContextManager[None]]


BREAKS = {
    "the script is gone": Break(CRITICAL, "nothing calls the filter", lambda lab: gone(script(lab))),
    "the guard is gone": Break(WARNING, "guard.sieve", lambda lab: gone(lab.directory / "etc/cryptomail/guard.sieve")),
    "a script is not compiled": Break(WARNING, "before.sieve is not compiled", lambda lab: gone(binary(lab))),
    "a stale compiled script": Break(WARNING, "is older than its script", lambda lab: touched(script(lab))),
    "compiled by another version": Break(
        WARNING,
        "another version",
        lambda lab: content(binary(lab), binary(lab).read_bytes()[:4] + b"\x01\x00" + binary(lab).read_bytes()[6:]),
    ),
    "compiled from another place": Break(
        WARNING,
        "in another place",
        lambda lab: content(binary(lab), binary(lab).read_bytes().replace(b"/before.sieve", b"/before.seive")),
    ),
    "compiled from another script": Break(
        CRITICAL,
        "is not what sievec makes of",
        lambda lab: content(script(lab), script(lab).read_bytes().replace(b'"failed"', b'"sealed"')),
    ),
    "not a compiled script": Break(WARNING, "is not a compiled script", lambda lab: content(binary(lab), b"")),
    "a script with a mistake": Break(
        CRITICAL, "cannot be compiled", lambda lab: content(script(lab), script(lab).read_bytes() + b"if {\n")
    ),
    "the enrolment script is gone": Break(
        WARNING, "enroll.sieve", lambda lab: gone(script(lab).with_name("enroll.sieve"))
    ),
    "a script cannot be read": Break(CRITICAL, "cannot use", lambda lab: mode(script(lab), 0o600)),
    "a closed directory": Break(CRITICAL, "sieve is closed", lambda lab: mode(script(lab).parent, 0o700)),
    "a closed directory of programs": Break(
        CRITICAL, "execute-bin is closed", lambda lab: mode(programs(lab) / "execute-bin", 0o700)
    ),
    "a program is gone": Break(CRITICAL, "there is no", lambda lab: gone(programs(lab) / "execute-bin/cryptomail")),
    "a program that is none": Break(
        CRITICAL, "cannot use", lambda lab: mode(programs(lab) / "filter-bin/cryptomail", 0o644)
    ),
    "a closed interpreter": Break(
        CRITICAL, "bin is closed", lambda lab: mode(lab.cryptomail.parent.parent.joinpath(*_venv(lab), "bin"), 0o700)
    ),
    "a program more for users": Break(
        CRITICAL, "holds gpgit, too", lambda lab: added(programs(lab) / "filter-bin/gpgit")
    ),
    "world-writable settings": Break(CRITICAL, "others may write to", lambda lab: mode(settings(lab), 0o666)),
    "world-writable configuration": Break(CRITICAL, "others may write to", lambda lab: mode(snippet(lab), 0o646)),
    "a directory that others may write to": Break(
        CRITICAL, "others may write to", lambda lab: mode(settings(lab).parent, 0o777)
    ),
    "a script of somebody's": Break(CRITICAL, "belongs to user ID", lambda lab: belongs(script(lab), 12345)),
    "settings that cannot be read": Break(CRITICAL, "cannot use", lambda lab: mode(settings(lab), 0o600)),
    "settings with a mistake": Break(
        CRITICAL, "there is no such setting", lambda lab: content(settings(lab), b"\nengines = 1\n")
    ),
    "sequoia is wanted and is not there": Break(CRITICAL, "PySequoia is not there", _without_sequoia),
    "an older snippet": Break(
        WARNING, "was edited", lambda lab: added(snippet(lab).with_name(f"{snippet(lab).name}.new"))
    ),
    "a socket is gone": Break(CRITICAL, "there is no socket", lambda lab: gone(lab.sockets / "execute/cryptomail")),
    "the directory of sockets is gone": Break(
        CRITICAL, "there is no directory", lambda lab: gone(lab.sockets / "execute")
    ),
    "Dovecot does not run": Break(CRITICAL, "Dovecot does not run", lambda lab: gone(lab.directory / "run/master.pid")),
    "nobody is noted": Break(
        WARNING, "notes whose mail is encrypted", lambda lab: gone(lab.sockets / f"enrolled/{lab.mail_uid}")
    ),
    "the notes are somebody's": Break(
        CRITICAL, "does not belong to", lambda lab: belongs(lab.sockets / f"enrolled/{lab.mail_uid}", 12345)
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_tree(lab_sealed: Lab, name: str) -> None:
    in_turns(lab_sealed, name, BREAKS)
    one = BREAKS[name]
    with one.do(lab_sealed):
        code, findings = doctor(lab_sealed)
    assert_found(findings, one.state, one.words)
    assert code >= one.state


def test_a_folder_that_is_named_after_the_installation_is_a_finding(running_lab: RunningLab) -> None:
    lab = running_lab("saved")
    settings = lab.directory / "etc/cryptomail/config.toml"
    with content(settings, settings.read_bytes().replace(b"[", b'["Other", '), later=1):
        found = not_about_owners(doctor(lab)[1])
    assert [one["what"] for one in found] == [
        "no script runs for what is saved in the folder Other, which saved_folders names"
    ]


def test_all_was_undone_and_nothing_is_found(lab_sealed: Lab) -> None:
    assert doctor(lab_sealed) == (0, [])
