"""The faults: what goes wrong, how it is made to, and what has to become of the messages."""

import ctypes
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from socket import socket
from subprocess import DEVNULL, PIPE, TimeoutExpired, run

from lab import keys
from lab.client import Lab, Reply
from tests.e2e.conftest import Person
from tests.faults import dovecot, sender
from tests.faults.sender import Sent
from tests.support import system_users
from tests.support.workers import CLIENT, children, head, until
from tests.support.x509 import Maker, ec

DELIVERED, REFUSED, EITHER = "delivered", "refused", "delivered or refused"
KB, MB = 1_000, 1_000_000


@dataclass(frozen=True)
class Load:
    """How many messages of how many octets come, over how many connections; `long` is for `make faults`."""

    messages: int = 3
    connections: int = 3
    size: int = 20 * KB
    patience: float = 30


Cause = Callable[[Person], AbstractContextManager[None]]
Deliver = Callable[[Person, Sequence[Sent], Load], None]


def deliver(person: Person, messages: Sequence[Sent], load: Load) -> None:
    sender.deliver(person.lab, person.address, messages, load.connections, load.patience)


@dataclass(frozen=True)
class Fault:
    """`cause` lasts while the messages come. A crash between storing and answering may duplicate a message.

    `says` is in the log then, by mode where it differs: without it, the fault has not bitten.
    `modes` are those of a lab in which this is a fault.
    """

    sentence: str
    cause: Cause
    expected: str
    says: str | Mapping[str, str] = field(kw_only=True)
    load: Load = Load()
    long_load: Load = Load(messages=12)
    deliver: Deliver = deliver
    may_duplicate: bool = False
    modes: tuple[str, ...] = (dovecot.WORKER, dovecot.PROGRAM)

    def line(self, mode: str) -> str:
        return self.says if isinstance(self.says, str) else self.says[mode]


@contextmanager
def nothing(person: Person) -> Iterator[None]:
    yield


# The owner's own script


def script(text: str, *more: Cause) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        file = person.lab.home(person.user) / ".dovecot.sieve"
        file.write_text(text)
        dovecot.belongs_to_the_mail_user(person.lab, file)
        with ExitStack() as stack:
            for other in more:
                stack.enter_context(other(person))
            yield
        file.unlink()

    return cause


def sendmail(text: str) -> Cause:
    return lambda person: dovecot.replaced(person.lab, person.lab.directory / "sendmail", text)


@contextmanager
def redirected_to_its_owner(person: Person) -> Iterator[None]:
    with script(f'redirect "{person.address}";')(person):
        yield


def deliver_what_comes_back(person: Person, messages: Sequence[Sent], load: Load) -> None:
    """Deliver, and then, as a mail server does, what Sieve scripts send to this owner, at most 20 times each."""
    deliver(person, messages, load)
    for _ in range(20):
        for file in sorted((person.lab.directory / "outbox").iterdir()):
            arguments, _, message = file.read_bytes().partition(b"\n\n")
            if arguments.endswith(f" {person.address}".encode()):
                again = [Sent(0, re.sub(rb"\r?\n", b"\r\n", message))]
                sender.deliver(person.lab, person.address, again, 1, load.patience)
                if again[0].accepted:
                    file.unlink()


def setting(name: str) -> Cause:
    return lambda person: dovecot.configured(person.lab, dovecot.setting(person.lab, name))


# A regular expression with back references that takes long to fail.
_BURN = 'require ["variables", "regex"];\nset "a" "' + "a" * 40 + '";\n'
_BURN += 'if string :regex "${a}" "(a*)(a*)\\\\1\\\\2b" { stop; }\n' * 400

PERSONAL = [
    Fault(
        "the personal script ends in a runtime error",
        script('require "fileinto"; fileinto "foo//bar";'),
        EITHER,
        says="failed, but implicit keep was successful",
    ),
    Fault(
        "the personal script ends in an error of its own",
        script('require "ihave"; error "no";'),
        EITHER,
        says="failed, but implicit keep was successful",
    ),
    Fault(
        "the personal script files into an unknown mailbox",
        script('require "fileinto"; fileinto "None";'),
        EITHER,
        says="failed, but implicit keep was successful",
    ),
    Fault(
        "the personal script calls a missing program",
        script('require "vnd.dovecot.filter"; filter "missing";'),
        EITHER,
        says="failed, but implicit keep was successful",
    ),
    Fault(
        "the personal script rejects the message and that fails",
        script('require "reject"; reject "no";', sendmail("#!/bin/sh\nexit 75\n")),
        EITHER,
        says="failed to send rejection",
    ),
    Fault(
        "the personal script redirects the message and that fails",
        script('redirect "somebody@example.com";', sendmail("#!/bin/sh\nexit 75\n")),
        EITHER,
        says="failed to redirect message",
    ),
    Fault(
        "the personal script redirects to its own address",
        redirected_to_its_owner,
        EITHER,
        deliver=deliver_what_comes_back,
        says="redirect action: forwarded to",
    ),
    Fault(
        "the personal script does not compile",
        script("this is not Sieve"),
        EITHER,
        says="Failed to compile script",
    ),
    Fault(
        "the personal script takes more time than allowed",
        script(_BURN, setting("cpu limit")),
        EITHER,
        says="aborted due to excessive resource usage",
    ),
    Fault(
        "the personal script takes more actions than allowed",
        script('require ["fileinto", "mailbox"];\n' + "".join(f'fileinto :create "f{i}";\n' for i in range(40))),
        EITHER,
        says="failed, but implicit keep was successful",
    ),
]


