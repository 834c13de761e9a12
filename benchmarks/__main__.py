"""`make bench`: one run, interleaved, medians; each time as a ratio to bare gpg in the same run."""

import os
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ROUNDS = 40
SIZE = 10_000
REPOSITORY = Path(__file__).resolve().parent.parent


def main() -> None:
    """Time the installed filter with a message of SIZE octets against one `gpg --encrypt` of the same bytes."""
    with TemporaryDirectory(prefix="bench-", dir="/tmp") as home:  # gpg-agent's socket has a short path
        keyring = Path(home, ".cryptomail")
        keyring.mkdir(mode=0o700)
        gpg = ["gpg", "--homedir", str(keyring), "--batch", "--quiet"]
        make = [*gpg, "--passphrase", "", "--quick-gen-key", "<bench@example.org>", "future-default", "default"]
        subprocess.run(make, check=True, capture_output=True)
        subprocess.run(["gpgconf", "--homedir", keyring, "--kill", "all"], check=True)
        recipient = ["--trust-model", "always", "--armor", "--recipient", "<bench@example.org>"]
        environment = {"USER": "bench@example.org", "HOME": home, "PATH": os.environ["PATH"]}
        install = ["make", "--silent", "install", f"PREFIX={home}/usr", f"SYSCONFDIR={home}/etc"]
        subprocess.run(install, cwd=REPOSITORY, check=True)
        installed = f"{home}/usr/lib/cryptomail"
        commands = {
            "gpg --encrypt": [*gpg, *recipient, "--encrypt"],
            "python -I -c pass": [f"{installed}/venv/bin/python", "-I", "-c", "pass"],
            "cryptomail filter": [f"{installed}/filter-bin/cryptomail"],
        }
        message = b"Subject: benchmark\r\n\r\n" + os.urandom(SIZE // 2).hex().encode() + b"\r\n"
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, input=message, check=True, capture_output=True, env=environment)
                times[name].append(time.perf_counter() - started)
    base = statistics.median(times["gpg --encrypt"])
    print(f"one message of {len(message)} octets, medians of {ROUNDS} rounds")
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:20} {median * 1000:7.1f} ms {median / base:6.1f} x")


if __name__ == "__main__":
    main()
