"""OpenPGP keys for a lab: a secret one in its owner's hands, the public half on the server."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from lab.client import Lab


class Owner:
    """The GnuPG home of somebody who reads mail; nothing of it is on the server."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run gpg with this home. Returns what it printed."""
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout

    def make_key(self, address: str, *, made_at: str = "", expires: str = "never") -> str:
        """A new key for that address; `made_at` sets gpg's clock. Returns its fingerprint."""
        clock = ["--faked-system-time", made_at] if made_at else []
        self.gpg(*clock, "--quick-gen-key", f"<{address}>", "future-default", "default", expires)
        listing = self.gpg("--with-colons", "--list-keys", f"<{address}>").decode()
        return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))

    def make_another_key(self, address: str) -> str:
        """One more new key for that address. Returns its fingerprint."""
        before = self.gpg("--with-colons", "--list-keys", f"<{address}>")
        self.gpg("--quick-gen-key", f"Another <{address}>", "future-default", "default", "never")
        listing = self.gpg("--with-colons", "--list-keys", f"<{address}>").decode()
        prints = [line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:")]
        return next(one for one in prints if one.encode() not in before)

    def revoke(self, fingerprint: str) -> None:
        """Use the revocation certificate that gpg wrote when it made the key."""
        certificate = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_bytes()
        # gpg puts a colon before the armor, lest somebody import it by mistake.
        self.gpg("--import", data=certificate.replace(b":-----BEGIN", b"-----BEGIN"))

    def public(self, address: str) -> bytes:
        return self.gpg("--export", f"<{address}>")


@contextmanager
def owner() -> Iterator[Owner]:
    """An owner with an empty GnuPG home, until the block ends; in /tmp: gpg-agent's socket needs a short path."""
    home = Path(tempfile.mkdtemp(prefix="owner-", dir="/tmp"))
    try:
        yield Owner(home)
    finally:
        _end_agent(home)
        shutil.rmtree(home, ignore_errors=True)  # the agent takes its sockets away at the same time


def give(lab: Lab, user: str, public: bytes, keyring: str = ".cryptomail") -> None:
    """Put public keys into a GnuPG home in the user's home on the server, trusted ultimately; it is the mail user's."""
    mail_gid = pwd.getpwuid(lab.mail_uid).pw_gid
    homedir = lab.home(user) / keyring
    for directory in (homedir.parent, homedir):
        if not directory.exists():
            directory.mkdir(mode=0o700)
            os.chown(directory, lab.mail_uid, mail_gid)
    command = ["gpg", "--homedir", str(homedir), "--batch", "--quiet", "--no-autostart", "--import"]
    subprocess.run(command, input=public, check=True, capture_output=True)
    trust(homedir)
    for file in homedir.iterdir():
        os.chown(file, lab.mail_uid, mail_gid)


def trust(homedir: Path) -> None:
    """Have the GnuPG home trust all its keys ultimately, as it does those that it made itself."""
    command = ["gpg", "--homedir", str(homedir), "--batch", "--quiet", "--no-autostart"]
    listed = subprocess.run([*command, "--with-colons", "--list-keys"], check=True, capture_output=True).stdout
    records = [line.split(":") for line in listed.decode().splitlines()]
    primaries = [behind[9] for record, behind in pairwise(records) if (record[0], behind[0]) == ("pub", "fpr")]
    trusted = "".join(f"{one}:6:\n" for one in primaries)
    subprocess.run([*command, "--import-ownertrust"], input=trusted.encode(), check=True, capture_output=True)


def _end_agent(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, capture_output=True)
