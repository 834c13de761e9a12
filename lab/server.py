"""Starts and stops a private Dovecot below one directory. Standard library only: it runs wherever Dovecot does."""

import grp
import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import string
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
# What is in packages.txt for the lab.
[PACKAGES] = re.findall(r"^lab: (.*)", Path(__file__).with_name("packages.txt").read_text(), re.MULTILINE)
DOMAIN = "example.org"
PAGE_USER = "www-data"  # likewise, for the owner's page: one who owns no mail
MAIL_USER = "nobody"  # as root; an ordinary user's lab is that user's in all its parts

# The path of a Unix socket has at most 107 bytes (sun_path in unix(7)); Dovecot's longest name takes 40 of them.
LONGEST_DIRECTORY = 107 - 40
START_SECONDS = 30
STOP_SECONDS = 30

_SENDMAIL = """\
#!/bin/sh
# Catches what Sieve scripts send: the command's arguments, an empty line, the message.
file=$(mktemp "{lab}/outbox/XXXXXX")
{{ echo "$@"; echo; cat; }} > "$file"
"""

_ORDINARY_USER = """\
# Dovecot's unprivileged processes run as the user who started it, who cannot change their root directory either.
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
service anvil {{
  chroot =
}}
service imap-login {{
  chroot =
}}
service managesieve-login {{
  chroot =
}}
"""

# Where each mailbox belongs to one mail user, and, for the mode "users", to a system user of its own.
_USERDB = {
    "2.3": """\
userdb {
  driver = static
  args = uid=%(uid)s gid=%(gid)s home=%(lab)s/home/%%n allow_all_users=yes
}""",
    "2.4": """\
userdb static {
  fields {
    uid = %(uid)s
    gid = %(gid)s
    home = %(lab)s/home/%%{user | username}
  }
  allow_all_users = yes
}""",
}
_SYSTEM_USERDB = {
    "2.3": """\
auth_username_format = %%Ln
first_valid_uid = 1
userdb {
  driver = passwd
  override_fields = home=%(lab)s/home/%%n
}""",
    "2.4": """\
auth_username_format = %%{user | username | lower}
first_valid_uid = 1
userdb passwd {
  fields {
    home = %(lab)s/home/%%{user | username}
  }
}""",
}

# What a mode needs besides the files that are shipped, by Dovecot's version.
_MODES = {
    "sealed": {"2.3": "", "2.4": ""},
    "executed": {
        "2.3": "plugin {\n  sieve_filter_socket_dir =\n  sieve_execute_socket_dir =\n}",
        "2.4": "sieve_filter_socket_dir =\nsieve_execute_socket_dir =",
    },
    "filter": {"2.3": "", "2.4": ""},
    "users": {"2.3": "", "2.4": ""},
    "saved": {"2.3": "", "2.4": ""},
    "off": {
        "2.3": "plugin {\n  sieve_before =\n}",
        "2.4": "sieve_script cryptomail {\n  type = none\n}\nsieve_script cryptomail-guard {\n  type = none\n}",
    },
}
MODES = tuple(_MODES)


# What owners save in these folders is encrypted, in the mode of that name.
SAVED_FOLDERS = ("Sent", "Sent Items", "Archiv/Gelöscht")


class LabError(Exception):
    """What keeps the lab from starting, in one line for a person."""


