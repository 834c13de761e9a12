"""`python -m benchmarks.keys [--certificates FOLDER] [--system-users] N...`: what `cryptomail keys` takes for N users.

With --system-users, which only root can do, each home belongs to a user ID of its own; else all belong to one user.

Making a key takes gpg longer than all that is measured: with --certificates, the keys are kept in that folder and used
again. Where there are more users than KEYS, several get the same key.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from sieve_filter import limits
from sieve_filter.openpgp import certificate

KEYS = 5_000
FIRST_USER = 100_000
TOGETHER = 250  # gpg's time for a keyring grows with the square of its keys
PARAMETERS = """\
Key-Type: eddsa
Key-Curve: ed25519
Subkey-Type: ecdh
Subkey-Curve: cv25519
Name-Email: u{}@example.org
Expire-Date: 2y
%no-protection
%commit
"""


def main() -> None:
    """Import, import again and check, for each number of users; print a line for each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificates", metavar="FOLDER")
    parser.add_argument("--system-users", action="store_true")
    parser.add_argument("users", nargs="+", type=int, metavar="N")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="keys-") as temporary:
        folder = Path(options.certificates or Path(temporary, "certificates"))
        keys = certificates(folder, min(KEYS, max(options.users)))
        print("Homes are found by --home-template. Dovecot, where it is asked, is asked")
        print(f"by doveadm about {limits.USERS_AT_ONCE} users at a time, which takes longer.")
        print("  users   import a second   again a second   check --all s   a second   largest process, MB")
        for count in options.users:
            with TemporaryDirectory(prefix="keys-") as directory:
                first, again, check = _measure(Path(directory), keys, count, options.system_users)
            print(
                f"{count:7} {first:8.1f} {count / first:8.0f} {again:7.1f} {count / again:8.0f}"
                f" {check:15.1f} {count / check:10.0f} {_largest():21.0f}"
            )


def _measure(directory: Path, keys: list[bytes], count: int, system_users: bool) -> tuple[float, float, float]:
    directory.chmod(0o755)
    source, homes = directory / "source", directory / "homes"
    for made in (source, homes):
        made.mkdir()
    for number in range(count):
        home = homes / "example.org" / f"u{number}"
        home.mkdir(parents=True)
        (source / f"u{number}@example.org.pgp").write_bytes(keys[number % len(keys)])
        if system_users:  # none of them needs an account
            os.chown(home, FIRST_USER + number, FIRST_USER + number)
    if os.geteuid() == 0 and not system_users:  # as on a mail server: all mail belongs to one user, who is not root
        subprocess.run(["chown", "-R", "nobody:", homes], check=True)
    template = ["--home-template", f"{homes}/%d/%n"]
    first = _seconds("import", "--no-notify", "--all", str(source), *template)
    again = _seconds("import", "--no-notify", "--all", str(source), *template)
    return first, again, _seconds("check", "--all", *template)


def _seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sieve_filter", "keys", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _largest() -> float:
    """The most memory that a process among all so far had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1_000_000


def certificates(folder: Path, count: int) -> list[bytes]:
    """The certificates of `count` keys, made where they are missing."""
    folder.mkdir(exist_ok=True)
    starts = [start for start in range(0, count, TOGETHER) if not (folder / f"{start}.pgp").exists()]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda start: _make(folder, start), starts))
    made = [
        one.packets
        for start in range(0, count, TOGETHER)
        for one in certificate.read((folder / f"{start}.pgp").read_bytes()).certificates
    ]
    return made[:count]


def _make(folder: Path, start: int) -> None:
    parameters = "".join(PARAMETERS.format(number) for number in range(start, start + TOGETHER))
    with TemporaryDirectory(prefix="keys-", dir="/tmp") as home:  # gpg-agent's socket has a short path
        gpg = ["gpg", "--homedir", home, "--batch", "--quiet"]
        subprocess.run([*gpg, "--gen-key"], input=parameters.encode(), check=True, capture_output=True)
        public = subprocess.run([*gpg, "--export"], check=True, capture_output=True).stdout
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    (folder / f"{start}.pgp").write_bytes(public)


if __name__ == "__main__":
    main()
