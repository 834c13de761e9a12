"""What is compared: private Dovecots that deliver mail in different ways.

A lab takes ten seconds to install, so there is one for each Dovecot configuration. Variants that differ in nothing but
a file that is read for each message (the settings, the program) share a lab, and put that file there when their turn
comes.
"""

import itertools
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks import load
from lab import keys, server
from lab.client import Lab

USERS = ("bench0", "bench1", "bench2", "bench3")
PLAIN, KEEP, FILTER, SEALED = "no filter", "no filter, a script that keeps", "worker, filter, {}", "worker, sealed, {}"
EXECUTED_FILTER, EXECUTED_SEALED = "executed program, filter", "executed program, sealed"
SHELL, GPGIT = "shell script: gpg --encrypt", "gpgit"
LIMIT_FILTER, LIMIT_SEALED = "stand-in, filter", "stand-in, sealed"
GNUPG, SEQUOIA = "GnuPG", "Sequoia"

# A lab's name, and its mode in lab.server.
_LABS = {
    "off": "off",
    "keep": "off",
    "filter": "filter",
    "sealed": "sealed",
    "standin-filter": "filter",
    "standin-sealed": "sealed",
    "program": "filter",
    "executed": "executed",
}

_STANDIN = "service cryptomail {{\n  executable = {}\n}}\n"
# By Dovecot's version. The script that keeps is the only one: the one that guards refuses what nobody has encrypted.
_WITHOUT_WORKER = {
    "2.3": "plugin {\n  sieve_filter_socket_dir =\n}\n",
    "2.4": "sieve_filter_socket_dir =\n",
}
_KEEPING = {
    "2.3": "plugin {{\n  sieve_before = {}\n  sieve_before2 =\n}}\n",
    "2.4": "sieve_script keep {{\n  type = before\n  path = {}\n}}\n",
}

# The recipient's keyring is the one that the filter uses. No compression: the filter does not compress either.
_SHELL_SCRIPT = """\
#!/bin/sh
exec /usr/bin/gpg --homedir "$HOME/.cryptomail" --batch --quiet --trust-model always --compress-algo none \
    --armor --recipient "<$USER>" --encrypt
"""
_GPGIT_SCRIPT = """\
#!/bin/sh
PATH=/usr/bin:/bin GNUPGHOME="$HOME/.cryptomail" exec {gpgit} "$USER"
"""
# gpgit stores mail in clear where it does not trust the key. The filter does not read this file.
_GPG_CONF = "trust-model always\n"


_WORKERS_LINE = b" octets_in="  # what a worker's log line has for each message
_LOG_SECONDS = 0.5  # until it is written


class Variant(NamedTuple):
    """A way to deliver: its name, its lab, and what makes the lab deliver that way, given the message."""

    name: str
    lab: Lab
    prepare: Callable[[bytes], None]
    encrypts: bool = True
    by_worker: bool = False

    def burst(self, connections: int, message: bytes, seconds: float) -> load.Burst:
        """Deliver `message` to empty mailboxes for so long, one owner to a connection."""
        users = USERS[:connections]
        try:
            return self.to([itertools.repeat(self.lab.address(user)) for user in users], message, seconds)
        finally:
            for user in users:
                _empty(self.lab, user)

    def to(self, recipients: Sequence[Iterator[str]], message: bytes, seconds: float) -> load.Burst:
        """The same to these addresses, whose mailboxes are left as they are then."""
        self.prepare(message)
        try:
            return load.burst(self.lab.lmtp, recipients, message, seconds)
        except load.RefusedError as error:
            raise load.RefusedError(f"{self.name}: {error}\n{_complaints(self.lab)}") from error

    def stored(self, message: bytes) -> list[bytes]:
        """What is stored where this message is delivered once."""
        self.to([itertools.repeat(self.lab.address(USERS[0]))], message, 0.001)
        stored = self.lab.stored(USERS[0])
        _empty(self.lab, USERS[0])
        return stored

    def check(self, message: bytes) -> None:
        """Raise RefusedError unless what is delivered is stored, encrypted if it should be, by what should do it."""
        stored = self.stored(message)
        time.sleep(_LOG_SECONDS)
        if (_WORKERS_LINE in self.lab.log.read_bytes()) != self.by_worker:
            raise load.RefusedError(f"{self.name}: the worker did what it should not, or did not; see {self.lab.log}")
        if len(stored) != 1 or (b"-----BEGIN PGP MESSAGE-----" in stored[0]) != self.encrypts:
            raise load.RefusedError(f"{self.name}: what is stored is not what was expected; see {self.lab.log}")