def start(directory: Path, mode: str, dependencies: str = "") -> Path:
    """Start a Dovecot in `directory`, which is made if need be. Returns the path of its lab.json.

    `dependencies` is a directory that `make dependencies` has filled; else `make install` asks pip.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"  # where Dovecot is, and an ordinary user's shell does not look
    account = pwd.getpwnam(MAIL_USER) if os.getuid() == 0 else pwd.getpwuid(os.getuid())
    require_packages()
    version = dovecot_version()
    _prepare(directory, account, mode)
    if mode == "saved":
        settings = directory / "etc/cryptomail/config.toml"
        settings.parent.mkdir(parents=True)
        settings.write_text(f"saved_folders = {json.dumps(SAVED_FOLDERS, ensure_ascii=False)}\n")
    mail_user = "" if mode == "users" else account.pw_name
    _install(directory, mail_user, "no" if mode == "filter" else "yes", dependencies)
    ports = {name: _free_port() for name in ("lmtp", "imap", "managesieve")}
    description = {
        "dovecot": version,
        "lmtp": ["127.0.0.1", ports["lmtp"]],
        "imap": ["127.0.0.1", ports["imap"]],
        "managesieve": ["127.0.0.1", ports["managesieve"]],
        "domain": DOMAIN,
        "password": secrets.token_hex(8),
        "home": f"{directory}/home/%n",
        "mail_uid": account.pw_uid,
        "log": f"{directory}/log/dovecot.log",
        "filter": f"{directory}/usr/lib/cryptomail/filter-bin/cryptomail",
        "cryptomail": f"{directory}/usr/bin/cryptomail",
        "mode": mode,
    }
    _configure(directory, account, description, ports)
    _run_dovecot(directory, ports["lmtp"])
    if web := _run_page(directory, ports["imap"]):
        description["web"] = web
    lab_json = directory / "lab.json"
    lab_json.write_text(json.dumps(description, indent=2) + "\n")
    return lab_json


def stop(directory: Path) -> None:
    """Stop the Dovecot in `directory`, and wait for its end."""
    if not _runs(directory):
        raise LabError(f"no Dovecot runs in {directory}")
    _stop_page(directory)
    pid_file = directory / "run" / "master.pid"
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while pid_file.exists():
        if time.monotonic() > deadline:
            raise LabError(f"Dovecot did not end within {STOP_SECONDS} seconds; see {directory}/log/dovecot.log")
        time.sleep(0.05)


def _runs(directory: Path) -> bool:
    """Whether somebody answers there: a process ID in a file may by now be another program's."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(directory / "run" / "lmtp")) == 0


def require_packages() -> None:
    """Raise LabError, which says what to install, where a program is missing."""
    needed = ("dovecot", "sievec", "gpg", "make", "imap", "lmtp", "managesieve")
    path = os.environ["PATH"] + ":/usr/sbin:/usr/lib/dovecot"
    missing = any(shutil.which(name, path=path) is None for name in needed)
    if missing or importlib.util.find_spec("ensurepip") is None:
        raise LabError(f"something is missing: apt-get install --no-install-recommends {PACKAGES}")


def dovecot_version() -> str:
    return subprocess.run(["dovecot", "--version"], check=True, capture_output=True, text=True).stdout.split()[0]


def _prepare(directory: Path, account: pwd.struct_passwd, mode: str) -> None:
    if len(str(directory)) > LONGEST_DIRECTORY:
        raise LabError(f"{directory} is too long a path for Unix sockets: at most {LONGEST_DIRECTORY} characters")
    if _runs(directory):
        raise LabError(f"a Dovecot runs in {directory} already: make lab-stop LAB={directory}")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.chmod(0o755)
    if os.getuid() == 0:
        command = ["test", "-x", str(directory)]
        if subprocess.run(command, user=account.pw_uid, group=account.pw_gid, extra_groups=[]).returncode != 0:
            raise LabError(f"{account.pw_name} cannot reach {directory}: a directory above it is closed to others")
    for name in ("run", "state", "log"):
        (directory / name).mkdir(exist_ok=True)
    for name in ("home", "outbox"):
        (directory / name).mkdir(mode=0o711, exist_ok=True)
        if mode != "users":  # whoever owns the directory of all homes could exchange any of them
            os.chown(directory / name, account.pw_uid, account.pw_gid)


def install_command(directory: Path) -> list[str]:
    """The command that installs into a lab, but for who owns the mail there, and whether to seal."""
    places = [f"PREFIX={directory}/usr", f"SYSCONFDIR={directory}/etc", f"BASE_DIR={directory}/run"]
    places += [f"LOCALSTATEDIR={directory}/var", f"SENDMAIL={directory}/sendmail"]
    places += [f"DOVECOT_CONF={directory}/dovecot.conf"]
    return ["make", "--silent", "install", *places]


