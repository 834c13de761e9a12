"""Messages, what becomes of them, and gpgs that are none."""

import os
import subprocess
import sys
from pathlib import Path

from lab.keys import Owner
from tests.support.server import ALICE, Server, run

MESSAGE = b"From: b@example.com\r\nSubject: hello\r\nMessage-ID: <1@example.com>\r\n\r\nThe text.\r\n"
CANARY = b"canary-5e2b1c"
MOST_KILOBYTES = 80_000  # that a filter may have in memory, whatever the message's size
STRANGE_MESSAGES = {
    "ordinary": MESSAGE,
    "empty": b"",
    "one line": b"text",
    "no header": b"\r\ntext\r\n",
    "no body": b"Subject: s\r\n\r\n",
    "no final line end": b"Subject: s\r\n\r\ntext",
    "no empty line": b"Subject: s\r\ntext\r\n",
    "8-bit": b"Subject: \xf0\x9f\x98\x80\r\n\r\n\xff\xfe text\r\n",
    "NUL": b"Subject: a\x00b\r\n\r\n\x00\r\n",
    "bare LF": b"Subject: s\n\ntext\n",
    "bare CR": b"Subject: s\r\rtext\r",
    "mixed line ends": b"A: b\r\nC: d\nE: f\rG: h\r\r\n\r\nx\ny\rz\r\n",
    "100 KB line": b"X-Long: " + b"x" * 100_000 + b"\r\n\r\ntext\r\n",
    "no MIME-Version": b"Content-Type: text/html\r\n\r\n<p>text</p>\r\n",
    "folded Content-Type": b"CONTENT-Type:\r\n\tmultipart/mixed;\r\n boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    "two Content-Types": b"Content-Type: text/plain\r\ncontent-type: text/html\r\n\r\ntext\r\n",
    "dots": b"Subject: s\r\n\r\n.\r\n..\r\n",
    "trailing spaces": b"Subject: s  \r\n\r\ntext \t\r\n \r\n",
    "forged mark": b"X-Cryptomail: encrypted-at-delivery\r\n\r\ntext\r\n",
    "forged insertions": b"X-Cryptomail-Inserted: 0+5\r\n\r\ntext\r\n",
    "mbox": b"From a@b Thu Jan  1 00:00:00 1970\r\nSubject: s\r\n\r\n>From here\r\n",
    "mbox below": b"Received: x\r\nFrom a@b Thu Jan  1 00:00:00 1970\r\nSubject: s\r\n\r\n>From here\r\n",
    "strays": b"A: b\r\nno field\r\n at all\r\nC D: e\r\nSubject : s\r\nTo: f\r\nnone again\r\n\r\ntext\r\n",
    "claims PGP/MIME": b"Content-Type: multipart/encrypted; boundary=b\r\n\r\n--b\r\n\r\nplain text\r\n--b--\r\n",
    "claims inline PGP": b"\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nHi!\r\n-----END PGP MESSAGE-----\r\n",
    "five megabytes": b"Subject: s\r\n\r\n" + bytes(range(256)) * 20_000,
}


def fingerprint_of(owner: Owner) -> str:
    listing = owner.gpg("--with-colons", "--list-keys").decode()
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def decrypt(stored: bytes, owner: Owner) -> bytes:
    done = run("decrypt", data=stored, environment={"GNUPGHOME": str(owner.home), "PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_rotating(owner: Owner, life: str) -> bytes:
    """A key that never expires, with an encryption subkey of January 2020 that lived so long."""
    owner.gpg("--faked-system-time", "20200101T000000!", "--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never")
    clock = ("--faked-system-time", "20200102T000000!")
    owner.gpg(*clock, "--quick-add-key", fingerprint_of(owner), "cv25519", "encr", life)
    return owner.public(ALICE)


def install_gpg(directory: Path, script: str) -> Path:
    """A directory with a gpg that does `script` when it is to encrypt, and is the real one else."""
    programs = directory / "programs"
    programs.mkdir()
    gpg = programs / "gpg"
    gpg.write_text(
        f'#!/bin/sh\nPATH=/usr/bin:/bin\ncase "$*" in *--encrypt*) {script} ;; *) exec /usr/bin/gpg "$@" ;; esac\n'
    )
    gpg.chmod(0o755)
    return programs


def armor_in(stored: bytes) -> bytes:
    return stored[stored.index(b"-----BEGIN PGP") : stored.index(b"-----END PGP") + 27]


def filter_and_measure(server: Server, message: bytes, directory: Path) -> "tuple[int, bytes, str, int]":
    """Exit code, output and errors of the filter, and the most memory it had, in kilobytes."""
    peak = directory / "peak"
    code = (
        f"import sys; from sieve_filter.cli.main import main; code = main({str(server.config)!r})\n"
        f"from pathlib import Path; Path({str(peak)!r}).write_bytes(Path('/proc/self/status').read_bytes())\n"
        "sys.exit(code)"
    )
    environment = {"USER": ALICE, "HOME": str(server.home), "PATH": os.environ["PATH"], "TMPDIR": str(directory)}
    command = [sys.executable, "-c", code, "filter"]
    done = subprocess.run(command, input=message, capture_output=True, env=environment, timeout=100)
    return done.returncode, done.stdout, done.stderr.decode(), int(peak.read_text().partition("VmHWM:")[2].split()[0])
