"""Gathers the facts on this machine, and has them judged."""

import functools
import os
import pwd
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sieve_filter.doctor import configuration, files, listing, machine, wiring
from sieve_filter.doctor.configuration import Told
from sieve_filter.doctor.files import Wanted
from sieve_filter.doctor.finding import Finding
from sieve_filter.dovecot import doveadm
from sieve_filter.errors import ConfigError, UnknownUserError
from sieve_filter.gpg import runner
from sieve_filter.keys.status import CRITICAL, UNKNOWN, WARNING
from sieve_filter.openssl import runner as openssl
from sieve_filter.policy import config_file
from sieve_filter.policy.settings import Settings
from sieve_filter.sequoia import engine
from sieve_filter.system import pool, spool
from sieve_filter.system.pool import Identity

_WAITS = "all mail waits"


class Installed(NamedTuple):
    """Where things are: Dovecot's main configuration file, ours, the socket of the private LMTP service, the folder in
    which owners save keys, and the directory of `register`; the last two are empty where there is none.
    """

    dovecot_conf: str
    config_file: str
    socket: str
    folder: str
    register: str

    @property
    def snippet(self) -> str:
        """The configuration that `make install` writes for Dovecot."""
        return str(Path(self.config_file).parent.parent / "dovecot/conf.d/99-cryptomail.conf")


def examine(installed: Installed) -> Iterator[Finding]:
    """All that is wrong here, but for owners' keys."""
    settings = Settings()
    try:
        settings = config_file.load(installed.config_file)
    except FileNotFoundError:
        pass
    except ConfigError as error:
        yield Finding(CRITICAL, str(error), _WAITS, f"editor {shlex.quote(installed.config_file)}")
    now = time.time()
    yield from machine.clock(now, Path(__file__).stat().st_mtime)
    yield from machine.engines(runner.version(), engine.version(), settings.engine)
    if settings.keyrings.certificates:
        yield from machine.smime(openssl.version())
    try:
        told = _told(installed, settings)
    except UnknownUserError as error:
        why = "Dovecot does not start, or cannot be reloaded, with it"
        yield Finding(CRITICAL, str(error), why, f"doveconf -n -c {shlex.quote(installed.dovecot_conf)}")
        return
    yield from configuration.judge(told)
    yield from _files(installed, told)
    yield from _compiled(told, installed)
    yield from _running(told, installed)
    yield from _rights(told, installed)
    for place in dict.fromkeys((told.lmtp.values.get("mail_temp_dir", ""), spool.directory())):
        yield from _room(place)


def _told(installed: Installed, settings: Settings) -> Told:
    def told(protocol: str) -> listing.Processes:
        return listing.read(doveadm.settings_of(protocol, installed.dovecot_conf, listing.SETTINGS))

    lmtp = told("lmtp")
    lmtp.values["base_dir"] = os.path.realpath(lmtp.values.get("base_dir", ""))
    return Told(
        lmtp,
        told("lda"),
        told("imap"),
        functools.cache(wiring.read_script),
        installed.snippet,
        installed.socket,
        installed.folder,
        settings.recipient_delimiter,
        settings.saved_folders,
    )


def _programs(told: Told) -> list[str]:
    """The programs that Dovecot starts for us, one that is the same twice once."""
    names = [("filter", "cryptomail", told.lmtp), *([("execute", "cryptomail", told.lmtp)] if told.seals else [])]
    names += [("filter", "cryptomail-enroll", told.imap), ("filter", "cryptomail", told.imap)] if told.folder else []
    names += [("execute", "cryptomail-saved", told.imap)] if told.saved else []
    found = [
        f"{directory}/{name}"
        for kind, name, processes in names
        if (directory := processes.values.get(f"sieve_{kind}_bin_dir", ""))
    ]
    worker = told.lmtp.service("cryptomail")
    return list(dict.fromkeys([*found, *([worker.values.get("executable", "")] if worker is not None else [])]))


def _scripts(told: Told) -> list[str]:
    """Our scripts, as far as they are there."""
    ours = [one.path for one in (*told.calling, *told.guards)]
    enrolment = told.imap.saved_in(told.folder) if told.folder else ()
    ours += [one for one in enrolment if "cryptomail-enroll" in (told.text(one) or "")]
    saved = [one for folder in told.saved for one in told.imap.saved_in(folder)]
    ours += [one for one in saved if "cryptomail-saved" in (told.text(one) or "")]
    return [one for one in dict.fromkeys(ours) if Path(one).is_file()]


def _files(installed: Installed, told: Told) -> Iterator[Finding]:
    programs = _programs(told)
    for program in programs:
        if not Path(program).exists():
            yield Finding(CRITICAL, f"there is no {program}", _WAITS, "make install")
    for directory in {told.lmtp.values.get("sieve_filter_bin_dir", "")} - {""}:
        with suppress(OSError):
            if others := sorted(one.name for one in Path(directory).iterdir() if one.name != "cryptomail"):
                what = f"{directory} holds {', '.join(others)}, too"
                command = f"rm {' '.join(shlex.quote(f'{directory}/{one}') for one in others)}"
                yield Finding(CRITICAL, what, "users' own scripts, and strangers' mail, can run it", command)
    if Path(f"{installed.snippet}.new").exists():
        what = f"{installed.snippet} was edited, and is older than what is installed"
        why = "what it lacks is in the file .new beside it"
        yield Finding(WARNING, what, why, f"diff {shlex.quote(installed.snippet)} {shlex.quote(installed.snippet)}.new")
    scripts = [one.path for one in told.lmtp.before]
    texts = [installed.dovecot_conf, installed.snippet, installed.config_file, *_scripts(told), *scripts]
    binaries = [str(Path(one).with_suffix(".svbin")) for one in _scripts(told)]
    yield from files.trusted([*texts, *binaries, *programs], frozenset({0, os.geteuid()}))