def _install(directory: Path, mail_user: str, sealing: str, dependencies: str) -> None:
    command = [*install_command(directory), f"MAIL_USER={mail_user}", f"SEALING={sealing}"]
    command += [f"DEPENDENCIES={dependencies}"] if dependencies else []
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (directory / "log" / "install.log").write_text(done.stdout)
    if done.returncode != 0:
        reasons = [line for line in done.stdout.splitlines() if not line.startswith("make")]
        raise LabError(f"make install failed: {reasons[-1] if reasons else 'it gave no reason'}")


def _configure(
    directory: Path, account: pwd.struct_passwd, description: Mapping[str, object], ports: Mapping[str, int]
) -> None:
    version = ".".join(str(description["dovecot"]).split(".")[:2])
    values = {"lab": directory, "uid": account.pw_uid, "gid": account.pw_gid}
    userdb = _SYSTEM_USERDB if description["mode"] == "users" else _USERDB
    settings = {
        "lab": directory,
        "domain": DOMAIN,
        "password": description["password"],
        "userdb": userdb[version] % values,
        "identity": _identity(account),
        "mode": _MODES[str(description["mode"])][version],
        **{f"{name}_port": port for name, port in ports.items()},
    }
    template = string.Template((REPOSITORY / "lab" / f"dovecot-{version}.conf").read_text())
    (directory / "dovecot.conf").write_text(template.substitute(settings))
    sendmail = directory / "sendmail"
    sendmail.write_text(_SENDMAIL.format(lab=directory))
    sendmail.chmod(0o755)


def _identity(account: pwd.struct_passwd) -> str:
    if os.getuid() == 0:
        return "# Started as root: Dovecot's own users, and the mail's."
    return _ORDINARY_USER.format(user=account.pw_name, group=grp.getgrgid(account.pw_gid).gr_name)


def _run_page(directory: Path, imap_port: int) -> str:
    """Start the owner's page. Returns its address; empty where there were no wheels of what it needs."""
    program = directory / "usr/bin/cryptomail"
    [interpreter] = re.findall(r"#!(.*) -I", program.read_text().splitlines()[0])
    if subprocess.run([interpreter, "-I", "-c", "import flask, waitress"], stderr=subprocess.DEVNULL).returncode != 0:
        return ""
    port = _free_port()
    arguments = ["web", "--listen", f"127.0.0.1:{port}", "--imap", f"imap://127.0.0.1:{imap_port}"]
    user = PAGE_USER if os.getuid() == 0 else None
    with (directory / "log" / "web.log").open("wb") as output:
        started = subprocess.run(
            ["setsid", "sh", "-c", '"$@" >&2 & echo $!', "sh", program, *arguments],  # it outlives this process
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    (directory / "run" / "web.pid").write_text(f"{started.stdout.strip()} {port}")
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if time.monotonic() > deadline:
            os.kill(int(started.stdout), signal.SIGKILL)
            stop(directory)
            raise LabError(f"the owner's page does not answer; see {directory}/log/web.log")
        time.sleep(0.05)
    return f"http://127.0.0.1:{port}"


def _stop_page(directory: Path) -> None:
    """Stop the owner's page, if it answers: a process ID in a file may by now be another program's."""
    file = directory / "run" / "web.pid"
    if file.exists():
        number, port = map(int, file.read_text().split())
        if _answers(port):
            os.kill(number, signal.SIGTERM)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run_dovecot(directory: Path, port: int) -> None:
    """Start it and wait until it answers. Its children hold on to the output they are given: a file, not our pipe."""
    with (directory / "log" / "start.log").open("wb") as output:
        started = subprocess.run(
            ["dovecot", "-c", directory / "dovecot.conf"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    if started.returncode != 0:
        raise LabError(f"Dovecot did not start; see {directory}/log/start.log")
    deadline = time.monotonic() + START_SECONDS
    with socket.socket() as probe:
        while probe.connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > deadline:
                stop(directory)
                raise LabError(f"Dovecot does not answer; see {directory}/log/dovecot.log")
            time.sleep(0.05)
