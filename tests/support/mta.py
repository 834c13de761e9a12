"""Real mail servers, Postfix and Exim, that run beside a lab: from Debian's packages, unpacked and not installed.

They cannot be installed together, and a package that is installed changes the machine and starts a server. What they
need of it besides, their users, they see in files of their own (mount_namespaces(7)), and they end with the test.
"""

import fcntl
import os
import pwd
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.server import REPOSITORY

UNPACKED = REPOSITORY / "build" / "mta"
# A system user whom every Debian has, and Dovecot's too: to the mail servers, it has the name that they want.
USER = "news"
USER_ID = pwd.getpwnam(USER).pw_uid
SECONDS = 30

_MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {work}/spool
data_directory = {work}/data
daemon_directory = {tree}/usr/lib/postfix/sbin
command_directory = {tree}/usr/sbin
shlib_directory = {tree}/usr/lib/postfix
meta_directory = {tree}/etc/postfix
import_environment = MAIL_CONFIG LD_LIBRARY_PATH
maillog_file = {work}/log
maillog_file_prefixes = {work}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.example.org
alias_maps =
smtpd_relay_restrictions = reject_unauth_destination
{lines}
"""
_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
local unix - n n - - local
lmtp unix - - n - - lmtp
postlog unix-dgram n - n - 1 postlogd
"""
_EXIM = """\
exim_path = {tree}/usr/sbin/exim4
spool_directory = {work}/spool
log_file_path = {work}/log-%s
primary_hostname = mail.example.org
deliver_drop_privilege
keep_environment =

begin routers

mailboxes:
  driver = accept
  domains = example.org
  transport = dovecot_lmtp

begin transports

{transport}
"""


def unpacked(*packages: str) -> Path:
    """Where these packages of this machine's Debian are unpacked; the first time, they are downloaded."""
    tree = UNPACKED / packages[0]
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with (UNPACKED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        if not tree.exists():
            with tempfile.TemporaryDirectory(dir=UNPACKED) as work:
                command = ["apt-get", "download", "--quiet", "--quiet", "-o", "APT::Sandbox::User=root", *packages]
                subprocess.run(command, cwd=work, check=True)
                for file in Path(work).glob("*.deb"):
                    subprocess.run(["dpkg", "-x", file, f"{work}/tree"], check=True)
                Path(work, "tree").rename(tree)
    return tree


def _apart(work: Path, user: str, others: tuple[str, ...], *command: str) -> list[str]:
    """A command line that runs `command` where USER is called `user`, and the others are there too.

    All that it starts ends with it.
    """
    script = ""
    for name, rest in (("passwd", f":{USER_ID}::/nonexistent:/usr/sbin/nologin"), ("group", ":")):
        lines = [line for line in Path("/etc", name).read_text().splitlines() if not line.startswith(f"{USER}:")]
        accounts = enumerate((user, *others))
        lines += [f"{one}:x:{USER_ID + 60_000 * place}{rest}" for place, one in accounts]
        script += f"mount --bind {work}/{name} /etc/{name} && "
        (work / name).write_text("".join(f"{line}\n" for line in lines))
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", f'{script} exec "$@"', "sh", *command]


@contextmanager
def postfix(work: Path, lines: str, port: int, recipient: str, services: str = "") -> Iterator[None]:
    """A Postfix that listens on that port of 127.0.0.1, in the directory `work`, with these lines in its main.cf, and
    these services in its master.cf.

    To it, `recipient` is a system user.
    """
    tree = unpacked("postfix")
    for name in ("conf", "data", *(f"spool/{one}" for one in ("pid", "private", "public"))):
        (work / name).mkdir(parents=True)
    for name in ("incoming", "active", "deferred", "defer", "bounce", "corrupt", "hold", "flush", "trace", "saved"):
        (work / "spool" / name).mkdir(mode=0o700)
        os.chown(work / "spool" / name, USER_ID, USER_ID)
    for name in ("data", "spool/private", "spool/public"):
        os.chown(work / name, USER_ID, USER_ID)
    (work / "conf/main.cf").write_text(_MAIN_CF.format(work=work, tree=tree, lines=lines))
    (work / "conf/master.cf").write_text(_MASTER_CF.format(port=port) + services)
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": f"{tree}/usr/lib/postfix"}
    command = [f"{tree}/usr/lib/postfix/sbin/master", "-c", f"{work}/conf", "-i"]
    with (work / "output").open("wb") as output:
        running = subprocess.Popen(
            _apart(work, "postfix", ("postdrop", recipient), *command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        running.kill()
        running.wait()


def send(port: int, message: bytes, recipient: str) -> None:
    """Hand a message to the server on that port of 127.0.0.1, once it answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with smtplib.SMTP("127.0.0.1", port, timeout=SECONDS) as client:
                client.sendmail("sender@example.com", recipient, message)
            return
        except (ConnectionRefusedError, smtplib.SMTPServerDisconnected):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def exim(work: Path, transport: str, message: bytes, recipient: str) -> None:
    """Have an Exim with that transport deliver a message, in the directory `work`."""
    tree = unpacked("exim4-daemon-light")
    (work / "spool").mkdir()
    (work / "conf").write_text(_EXIM.format(work=work, tree=tree, transport=transport))
    for path in (work, work / "spool"):
        os.chown(path, USER_ID, USER_ID)
    command = [f"{tree}/usr/sbin/exim4", "-C", f"{work}/conf", "-odf", "-oi", "-f", "sender@example.com", recipient]
    subprocess.run(_apart(work, "Debian-exim", (), *command), input=message, check=True, timeout=SECONDS)