# The keyring


def keyring(person: Person) -> Path:
    return person.lab.home(person.user) / ".cryptomail"


@contextmanager
def without_keyring(person: Person) -> Iterator[None]:
    aside = keyring(person).rename(keyring(person).with_name("aside"))
    try:
        yield
    finally:
        shutil.rmtree(keyring(person), ignore_errors=True)
        aside.rename(keyring(person))


def config(text: str) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        with dovecot.replaced(person.lab, dovecot.config_file(person.lab), text):
            yield

    return cause


@contextmanager
def missing_keyring(person: Person) -> Iterator[None]:
    with config('[on]\nno_key = "refuse"\n')(person), without_keyring(person):
        yield


@contextmanager
def unreadable_keyring(person: Person) -> Iterator[None]:
    keyring(person).chmod(0)
    try:
        yield
    finally:
        keyring(person).chmod(0o700)


def keyring_file(change: Callable[[bytes], bytes]) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        file = keyring(person) / "pubring.kbx"
        with dovecot.replaced(person.lab, file, change(file.read_bytes())):
            yield

    return cause


@contextmanager
def expired_key(person: Person) -> Iterator[None]:
    with config('[on]\nexpired_key = "refuse"\n')(person), without_keyring(person), keys.owner() as other:
        other.make_key(person.address, made_at="20200101T000000", expires="20210101T000000")
        keys.give(person.lab, person.user, other.public(person.address))
        yield


@contextmanager
def revoked_key(person: Person) -> Iterator[None]:
    with without_keyring(person), keys.owner() as other:
        other.revoke(other.make_key(person.address))
        keys.give(person.lab, person.user, other.public(person.address))
        yield


@contextmanager
def locked_keyring(person: Person) -> Iterator[None]:
    """GnuPG's lock: a file with the number and the host of a process, init's, which lives. It holds up a true gpg."""
    for name in ("pubring.kbx.lock", "gnupg_spawn_keyboxd_sentinel.lock", "trustdb.gpg.lock"):
        lock = keyring(person) / name
        lock.write_text(f"{1:10}\n{Path('/proc/sys/kernel/hostname').read_text()}")
        dovecot.belongs_to_the_mail_user(person.lab, lock)
    try:
        command = ["/usr/bin/gpg", "--homedir", person.lab.inside(keyring(person)), "--batch", "--import"]
        try:
            run(person.lab.command(*command), input=person.gpg.public(person.address), stderr=PIPE, timeout=4)
        except TimeoutExpired as held_up:
            dovecot.note(person.lab, (held_up.stderr or b"").decode())
        yield
    finally:
        for lock in (*keyring(person).glob("*.lock"), *keyring(person).glob(".#lk*")):
            lock.unlink()


