"""System users who get mail, and what they do to the worker that acts for them."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import Lab
from tests.e2e.conftest import NewPerson, Person

# Has 300 connections open, of which some say nothing, some are slow and some hang in the middle of a message; and sends
# a signal (0: none) to every other process of its user. The kernel refuses it for others' processes.
_ATTACK = """
import os, socket, sys, time
path, number, head = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
held = []
while True:
    while len(held) < 300:
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        try:
            one.connect(path)
            one.send([b"", head[:20], head, head + b"Subject: x\\r\\n"][len(held) % 4])
        except OSError:
            break
        held.append(one)
    for one in list(held):
        try:
            if one.recv(1000) == b"":
                held.remove(one)
        except BlockingIOError:
            pass
        except OSError:
            held.remove(one)
    try:
        os.kill(-1, number)
    except OSError:
        pass
    print(end=".", flush=True)
    time.sleep(0.05)
"""


def settle(new_person: NewPerson, lab: Lab, user: str) -> Person:
    """A system user, which every Debian has, with a key and a home."""
    person = Person(lab, new_person(lab).gpg, user)
    person.set_up_key()
    account = pwd.getpwnam(user)
    home = lab.home(user)
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)
    return person


def request_of(user: str, home: str) -> str:
    return f"VERSION\tscript\t4\t0\nenv_USER={user}\nenv_HOME={home}\n-\n\n"


def command(user: str, root: Path, code: str, *arguments: str) -> list[str]:
    """A command line that runs Python with this user's rights, in the tree below `root`."""
    account = pwd.getpwnam(user)
    rights = [f"--userspec={account.pw_uid}:{account.pw_gid}", "--groups="]
    return ["/usr/sbin/chroot", *rights, str(root), "/usr/bin/python3", "-I", "-c", code, *arguments]


@contextmanager
def attack(user: str, number: int, path: str, request: str, root: Path = Path("/")) -> Iterator[None]:
    """One user attacks the worker whose socket is at `path`, as seen from `root`, until the block ends."""
    attacking = command(user, root, _ATTACK, path, str(number), request)
    with subprocess.Popen(attacking, stdout=subprocess.PIPE) as attacker:
        try:
            assert attacker.stdout is not None
            attacker.stdout.read(1)  # the first round is done
            yield
        finally:
            attacker.kill()
