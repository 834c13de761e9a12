"""`cryptomail-enroll`, and messages that bring keys."""

import subprocess
from collections.abc import Mapping
from pathlib import Path

from lab.keys import Owner
from sieve_filter.programs.imapsieve import enroll_main
from tests.support.forked import forked
from tests.support.samples import part
from tests.support.server import ALICE, Server


def program(
    server: Server,
    data: bytes,
    *arguments: str,
    sendmail: Path | str = "",
    more: Mapping[str, str] | None = None,
    config: Path | str = "/nonexistent",
) -> "subprocess.CompletedProcess[bytes]":
    """Run it as Dovecot's IMAP process does."""

    def work() -> int:
        return enroll_main(config_file=str(config), socket_path="", sendmail_path=str(sendmail), folder="OpenPGP")

    return forked(work, arguments, data, {"USER": ALICE, "HOME": str(server.home)} | dict(more or {}))


def letter(owner: Owner) -> bytes:
    return part(b"application/pgp-keys", owner.public(ALICE))
