"""The machine: programs and libraries, room, and the clock. Pure."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from sieve_filter.doctor.finding import Finding
from sieve_filter.keys.status import CRITICAL, WARNING
from sieve_filter.policy.settings import SEQUOIA

OLDEST_GNUPG = (2, 2)
OLDEST_SEQUOIA = (0, 1, 27)
OLDEST_OPENSSL = (3, 0)
_LEAST_OCTETS = 256 << 20
_LEAST_SHARE = 0.05
_DAY = 86_400


class Room(NamedTuple):
    """What is left where `path` is, octets and files; and how many there may be: 0 files where nobody knows."""

    path: str
    free: int
    octets: int
    free_files: int
    files: int


def engines(gnupg: str, sequoia: str, engine: str) -> Iterator[Finding]:
    """`gnupg` and `sequoia` are versions, empty where they are not there; `engine` the setting."""
    if not gnupg:
        why = "without it no keyring can be set up or changed, and mail waits where it is needed"
        yield Finding(CRITICAL, "gpg cannot be started", why, "apt-get install gnupg")
    elif numbers(gnupg) < OLDEST_GNUPG:
        what = f"gpg is version {gnupg}, older than {'.'.join(map(str, OLDEST_GNUPG))}"
        yield Finding(CRITICAL, what, "it does not know the keys of today", "apt-get install gnupg")
    if not sequoia and engine == SEQUOIA:
        why = 'mail waits: engine = "sequoia" is set'
        yield Finding(CRITICAL, "PySequoia is not there", why, "make install SEQUOIA=yes")
    elif sequoia and numbers(sequoia) < OLDEST_SEQUOIA:
        what = f"PySequoia is version {sequoia}, older than {'.'.join(map(str, OLDEST_SEQUOIA))}"
        yield Finding(WARNING, what, "it was not tried with this", "make install SEQUOIA=yes")


def smime(openssl: str) -> Iterator[Finding]:
    """What keeps mail from being encrypted to S/MIME certificates; the version is empty where OpenSSL is not there."""
    why = "mail of owners with S/MIME certificates waits"
    if not openssl:
        yield Finding(WARNING, "openssl cannot be started", why, "apt-get install openssl")
    elif numbers(openssl) < OLDEST_OPENSSL:
        what = f"openssl is version {openssl}, older than {'.'.join(map(str, OLDEST_OPENSSL))}"
        yield Finding(WARNING, what, why, "apt-get install openssl")


def room(found: Room) -> Iterator[Finding]:
    why = "what does not fit waits"
    command = f"df -h -i {found.path}"
    if found.free < min(_LEAST_OCTETS, found.octets * _LEAST_SHARE):
        yield Finding(WARNING, f"{found.path} has {found.free >> 20} MB left", why, command)
    if found.files and found.free_files < found.files * 0.01:
        yield Finding(WARNING, f"{found.path} has room for {found.free_files} files", why, command)


def clock(now: float, installed: float) -> Iterator[Finding]:
    """`installed` is when this program was: all in seconds since 1970."""
    if now < installed - _DAY:
        what = f"the clock says {_day(now)}, and cryptomail was installed on {_day(installed)}"
        why = "keys that were made since count as not valid yet, and mail waits"
        yield Finding(CRITICAL, what, why, "timedatectl set-ntp true")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"