class Variants(NamedTuple):
    """The variants that this machine has, why others are missing, a lab whose installation has all engines, and which
    of them encrypts if nothing is configured.
    """

    variants: Sequence[Variant]
    missing: Mapping[str, str]
    complete: Lab
    engines: Sequence[str]
    default_engine: str
    public: bytes

    def named(self, name: str) -> Variant:
        return next(one for one in self.variants if one.name == name)


@contextmanager
def running() -> Iterator[Variants]:
    """All variants, ready to take mail, until the block ends."""
    with TemporaryDirectory(prefix="bench-", dir="/tmp") as name, keys.owner() as owner:
        directory = Path(name)
        directory.chmod(0o755)
        started: list[Path] = []

        def start(lab: str) -> None:
            server.start(directory / lab, _LABS[lab])
            started.append(directory / lab)

        try:
            with ThreadPoolExecutor() as pool:  # mostly pip's waiting
                list(pool.map(start, _LABS))
            for user in USERS:
                owner.make_key(f"{user}@{server.DOMAIN}")
            labs = {lab: Lab.load(directory / lab) for lab in _LABS}
            for lab in labs.values():
                for user in USERS:
                    keys.give(lab, user, owner.public(lab.address(user)))
            yield _variants(labs, owner.public(labs["off"].address(USERS[0])))
        finally:
            for lab_directory in started:
                server.stop(lab_directory)


def set_config(lab: Lab, text: str) -> None:
    """Make `text` the settings of the lab's cryptomail; they hold from the next message on."""
    _put(lab.directory / "etc/cryptomail/config.toml", text, 0o644)


def _variants(labs: Mapping[str, Lab], public: bytes) -> Variants:
    version = "2.3" if server.dovecot_version().startswith("2.3") else "2.4"
    configure(labs["program"], _WITHOUT_WORKER[version])
    _keep(labs["keep"], version)
    missing: dict[str, str] = {}
    engines = [GNUPG]
    if _has_sequoia(labs["filter"]):
        engines.append(SEQUOIA)
    else:
        missing[SEQUOIA] = "there is no wheel of pysequoia for this machine"
    default = engines[-1]

    def engine(lab: Lab, name: str) -> Callable[[bytes], None]:
        return lambda _: set_config(lab, f'engine = "{name.lower()}"\n')

    def program(text: str) -> Callable[[bytes], None]:
        return lambda _: _put(labs["program"].filter, text, 0o755)

    found = [
        Variant(PLAIN, labs["off"], lambda _: None, encrypts=False),
        Variant(KEEP, labs["keep"], lambda _: None, encrypts=False),
    ]
    for template, lab in ((FILTER, labs["filter"]), (SEALED, labs["sealed"])):
        found += [Variant(template.format(name), lab, engine(lab, name), by_worker=True) for name in engines]
    encrypting = next(one for one in found if one.name == FILTER.format(default))
    for limit, lab in ((LIMIT_FILTER, labs["standin-filter"]), (LIMIT_SEALED, labs["standin-sealed"])):
        found.append(Variant(limit, lab, _stand_in(lab, encrypting)))
    found.append(Variant(EXECUTED_FILTER, labs["program"], program(labs["program"].filter.read_text())))
    found.append(Variant(EXECUTED_SEALED, labs["executed"], lambda _: None))
    found.append(Variant(SHELL, labs["program"], program(_SHELL_SCRIPT)))
    gpgit = shutil.which("gpgit")
    if gpgit:
        for user in USERS:
            (labs["program"].home(user) / ".cryptomail/gpg.conf").write_text(_GPG_CONF)
        found.append(Variant(GPGIT, labs["program"], program(_GPGIT_SCRIPT.format(gpgit=gpgit))))
    else:
        missing[GPGIT] = "it is not installed"
    return Variants(found, missing, labs["filter"], engines, default, public)