KEYRING = [
    Fault("the keyring is missing where no_key is refuse", missing_keyring, REFUSED, says="has no key"),
    Fault("the keyring is unreadable", unreadable_keyring, REFUSED, says="Permission denied"),
    Fault("the keyring is garbage", keyring_file(lambda data: b"garbage " * 100), REFUSED, says="cannot list the keys"),
    Fault(
        "the keyring lost its second half",
        keyring_file(lambda data: data[: len(data) // 2]),
        REFUSED,
        says="cannot list the keys",
    ),
    Fault("all keys are expired where expired_key is refuse", expired_key, REFUSED, says="expired on 2021-01-01"),
    Fault("the key is revoked", revoked_key, REFUSED, says="was revoked"),
    Fault(
        "the keyring is locked by another gpg",
        locked_keyring,
        DELIVERED,
        says="waiting for lock",
    ),
]


# gpg


@contextmanager
def stand_in(lab: Lab, programs: Path, name: str, script: str, path: str = "") -> Iterator[None]:
    """A shell script in that directory in place of a program that cryptomail starts; `path` is where others are."""
    fake = programs / name
    fake.write_text(f"#!/bin/sh -p\nPATH=/usr/bin:/bin\nLAB={lab.inside(dovecot.workshop(lab))}\n{script}\n")
    fake.chmod(0o755)
    with dovecot.wrapped(lab, f'PATH={lab.inside(programs)}{path}\nexport PATH\nexec "$PROGRAM" "$@"'):
        yield


def gpg(encrypts: str, settings: str = "") -> Cause:
    """A gpg that does this in place of encrypting, which is left to gpg alone; its lists are the true one's."""

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        lab = person.lab
        engine = config(f'engine = "gnupg"\n{settings}')
        script = f'case "$*" in *--encrypt*) {encrypts} ;; *) exec /usr/bin/gpg "$@" ;; esac'
        with (
            dovecot.programs(lab) as programs,
            dovecot.orphans_ended(lab),
            stand_in(lab, programs, "gpg", script),
            engine(person),
        ):
            yield

    return cause


@contextmanager
def missing_gpg(person: Person) -> Iterator[None]:
    with (
        config('engine = "gnupg"\n')(person),
        dovecot.wrapped(person.lab, 'PATH=/nonexistent\nexport PATH\nexec "$PROGRAM" "$@"'),
    ):
        yield


HANG = ': > "$LAB/orphans/$$"; exec sleep 60'

GPG = [
    Fault("gpg is missing", missing_gpg, REFUSED, says="No such file or directory: 'gpg'"),
    Fault("gpg crashes", gpg("kill -SEGV $$"), REFUSED, says="gpg ended without a word"),
    Fault("gpg hangs", gpg(HANG, "time_limit = 3\n"), REFUSED, says="it took longer than time_limit"),
    Fault(
        "gpg prints garbage",
        gpg("cat > /dev/null; printf '[GNUPG:] END_ENCRYPTION\\n' >&2; head -c 5000 /dev/urandom"),
        REFUSED,
        says="what gpg wrote is not an encrypted message",
    ),
    Fault(
        "gpg prints the message",
        gpg("printf '[GNUPG:] BEGIN_ENCRYPTION\\n[GNUPG:] END_ENCRYPTION\\n' >&2; cat"),
        REFUSED,
        says="what gpg wrote is not an encrypted message",
    ),
    Fault(
        "gpg is killed midway",
        gpg('/usr/bin/gpg "$@" | head -c 4000; kill -KILL $$'),
        REFUSED,
        says="gpg could not encrypt",
    ),
    Fault(
        "gpg ends midway without a word",
        gpg('/usr/bin/gpg "$@" | { head -c 4000; cat > /dev/null; }'),
        REFUSED,
        says="gpg succeeded, but what it wrote is not an encrypted message",
    ),
]


# S/MIME


def smime(encrypts: str = "", damage: Callable[[bytes], bytes] = bytes) -> Cause:
    """An owner whose mail becomes S/MIME, and an openssl that does this in place of encrypting; or damage in the file
    of certificates. $OTHER is the file of somebody else's certificate.
    """

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        lab = person.lab
        wanted = config('time_limit = 3\n[keyrings]\nprefer = "smime"\n')
        with dovecot.programs(lab) as programs, dovecot.orphans_ended(lab), ExitStack() as stack:
            maker = Maker(programs)
            card, other = maker.make(*ec("P-256"), address=person.address), maker.make(*ec("P-256"))
            for path in (other.directory, other.directory / "cert.pem"):
                path.chmod(0o755)
            file = keyring(person) / "smime.pem"
            file.write_bytes(damage(card.pem))
            stack.callback(file.unlink)
            dovecot.belongs_to_the_mail_user(lab, file)
            script = f"OTHER={lab.inside(other.directory)}/cert.pem\n{encrypts}"
            stack.enter_context(stand_in(lab, programs, "openssl", script, ":/usr/bin:/bin"))
            stack.enter_context(wanted(person))
            yield

    return cause


SMIME = [
    Fault("openssl prints the message", smime("cat"), REFUSED, says="what openssl wrote is not an encrypted message"),
    Fault("openssl hangs", smime(HANG), REFUSED, says="it took longer than time_limit"),
    Fault(
        "openssl is killed midway",
        smime('/usr/bin/openssl "$@" | head -c 4000; kill -KILL $$'),
        REFUSED,
        says="openssl could not encrypt",
    ),
    Fault(
        "openssl encrypts the beginning of the message",
        smime('head -c 4000 | /usr/bin/openssl "$@"; cat > /dev/null'),
        REFUSED,
        says="what openssl encrypted is not all of the message",
    ),
    Fault(
        "openssl encrypts to somebody else too",
        smime('exec /usr/bin/openssl "$@" -recip "$OTHER"'),
        REFUSED,
        says="openssl encrypted to other certificates",
    ),
    Fault(
        "the file of certificates is damaged",
        smime(damage=lambda content: content[:-100]),
        REFUSED,
        says="a certificate in it is cut off",
    ),
]


# The program


def program(content: str | None, mode: int | None = None) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        with dovecot.replaced(person.lab, dovecot.program(person.lab), content, mode):
            yield

    return cause


def wrapper(shell: str) -> Cause:
    return lambda person: dovecot.wrapped(person.lab, shell)


def temporary_directory_of(size: str) -> Cause:
    """Dovecot's own, for messages too large for its memory."""

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        directory = dovecot.workshop(person.lab) / "tmp"
        settings = f"mail_temp_dir = {person.lab.inside(directory)}\n"
        with dovecot.small_disk(person.lab, directory, size):
            directory.chmod(0o1777)
            with dovecot.configured(person.lab, settings):
                yield

    return cause


def mail_store_of(size: str, *, read_only: bool = False) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        maildir = person.lab.home(person.user) / "Maildir"
        with dovecot.small_disk(person.lab, maildir, size):
            if read_only:
                run(["/bin/mount", "-o", "remount,ro", maildir], check=True)
            yield

    return cause


@contextmanager
def exec_timeout(person: Person) -> Iterator[None]:
    with setting("exec timeout")(person), gpg(HANG)(person):
        yield


# What before.sieve leaves in the log where it refuses a message, and the program has said nothing.
_REFUSED_BY_SCRIPT = "cryptomail-tempfail/x"

_PROGRAM = (dovecot.PROGRAM,)
_WORKER = (dovecot.WORKER,)

PROGRAM = [
    Fault(
        "the program is missing",
        program(None),
        REFUSED,
        modes=_PROGRAM,
        says="cryptomail' not found",
    ),
    Fault(
        "the program is not executable",
        program(None, 0o644),
        REFUSED,
        modes=_PROGRAM,
        says="/cryptomail) failed: Permission denied",
    ),
    Fault(
        "the program's interpreter is missing",
        program("#!/nonexistent/python\n"),
        REFUSED,
        modes=_PROGRAM,
        says="/cryptomail) failed: No such file or directory",
    ),
    Fault(
        "the configuration has a syntax error",
        config("this is not TOML"),
        REFUSED,
        says="which is not TOML",
    ),
    Fault(
        "the program is killed before it reads",
        wrapper("kill -KILL $$"),
        REFUSED,
        modes=_PROGRAM,
        says="Terminated abnormally with signal 9",
    ),
    Fault(
        "the program is killed midway",
        gpg('cat > /dev/null; kill -KILL "$PPID"; exit 1'),
        REFUSED,
        says={
            dovecot.WORKER: "has ended (SIGKILL): its message",
            dovecot.PROGRAM: "Terminated abnormally with signal 9",
        },
    ),
    Fault(
        "the program cannot get memory",
        wrapper('ulimit -v 16000; exec "$PROGRAM" "$@"'),
        REFUSED,
        modes=_PROGRAM,
        says="Terminated with non-zero exit code",
    ),
    Fault(
        "the program has little memory",
        wrapper('ulimit -v 30000; exec "$PROGRAM" "$@"'),
        EITHER,
        Load(size=8 * MB),
        Load(12, size=8 * MB),
        says="there is not enough memory",
    ),
    Fault(
        "the program is out of file descriptors",
        wrapper('ulimit -n 13; exec "$PROGRAM" "$@"'),
        EITHER,
        modes=_WORKER,
        says="cannot start a process: Too many open files",
    ),
    Fault(
        "the program has no file descriptors",
        wrapper('ulimit -n 6; exec "$PROGRAM" "$@"'),
        REFUSED,
        modes=_PROGRAM,
        says="Too many open files",
    ),
    Fault(
        "the program may start no process",
        wrapper('ulimit -p 0; exec "$PROGRAM" "$@"'),
        REFUSED,
        says="Resource temporarily unavailable",
    ),
    Fault(
        "the program outlives Dovecot's exec timeout",
        exec_timeout,
        REFUSED,
        Load(patience=6),
        Load(patience=6),
        says="Execution timed out",
    ),
]


# The worker


def worker(answer: Callable[[socket], None] | None) -> Cause:
    """Another one, with Dovecot's patience at two seconds."""

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        socket_path = dovecot.worker_socket(person.lab)
        with setting("exec timeout")(person), dovecot.false_service(person.lab, socket_path, answer):
            yield

    return cause


@contextmanager
def missing_worker(person: Person) -> Iterator[None]:
    """Dovecot holds the socket, and cannot start what is to listen there."""
    with setting("exec timeout")(person), dovecot.changed(person.lab), program(None)(person):
        kill("worker")(person.lab)
        yield


WORKER = [
    Fault(
        "the worker is missing",
        missing_worker,
        REFUSED,
        Load(patience=6),
        Load(patience=6),
        modes=_WORKER,
        says="/worker) failed: No such file or directory",
    ),
    Fault(
        "nobody listens on the worker's socket",
        worker(None),
        EITHER,
        modes=_WORKER,
        says="Connection refused",
    ),
    Fault(
        "the worker hangs",
        worker(dovecot.worker_that_hangs),
        REFUSED,
        Load(patience=8),
        Load(patience=8),
        modes=_WORKER,
        says="Execution timed out",
    ),
    Fault(
        "the worker hangs up",
        worker(dovecot.worker_that_says(b"")),
        REFUSED,
        modes=_WORKER,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the worker says yes to nothing",
        worker(dovecot.worker_that_says(b"+\n")),
        REFUSED,
        modes=_WORKER,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the worker ends in the middle of a word",
        worker(dovecot.worker_that_says(b"seal")),
        REFUSED,
        modes=_WORKER,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the worker says sealed, and then no",
        worker(dovecot.worker_that_says(b"sealed-\n")),
        REFUSED,
        modes=_WORKER,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the worker answers with garbage",
        worker(dovecot.worker_that_says(bytes(range(256)))),
        REFUSED,
        modes=_WORKER,
        says=_REFUSED_BY_SCRIPT,
    ),
]


# The private LMTP service


def lmtp_service(*answers: bytes) -> Cause:
    """One that gives these answers and then hangs up, in place of the private one."""

    def cause(person: Person) -> AbstractContextManager[None]:
        service = dovecot.lmtp_that_says(answers)
        return dovecot.false_service(person.lab, dovecot.private_service(person.lab), service)

    return cause


@contextmanager
def missing_service(person: Person) -> Iterator[None]:
    with dovecot.restarting(person.lab):
        dovecot.private_service(person.lab).unlink()
        yield


@contextmanager
def silent_service(person: Person) -> Iterator[None]:
    service = dovecot.false_service(person.lab, dovecot.private_service(person.lab), dovecot.lmtp_that_falls_silent)
    with config("time_limit = 3\n")(person), service:
        yield


def then_wait(person: Person, messages: Sequence[Sent], load: Load) -> None:
    """Deliver, and leave a program that goes on by itself the time to do harm."""
    deliver(person, messages, load)
    time.sleep(4)


@contextmanager
def slow_program(person: Person) -> Iterator[None]:
    with setting("exec timeout")(person), gpg('sleep 4; exec /usr/bin/gpg "$@"')(person):
        yield


@contextmanager
def echoing_program(person: Person) -> Iterator[None]:
    """Dovecot stops reading such a long answer, and waits for its timeout."""
    with setting("exec timeout")(person), wrapper("exec cat")(person):
        yield


_GREETING = (b"220 hello", b"250 yes", b"250 yes", b"250 yes")

SERVICE = [
    Fault(
        "the private service is missing",
        missing_service,
        REFUSED,
        says="/lmtp-sealed: [Errno 2] No such file or directory",
    ),
    Fault(
        "the private service falls silent",
        silent_service,
        REFUSED,
        says="it took longer than time_limit",
    ),
    Fault(
        "the private service hangs up in the greeting",
        lmtp_service(b"220 hello"),
        REFUSED,
        says="cannot deliver over LMTP: Connection unexpectedly closed",
    ),
    Fault(
        "the private service refuses for now",
        lmtp_service(*_GREETING, b"354 go", b"451 no"),
        REFUSED,
        says="did not take the encrypted message: 451 no",
    ),
    Fault(
        "the private service refuses for good",
        lmtp_service(*_GREETING, b"354 go", b"554 no"),
        REFUSED,
        says="did not take the encrypted message: 554 no",
    ),
    Fault(
        "the private service hangs up before it answers",
        lmtp_service(*_GREETING, b"354 go"),
        REFUSED,
        says="did not say whether it has stored the encrypted message",
    ),
    Fault(
        "the program is killed after its delivery, before its answer",
        wrapper('"$PROGRAM" "$@" > /dev/null; kill -KILL $$'),
        REFUSED,
        may_duplicate=True,
        modes=_PROGRAM,
        says="Terminated abnormally with signal 9",
    ),
    Fault(
        "the program gives no answer",
        wrapper("cat > /dev/null"),
        REFUSED,
        modes=_PROGRAM,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the program gives a wrong answer",
        wrapper("cat > /dev/null; echo maybe"),
        REFUSED,
        modes=_PROGRAM,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the program gives half of its answer",
        wrapper("cat > /dev/null; printf seal"),
        REFUSED,
        modes=_PROGRAM,
        says=_REFUSED_BY_SCRIPT,
    ),
    Fault(
        "the program answers with the message",
        echoing_program,
        REFUSED,
        Load(patience=6),
        Load(patience=6),
        modes=_PROGRAM,
        says="Execution timed out",
    ),
    Fault(
        "the program is done after Dovecot's exec timeout",
        slow_program,
        REFUSED,
        Load(patience=8),
        Load(patience=8),
        then_wait,
        says="Execution timed out",
    ),
]


# Dovecot and its machine


def settings(text: str) -> Cause:
    return lambda person: dovecot.configured(person.lab, text)


def deliver_until_taken(person: Person, messages: Sequence[Sent], load: Load) -> None:
    """Deliver, and try again what was refused, as a mail server does (2.4 takes 10 at once for one user)."""
    for _ in range(30):
        left = [sent for sent in messages if not sent.accepted]
        sender.deliver(person.lab, person.address, left, load.connections, load.patience)
        times = [(sent.began, 1) for sent in left] + [(sent.ended, -1) for sent in left]
        if max(accumulate(change for _, change in sorted(times)), default=0) > 15:
            dovecot.note(person.lab, "more than 15 messages are under way at once")


def deliver_large(person: Person, messages: Sequence[Sent], load: Load) -> None:
    deliver(person, messages, load)
    if all(len(stored) > load.size for stored in person.received()):
        dovecot.note(person.lab, "as large a message as was sent is stored")


@contextmanager
def hasty_worker(person: Person, more: str = "") -> Iterator[None]:
    """One that has four seconds to answer; `more` is Python that runs before it."""
    lab = person.lab
    program = dovecot.program(lab)
    first, _, rest = program.read_text().partition("\n")
    content = f"{first}\n{more}\n{rest}".replace("))", ", answer_seconds=4))")
    with dovecot.changed(lab), dovecot.replaced(lab, program, content):
        dovecot.renew_workers(lab)
        yield


def few_processes(count: int) -> Cause:
    """A hasty worker that may have so many."""
    more = f"from sieve_filter.programs import supervisor\nsupervisor._MOST_PROCESSES = {count}"

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        with hasty_worker(person, more):
            yield
            if sum(len(children(one)) for one in dovecot.processes(person.lab, "worker")) == count:
                dovecot.note(person.lab, f"{count} processes and no more are at work")

    return cause


@contextmanager
def busy_processes(person: Person) -> Iterator[None]:
    """All hang."""
    with few_processes(1)(person):
        until(lambda: [one for supervisor in dovecot.processes(person.lab, "worker") for one in children(supervisor)])
        _signal_workers(person.lab, signal.SIGSTOP)
        yield


def slow_service(seconds: float, *more: Cause) -> Cause:
    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        with ExitStack() as stack:
            for other in more:
                stack.enter_context(other(person))
            stack.enter_context(dovecot.slowed(person.lab, dovecot.private_service(person.lab), seconds))
            yield

    return cause


def hang_up_midway(person: Person, messages: Sequence[Sent], load: Load) -> None:
    for sent in messages:
        connection = sender.Connection(person.lab.lmtp, load.patience)
        connection.break_off(person.address, sent.raw)
        sent.answer = Reply(sender.BROKEN, "the sender hung up")
    time.sleep(1)  # a server that stored it all the same would have done so by now


def under_load(disturb: Callable[[Lab], None]) -> Deliver:
    """Deliver, and do that in the meantime."""

    def deliver_disturbed(person: Person, messages: Sequence[Sent], load: Load) -> None:
        delivering = threading.Thread(target=deliver, args=(person, messages, load))
        delivering.start()
        until(lambda: any(sent.accepted for sent in messages), load.patience)
        for pause in (0.02, 0.08, 0.2, 0.7):  # the first while even a short load is under way
            time.sleep(pause)
            if delivering.is_alive():
                disturb(person.lab)
        delivering.join()
        time.sleep(1)  # an inner delivery that goes on without its outer one is done by now

    return deliver_disturbed


def kill(program: str) -> Callable[[Lab], None]:
    """Kill the lab's processes of that name, as a lack of memory would: of the worker, the supervisor."""

    def killed(lab: Lab) -> None:
        for process in dovecot.processes(lab, program):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    return killed


def to_workers(number: signal.Signals) -> Callable[[Lab], None]:
    """Send this to all that the supervisor started."""
    return lambda lab: _signal_workers(lab, number)


def _signal_workers(lab: Lab, number: signal.Signals) -> None:
    for supervisor in dovecot.processes(lab, "worker"):
        for worker in children(supervisor):
            with suppress(ProcessLookupError):
                os.kill(worker, number)


@contextmanager
def then_restarted(person: Person) -> Iterator[None]:
    with dovecot.restarting(person.lab):
        yield


_ONE_PROCESS = "".join(
    f"service {name} {{\n  process_min_avail = 0\n  process_limit = 1\n}}\n"
    for name in ("lmtp", "lmtp-sealed", "cryptomail")
)
_BUSY = Load(messages=40, connections=8)
_BUSY_LONG = Load(messages=200, connections=8)

SERVER = [
    Fault(
        "the temporary directory is full",
        temporary_directory_of("64k"),
        EITHER,
        Load(size=MB),
        Load(12, size=MB),
        says="No space left on device",
    ),
    Fault(
        "the mail store becomes full",
        mail_store_of("400k"),
        EITHER,
        Load(12, size=50 * KB),
        Load(40, size=50 * KB),
        says="No space left on device",
    ),
    Fault(
        "the mail store is full",
        mail_store_of("4k"),
        REFUSED,
        says="No space left on device",
    ),
    Fault(
        "the mail store is read-only",
        mail_store_of("4m", read_only=True),
        REFUSED,
        says="Read-only file system",
    ),
    Fault(
        "the mailbox is over quota",
        setting("quota"),
        REFUSED,
        says="Quota exceeded",
    ),
    Fault(
        "the sender hangs up in the middle of a message",
        nothing,
        REFUSED,
        deliver=hang_up_midway,
        says="unfinished DATA command",
    ),
    Fault(
        "Dovecot is restarted under load",
        nothing,
        EITHER,
        _BUSY,
        _BUSY_LONG,
        under_load(dovecot.restart),
        may_duplicate=True,
        says="Killed with signal 15",
    ),
    Fault(
        "Dovecot's LMTP processes are killed under load",
        then_restarted,
        EITHER,
        _BUSY,
        _BUSY_LONG,
        under_load(kill("lmtp")),
        may_duplicate=True,
        says="killed with signal 9",
    ),
    Fault(
        "workers are killed under load",
        nothing,
        EITHER,
        _BUSY,
        _BUSY_LONG,
        under_load(to_workers(signal.SIGKILL)),
        may_duplicate=True,
        modes=_WORKER,
        says="has ended (SIGKILL)",
    ),
    Fault(
        "the workers' supervisor is killed under load",
        nothing,
        EITHER,
        _BUSY,
        _BUSY_LONG,
        under_load(kill("worker")),
        may_duplicate=True,
        modes=_WORKER,
        says="killed with signal 9",
    ),
    Fault(
        "workers are stopped under load",
        hasty_worker,
        EITHER,
        _BUSY,
        _BUSY_LONG,
        under_load(to_workers(signal.SIGSTOP)),
        may_duplicate=True,
        modes=_WORKER,
        says="was killed, because it did not answer in time",
    ),
    Fault(
        "many messages come at once",
        nothing,
        DELIVERED,
        Load(40, 20, patience=120),
        Load(200, 20, patience=300),
        deliver_until_taken,
        says="more than 15 messages are under way at once",
    ),
    Fault(
        "all workers are busy",
        few_processes(2),
        DELIVERED,
        Load(40, 20, patience=120),
        Load(200, 20, patience=300),
        deliver_until_taken,
        modes=_WORKER,
        says="2 processes and no more are at work",
    ),
    Fault(
        "all workers are busy for too long",
        busy_processes,
        EITHER,
        Load(4, 4),
        Load(12, 12),
        modes=_WORKER,
        says="waited too long for a process",
    ),
    Fault(
        "the private delivery is slower than time_limit",
        slow_service(5, config("time_limit = 2\n")),
        DELIVERED,
        says="an answer was held back for 5 seconds",
    ),
    Fault(
        "the private delivery is slower than the worker can wait",
        slow_service(8, hasty_worker),
        REFUSED,
        deliver=then_wait,
        may_duplicate=True,
        modes=_WORKER,
        says="did not say whether it has stored the encrypted message",
    ),
    Fault(
        "a very large message comes",
        nothing,
        DELIVERED,
        Load(1, 1, 5 * MB, patience=120),
        Load(1, 1, 100 * MB, patience=120),
        deliver_large,
        says="as large a message as was sent is stored",
    ),
    Fault(
        "Dovecot may run one process a service",
        settings(_ONE_PROCESS),
        DELIVERED,
        Load(8, 4, patience=60),
        Load(40, 8, patience=120),
        says="client connections are being dropped",
    ),
]


# Where each mailbox belongs to a system user


def seal_request(lab: Lab, user: str) -> bytes:
    environment = {"USER": user, "HOME": lab.inside(lab.home(user)), "RECIPIENT": lab.address(user)}
    return head({os.fsencode(name): os.fsencode(value) for name, value in environment.items()}, b"seal")


def attacked(number: int, *more: Cause, by: Callable[[Lab], str] = dovecot.stranger) -> Cause:
    """A user holds connections to the worker, and sends a signal to whatever runs in their name."""

    @contextmanager
    def cause(person: Person) -> Iterator[None]:
        lab, user = person.lab, by(person.lab)
        path, request = lab.inside(dovecot.worker_socket(lab)), seal_request(lab, user).decode()
        with ExitStack() as stack:
            for other in more:
                stack.enter_context(other(person))
            with system_users.attack(user, number, path, request, lab.root):
                yield
            # What was asked for in the attack is refused or late by then.
            until(lambda: not [one for worker in dovecot.processes(lab, "worker") for one in children(worker)], 30)

    return cause


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do that, again and again, until the block ends; and what the block does only after the first time."""
    done = [threading.Event(), threading.Event()]

    def act() -> None:
        while not done[1].is_set():
            action()
            done[0].set()

    with ThreadPoolExecutor(1) as pool:
        acting = pool.submit(act)
        try:
            done[0].wait(10)
            yield
        finally:
            done[1].set()
            acting.result()


@contextmanager
def claimed_mailbox(person: Person) -> Iterator[None]:
    """Another user asks the worker to deliver what they made up to this owner."""
    lab, request = person.lab, seal_request(person.lab, person.user)
    command = system_users.command(dovecot.stranger(lab), lab.root, CLIENT, lab.inside(dovecot.worker_socket(lab)))
    with meanwhile(lambda: run(command, input=request + b"Subject: x\r\n\r\nx\r\n", check=True, stdout=DEVNULL)):
        yield


def exchange(one: Path, other: Path) -> None:
    """Give each the other's name, so that neither is missing at any moment (RENAME_EXCHANGE in rename(2))."""
    here, exchanged = -100, 2
    if ctypes.CDLL(None, use_errno=True).renameat2(here, os.fsencode(one), here, os.fsencode(other), exchanged):
        raise OSError(ctypes.get_errno(), "renameat2", str(one))


@contextmanager
def swapped_home(person: Person) -> Iterator[None]:
    """The owner, who can rename their home, has another in its place half of the time, with the same mailbox in it.

    That their mail is encrypted is known by then: it is noted with the first message.
    """
    home = person.lab.home(person.user)
    sender.deliver(person.lab, person.address, sender.Canaries.new().messages(1, 1_000), 1, Load().patience)
    shutil.rmtree(home / "Maildir")
    empty, mail = (home.with_name(f"{person.user}.{name}") for name in ("empty", "mail"))
    for directory in (empty, mail):
        directory.mkdir(mode=0o700)
        shutil.chown(directory, person.user)
    for each in (home, empty):
        (each / "Maildir").symlink_to(f"../{mail.name}")

    def swap() -> None:
        for _ in range(2):
            exchange(home, empty)
            time.sleep(0.1)

    with meanwhile(swap):
        yield
    shutil.rmtree(empty)
    (home / "Maildir").unlink()
    mail.rename(home / "Maildir")


_USERS = (dovecot.USERS,)
_ATTACKED = Load(messages=12, connections=4)
_ATTACKED_LONG = Load(messages=200, connections=8)

USERS = [
    Fault(
        "another user holds connections to the worker",
        attacked(0),
        DELIVERED,
        _ATTACKED,
        _ATTACKED_LONG,
        then_wait,
        modes=_USERS,
        says="the client hung up in the head",
    ),
    Fault(
        "another user stops what acts for them, and holds connections",
        attacked(signal.SIGSTOP, hasty_worker),
        DELIVERED,
        _ATTACKED,
        _ATTACKED_LONG,
        then_wait,
        modes=_USERS,
        says="was killed, because it did not answer in time",
    ),
    Fault(
        "another user kills what acts for them, and holds connections",
        attacked(signal.SIGKILL),
        DELIVERED,
        _ATTACKED,
        _ATTACKED_LONG,
        then_wait,
        modes=_USERS,
        says="has ended (SIGKILL)",
    ),
    Fault(
        "another user asks for this owner's mailbox",
        claimed_mailbox,
        DELIVERED,
        _ATTACKED,
        _ATTACKED_LONG,
        modes=_USERS,
        says="may not deliver to",
    ),
    Fault(
        "the owner stops what acts for them, and holds connections",
        attacked(signal.SIGSTOP, hasty_worker, by=dovecot.owner),
        EITHER,
        _ATTACKED,
        _ATTACKED_LONG,
        then_wait,
        may_duplicate=True,
        modes=_USERS,
        says="was killed, because it did not answer in time",
    ),
    Fault(
        "the owner kills what acts for them, and holds connections",
        attacked(signal.SIGKILL, by=dovecot.owner),
        EITHER,
        _ATTACKED,
        _ATTACKED_LONG,
        then_wait,
        may_duplicate=True,
        modes=_USERS,
        says="has ended (SIGKILL)",
    ),
    Fault(
        "the owner swaps their home for an empty one, and back",
        swapped_home,
        EITHER,
        _ATTACKED,
        _ATTACKED_LONG,
        modes=_USERS,
        says="had a key, and there is none in",
    ),
]

FAULTS = [*PERSONAL, *KEYRING, *GPG, *SMIME, *PROGRAM, *WORKER, *SERVICE, *SERVER, *USERS]
