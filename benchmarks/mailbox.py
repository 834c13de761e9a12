"""`python -m benchmarks.mailbox [--octets N] COUNT`: what `cryptomail mailbox` takes for so many messages of one owner.

In a lab with Dovecot 2.3 and, as root, in one with 2.4. Half of each text is random, as attachments are.
"""

import argparse
import imaplib
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import debian13, keys, server
from lab.client import Lab

_USER = "ann"
_AT_ONCE = 50


def main() -> None:
    """Fill a mailbox, and look at it, encrypt it and look at it again; print a line for each Dovecot."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--octets", type=int, default=10_000, metavar="N")
    parser.add_argument("count", type=int, metavar="COUNT")
    options = parser.parse_args()
    print("Messages a second, the start of the command included; and the largest of its processes, MB")
    print("Dovecot   audit, clear   encrypt   audit, encrypted   encrypt, nothing to do   largest")
    ways = {"2.3": _lab_with_23} | ({"2.4": debian13.lab} if os.getuid() == 0 else {})
    for version, way in ways.items():
        with way() as lab, keys.owner() as owner:
            _fill(lab, options.count, options.octets)
            clear = _seconds(lab, "audit")
            owner.make_key(lab.address(_USER))
            keys.give(lab, _USER, owner.public(lab.address(_USER)))
            encrypt, encrypted, again = _seconds(lab, "encrypt"), _seconds(lab, "audit"), _seconds(lab, "encrypt")
            rates = [options.count / seconds for seconds in (clear, encrypt, encrypted, again)]
            print("{:7} {:14.0f} {:9.0f} {:18.0f} {:24.0f} {:9.0f}".format(version, *rates, _largest()))


@contextmanager
def _lab_with_23() -> Iterator[Lab]:
    directory = Path(tempfile.mkdtemp(prefix="mailbox-", dir="/tmp"))
    try:
        server.start(directory, "sealed")
        try:
            yield Lab.load(directory)
        finally:
            server.stop(directory)
    finally:
        shutil.rmtree(directory)


def _fill(lab: Lab, count: int, octets: int) -> None:
    chance = random.Random(1)  # noqa: S311
    with imaplib.IMAP4(*lab.imap) as connection:
        connection.login(lab.address(_USER), lab.password)
        for start in range(0, count, _AT_ONCE):
            message = [_message(number, octets, chance) for number in range(start, min(start + _AT_ONCE, count))]
            drafts = b"".join(b" (\\Seen) {%d+}\r\n%b" % (len(one), one) for one in message)
            connection.send(b"fill APPEND INBOX" + drafts + b"\r\n")
            while not (answer := connection.readline()).startswith(b"fill "):
                pass
            if not answer.startswith(b"fill OK"):
                raise RuntimeError(f"Dovecot saved nothing: {answer!r}")


def _message(number: int, octets: int, chance: random.Random) -> bytes:
    lines = [chance.randbytes(18).hex() + "the same text on each of them" for _ in range(octets // 67)]
    head = ["From: sender@example.com", f"Subject: {number}", f"Message-ID: <{number}@example.com>", ""]
    return "\r\n".join([*head, *lines, ""]).encode()


def _seconds(lab: Lab, action: str) -> float:
    whose = ["--user", lab.address(_USER), "--home", lab.inside(lab.home(_USER))]
    command = lab.command(lab.inside(lab.cryptomail), "mailbox", action, *whose, "--json")
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{action} failed: {done.stdout!r}")
    return time.monotonic() - started


def _largest() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000


if __name__ == "__main__":
    main()