def _stand_in(lab: Lab, encrypting: Variant) -> Callable[[bytes], None]:
    """Put a stand-in in the worker's place. Returns what gives it its answer, made of a message by `encrypting`."""
    program, answer = lab.directory / "standin.py", lab.directory / "answer"
    # A file of its own: Dovecot names a process after its service, and Python would not find its environment.
    _put(program, f"#!{lab.python} -I\n{Path(__file__).with_name('standin.py').read_text()}", 0o755)
    executes, stores = lab.sockets / "execute/cryptomail", lab.directory / "run/lmtp-sealed"
    configure(lab, _STANDIN.format(f"{program} {answer} {executes} {stores}"))
    known: list[bytes] = []

    def prepare(message: bytes) -> None:
        if known != [message]:
            [stored] = encrypting.stored(message)
            _put(answer, stored.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), 0o644)
            known[:] = [message]

    return prepare


class Many(NamedTuple):
    """Owners with a key each, beside USERS, and how many of them can be delivered to."""

    enrolled: int
    mailboxes: int


def enrol(variant: Variant, keyrings: Sequence[Path], many: Many, message: bytes) -> list[str]:
    """Make owners who have a copy of one of the `keyrings`, in turn. Returns the addresses of those with a mailbox.

    Mailboxes are copies of one that has a message, so that no delivery is charged for making it. Where nothing is
    encrypted, only they are made.
    """
    lab = variant.lab
    variant.to([itertools.repeat(lab.address(USERS[0]))], message, 0.001)
    pattern = lab.home(USERS[0]) / "Maildir"
    users = [f"many{number:05}" for number in range(many.enrolled if variant.encrypts else many.mailboxes)]
    register = lab.sockets / "enrolled" / str(lab.mail_uid)
    for number, user in enumerate(users):
        keyring = lab.home(user) / ".cryptomail"
        keyring.mkdir(mode=0o700, parents=True)
        shutil.copy(keyrings[number % len(keyrings)], keyring / "pubring.kbx")
        (register / lab.address(user)).touch()
        if number < many.mailboxes:
            shutil.copytree(pattern, lab.home(user) / "Maildir")
    owner = pwd.getpwuid(lab.mail_uid)
    subprocess.run(["chown", "-R", f"{owner.pw_uid}:{owner.pw_gid}", lab.home(users[0]).parent, register], check=True)
    _empty(lab, USERS[0])
    return [lab.address(user) for user in users[: many.mailboxes]]


def _empty(lab: Lab, user: str) -> None:
    """Put the user's mailbox aside. It is deleted in the end: ext4 searches among the files that were deleted in the
    last minute or more for each one that it makes (`recently_deleted`), and the next variant would pay for it.
    """
    (lab.home(user) / "Maildir").rename(lab.home(user) / f"taken-{time.monotonic_ns()}")


def _complaints(lab: Lab) -> str:
    """The last that the lab's Dovecot complained about; its log goes with it."""
    lines = [line for line in lab.log.read_text(errors="replace").splitlines() if "Info:" not in line]
    return "\n".join(lines[-5:])


def _keep(lab: Lab, version: str) -> None:
    """Make a global script that does what happens anyway: what Sieve costs without us."""
    share = lab.directory / "usr/share/cryptomail"
    script = share / "sieve/keep.sieve"
    script.write_text("keep;\n")
    subprocess.run(["sievec", "-c", share / "sievec.conf", script], check=True)
    script.with_suffix(".svbin").chmod(0o644)
    configure(lab, _KEEPING[version].format(script))


def configure(lab: Lab, text: str) -> None:
    """Append settings to the lab's Dovecot, and start it anew."""
    configuration = lab.directory / "dovecot.conf"
    with configuration.open("a") as file:
        file.write("\n" + text)
    server.stop(lab.directory)
    subprocess.run(["dovecot", "-c", configuration], check=True, stdin=subprocess.DEVNULL)


def _has_sequoia(lab: Lab) -> bool:
    command = [str(lab.python), "-I", "-c", "import pysequoia"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


def _put(path: Path, content: str | bytes, mode: int) -> None:
    """Replace the file in one step: somebody may be reading it, or running it."""
    new = path.parent.parent / f"{path.name}.new"
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    new.chmod(mode)
    new.replace(path)