def _compiled(told: Told, installed: Installed) -> Iterator[Finding]:
    for script in _scripts(told):
        conf = next(filter(os.path.isfile, (f"{Path(one).parents[1]}/sievec.conf" for one in _scripts(told))), "")
        settings = conf or installed.dovecot_conf
        command = f"sievec -c {shlex.quote(settings)} {shlex.quote(script)}"
        yield from files.compiled(script, doveadm.compile_script(script, settings), command)


def _sockets(told: Told, installed: Installed) -> list[str]:
    """Those that must be there while Dovecot runs."""
    kinds = ("filter", "execute") if told.seals else ("filter",)
    listening = {told.lmtp.place(one.name) for one in configuration.listeners(told.lmtp.service("cryptomail"))}
    named = [
        told.lmtp.place(directory, "cryptomail")
        for kind in kinds
        if (directory := told.lmtp.values.get(f"sieve_{kind}_socket_dir", ""))
    ]
    return [*(one for one in named if one in listening), *([installed.socket] if told.seals else [])]


def _running(told: Told, installed: Installed) -> Iterator[Finding]:
    for directory in sorted({str(Path(one).parent) for one in _sockets(told, installed)}):
        if not Path(directory).is_dir():
            what = f"there is no directory {directory}"
            yield Finding(CRITICAL, what, "Dovecot cannot make its socket there", f"mkdir -p {shlex.quote(directory)}")
    if not _is_up(Path(told.lmtp.values["base_dir"], "master.pid")):
        yield Finding(CRITICAL, "Dovecot does not run", "no mail is delivered", "systemctl start dovecot")
        return
    for socket in _sockets(told, installed):
        if not Path(socket).is_socket():
            what = f"there is no socket {socket}"
            yield Finding(CRITICAL, what, "Dovecot runs with an older configuration", "doveadm reload")


def _is_up(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _rights(told: Told, installed: Installed) -> Iterator[Finding]:
    worker = told.lmtp.service("cryptomail")
    user = worker.values.get("user", "") if worker is not None else ""
    if user and user != "root":
        try:
            account = pwd.getpwnam(user)
        except KeyError:
            what = f"there is no user {user}, as whom the service cryptomail is to run"
            yield Finding(CRITICAL, what, "Dovecot does not start", f"editor {installed.snippet}")
            return
        identity, name = Identity(account.pw_uid, account.pw_gid), user
        yield from _register(installed.register, identity, name)
    else:
        identity, name = pool.nobody(), "a mailbox owner"
    if os.geteuid() not in (0, identity.uid):
        what = f"it was not looked at what {name} can read"
        yield Finding(UNKNOWN, what, "only root can do so", "sudo cryptomail doctor")
        return
    wanted = list(_wanted(told, installed, shared=user not in ("", "root")))
    yield from files.judge_denied(pool.alone(identity, functools.partial(files.denied, wanted)), name)


def _wanted(told: Told, installed: Installed, shared: bool) -> Iterator[Wanted]:
    yield Wanted(installed.config_file, os.R_OK, _WAITS)
    for script in _scripts(told):
        yield Wanted(script, os.R_OK, "Dovecot passes over it, and mail is stored in clear, or waits")
        yield Wanted(str(Path(script).with_suffix(".svbin")), os.R_OK, "Dovecot compiles the script for each message")
    for program in _programs(told):
        yield Wanted(program, os.R_OK | os.X_OK, _WAITS)
        yield from (Wanted(one, os.X_OK, _WAITS) for one in _interpreter(program))
    if place := told.lmtp.values.get("mail_temp_dir"):
        yield Wanted(place, os.W_OK | os.X_OK, "large messages cannot be delivered")
    for socket in _sockets(told, installed):
        if shared or socket != installed.socket:
            yield Wanted(socket, os.W_OK, _WAITS)


def _interpreter(program: str) -> Sequence[str]:
    """What is named in its first line."""
    with suppress(OSError), open(program, "rb") as file:  # noqa: PTH123
        first = file.readline(4096)
        if first.startswith(b"#!") and first[2:].split():
            return [os.fsdecode(first[2:].split()[0])]
    return []


def _register(directory: str, identity: Identity, user: str) -> Iterator[Finding]:
    if not directory:
        return
    place = f"{directory}/{identity.uid}"
    command = f"install -d -m 700 -o {user} {shlex.quote(place)}"
    why = "where a home is not there, mail of an owner with a key is stored in clear"
    try:
        status = Path(place).stat()
    except PermissionError:
        return
    except OSError:
        yield Finding(WARNING, f"there is no {place}, which notes whose mail is encrypted", why, command)
        return
    if status.st_uid != identity.uid:
        yield Finding(CRITICAL, f"{place} does not belong to {user}", _WAITS, f"chown {user} {shlex.quote(place)}")


def _room(place: str) -> Iterable[Finding]:
    try:
        status = os.statvfs(place)
    except OSError as error:
        what = f"cannot use {place}, for temporary files: {error.strerror}"
        return [
            Finding(CRITICAL, what, "large messages cannot be delivered", f"install -d -m 1777 {shlex.quote(place)}")
        ]
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    return machine.room(machine.Room(place, free, size, status.f_favail, status.f_files))
