"""What an owner has chosen, in a small file beside their keys: a line for each setting, its name and its value."""

import os
import stat
from collections.abc import Mapping

from sieve_filter import limits
from sieve_filter.owners import owner
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.levels import CHOICES
from sieve_filter.policy.settings import Keyrings

FILE = "cryptomail-choices"


def path(whose: Owner, keyrings: Keyrings) -> str:
    """Where the file is; empty where there is no place for owners' own keys."""
    if not keyrings.owner:
        return ""
    from sieve_filter.keys import beside  # few administrators let owners choose

    keyring = owner.expand(keyrings.owner[0], whose)
    return str(beside.path(keyring, whose.home, FILE, keyrings.in_files))


def read(file: str) -> Mapping[str, str] | None:
    """The choices in that file, none where there is no file; None where it cannot be read, or is damaged."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError:
        return None
    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        content = os.read(descriptor, limits.CHOICES_OCTETS + 1) if regular else b""
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return _parsed(content) if regular and len(content) <= limits.CHOICES_OCTETS else None


def _parsed(content: bytes) -> Mapping[str, str] | None:
    """The choices; None where one cannot be, or is there twice. An empty file, which a full disk leaves, is damaged."""
    chosen: dict[str, str] = {}
    for line in content.removeprefix(b"\n").decode("latin-1").split("\n")[:-1]:
        name, _, value = line.partition(" ")
        if name in chosen or value not in CHOICES.get(name, ()):
            return None
        chosen[name] = value
    return chosen if content.endswith(b"\n") else None


def written(chosen: Mapping[str, str]) -> bytes:
    """What is in the file for these choices; a line end alone for none."""
    return "".join(f"{name} {value}\n" for name, value in sorted(chosen.items())).encode() or b"\n"
