"""`cryptomail-enroll`, and messages that bring keys."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from lab.keys import Owner
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
    named = f"config_file={str(config)!r}, socket_path='', sendmail_path={str(sendmail)!r}, folder='OpenPGP'"
    code = f"import sys; from sieve_filter.programs.imapsieve import enroll_main; sys.exit(enroll_main({named}))"
    environment = {"USER": ALICE, "HOME": str(server.home)} | dict(more or {})
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)


def letter(owner: Owner) -> bytes:
    return part(b"application/pgp-keys", owner.public(ALICE))
