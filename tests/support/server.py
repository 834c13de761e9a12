"""A home as a mail server has it, the command `cryptomail` run there, and where it sends mail."""

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from lab import keys
from sieve_filter.cli.main import main
from tests.support.forked import forked

ALICE = "alice@example.org"

# Runs `cryptomail` with those arguments.
Command = Callable[..., "subprocess.CompletedProcess[bytes]"]


class Server:
    """A home directory as a mail server has it, and the command `cryptomail` run for its owner."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config.toml"

    def give(self, public: bytes, keyring: str = ".cryptomail", *, trusted: bool = True) -> None:
        """Put public keys into a GnuPG home there, `trusted` ultimately, as those that GnuPG made itself are."""
        directory = self.home / keyring
        directory.mkdir(mode=0o700, exist_ok=True)
        command = ["gpg", "--homedir", str(directory), "--batch", "--quiet", "--no-autostart", "--import"]
        subprocess.run(command, input=public, check=True, capture_output=True)
        if trusted:
            keys.trust(directory)

    def filter(
        self, message: bytes, *options: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run `cryptomail filter` as Dovecot does: hardly any environment."""
        named = {"USER": ALICE, "HOME": str(self.home)} | dict(environment or {})
        return run("filter", *options, data=message, environment=named, config=self.config)


def run(
    *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None, config: Path | None = None
) -> "subprocess.CompletedProcess[bytes]":
    """Run the command with just that environment, and that installed configuration."""

    def work() -> int:
        # No test sends mail through the machine's own sendmail.
        return main(str(config or "/nonexistent"), sendmail_path="", argv=arguments)

    return forked(work, arguments, data, environment or {})


class Outbox:
    """A sendmail program that keeps what it is given, and what it kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        directory.chmod(0o777)
        self.program = directory / "sendmail"
        keep = f'file=$(mktemp {directory}/sent.XXXXXX) && {{ echo "$@"; cat; }} > "$file" && chmod 644 "$file"'
        self.program.write_text(f"#!/bin/sh\n{keep}\n")
        self.program.chmod(0o755)

    def take(self) -> list[tuple[str, bytes]]:
        """The arguments and the message of each, which are then gone."""
        files = sorted(self.directory.glob("sent.*"), key=lambda file: file.stat().st_mtime_ns)
        taken = [file.read_bytes().partition(b"\n") for file in files]
        for file in files:
            file.unlink()
        return [(arguments.decode(), message) for arguments, _, message in taken]
