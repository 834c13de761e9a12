"""Runs GnuPG: lists keys, encrypts to them, and decrypts for those who can. `keystore` has what changes keyrings."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from sieve_filter.errors import DecryptionError, EncryptionError, KeyringError, StoppedError
from sieve_filter.system import process
from sieve_filter.system.process import Sink

# Whoever runs it: no questions, and status lines (GnuPG's doc/DETAILS) among what it writes on standard error.
_PROGRAM = ("gpg", "--batch", "--no-tty", "--no-verbose", "--status-fd", "2", "--with-colons")

# What every run for a keyring gets. The owner's gpg.conf is not read: `encrypt-to` and its like are for the hand.
_OPTIONS = (
    "--no-options",
    "--no-permission-warning",
    "--no-auto-key-locate",  # never look a key up on the network
    "--disable-dirmngr",
    "--no-auto-check-trustdb",
    "--trust-model",
    "always",  # whose key it is was decided by whose keyring it is in
    "--no-random-seed-file",
    "--lock-never",  # nothing is written, so a keyring on a read-only disk or locked by another gpg serves as well
)

# RFC 4880 packets only: a key made by GnuPG 2.4 prefers its own AEAD packet, which other clients cannot open.
# The cipher is named because a key without preferences would get the one that was mandatory then, 3DES; and with those
# packets alone, gpg would take a key of which it lists that it is invalid, because no signature on a user ID is good.
_PACKETS = ("--rfc4880", "--no-allow-non-selfsigned-uid", "--cipher-algo", "AES256")

# What has a listing show fingerprints: of keys, and of subkeys too.
FINGERPRINTS = ("--fingerprint", "--fingerprint")

# Where GnuPG 2.3 and later has an owner's keys in a database, if somebody asked for it.
KEYBOXD = "public-keys.d"

# libgpg-error's GPG_ERR_CANCELED and GPG_ERR_FULLY_CANCELED.
_CANCELLED = (99, 198)

_NO_HOME = "/nonexistent"
_STATUS = "[GNUPG:] "


class Ended(NamedTuple):
    """How a gpg ended: its exit code (negative: the signal), and what it wrote on standard error."""

    code: int
    said: str

    @property
    def reports(self) -> list[tuple[str, str]]:
        """Its status lines: keyword, and what follows."""
        lines = (line.removeprefix(_STATUS) for line in self.said.split("\n") if line.startswith(_STATUS))
        return [(keyword, value) for keyword, _, value in (line.partition(" ") for line in lines)]

    @property
    def complaint(self) -> str:
        """Its last words, in one line; never content, which gpg does not write there."""
        lines = [line for line in self.said.splitlines() if line.startswith("gpg: ")]
        return lines[-1] if lines else "gpg ended without a word"

    def has_done(self, keyword: str) -> bool:
        """Whether it ended well, and a status line says that it did what the keyword stands for."""
        return self.code == 0 and any(found == keyword for found, _ in self.reports)


def run(home: str, arguments: Sequence[str], source: Iterable[bytes], sink: Sink) -> Ended:
    """Run gpg with that GnuPG home; or with a file of binary certificates as its only keyring, and no home.

    `source` goes to its standard input; `sink` takes its standard output, in pieces. Raises as `process.converse` does.
    """
    place = ["--homedir", home]
    if os.path.isfile(home):
        home, place = _NO_HOME, ["--homedir", _NO_HOME, "--no-default-keyring", "--keyring", home]
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": home, "LC_ALL": "C.UTF-8"}
    code, said = process.converse([*_PROGRAM, *place, *_OPTIONS, *arguments], environment, source, sink)
    return Ended(code, said.decode("utf-8", "replace"))


def list_keys(home: str, patterns: Sequence[str] = (), *, signatures: bool = False) -> bytes:
    """The public keys in the GnuPG home `home`, as colon-separated records; those that match `patterns` if given.

    With `signatures`, there is a record for each of these too. A pattern is a fingerprint, an address in angle
    brackets, which GnuPG compares as a whole, or @ and a part of one. Raises KeyringError where the keyring cannot be
    read.
    """
    listing = bytearray()
    action = "--list-sigs" if signatures else "--list-keys"
    arguments = ["--with-keygrip", action, *FINGERPRINTS, *patterns]
    try:
        ended = run(home, arguments, (), listing.extend)
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot list the keys in {home}: {error}") from error
    # With patterns, gpg exits with 2 where one of them matched nothing.
    if ended.code != 0 and not (patterns and "No public key" in ended.said):
        raise KeyringError(f"cannot list the keys in {home}: {ended.complaint}")
    return bytes(listing)


def encrypt(
    source: Iterable[bytes],
    sink: Sink,
    homes: Sequence[str],
    fingerprints: Sequence[str],
    compression: str,
    moment: int | None = None,
) -> None:
    """Encrypt `source` to exactly the subkeys `fingerprints`, which are in the GnuPG homes `homes`.

    The message goes to `sink`, in binary, in pieces. `compression` is an algorithm's name: none, zip or zlib; `moment`,
    in seconds since 1970, the time that gpg takes it to be, for keys that have expired since. Raises EncryptionError
    where gpg fails, or exits well without having said that it encrypted: what it wrote is worth nothing then.
    """
    keyrings = [option for home in homes[1:] for option in ("--keyring", _keyring(home))]
    recipients = [option for one in fingerprints for option in ("--recipient", f"{one}!")]
    clock = [] if moment is None else ["--faked-system-time", str(moment)]
    options = [*_PACKETS, "--compress-algo", compression, *clock, *keyrings, *recipients]
    try:
        ended = run(homes[0], [*options, "--encrypt"], source, sink)
    except (OSError, ValueError) as error:
        raise EncryptionError(f"cannot run gpg: {error}") from error
    if not ended.has_done("END_ENCRYPTION"):
        raise EncryptionError(f"gpg could not encrypt: {ended.complaint}")


def export(home: str, fingerprint: str) -> bytes:
    """The certificate of the subkey with that fingerprint, in binary, with no other subkey and no foreign signature.

    Empty where there is none. Raises KeyringError.
    """
    certificate = bytearray()
    try:
        run(home, ["--export-options", "export-minimal", "--export", f"{fingerprint}!"], (), certificate.extend)
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot export key {fingerprint} from {home}: {error}") from error
    return bytes(certificate)


def version() -> str:
    """GnuPG's version, empty where it cannot be started."""
    said = bytearray()
    with suppress(OSError):
        process.converse(["gpg", "--version"], {"PATH": os.environ.get("PATH", os.defpath)}, (), said.extend)
    return said.partition(b"\n")[0].decode("ascii", "replace").rpartition(" ")[2]


def decrypt(armored: bytes) -> bytes:
    """The content of `armored`, by the caller's own gpg, agent and pinentry.

    Raises DecryptionError where that fails, or nothing shows that the content is whole; StoppedError where the caller
    did not want it.
    """
    content = bytearray()
    try:
        code, said = process.converse([*_PROGRAM, "--decrypt"], os.environ, [armored], content.extend)
    except (OSError, ValueError) as error:
        raise DecryptionError(f"cannot run gpg: {error}") from error
    ended = Ended(code, said.decode("utf-8", "replace"))
    if any(keyword == "ERROR" and _code(value) in _CANCELLED for keyword, value in ended.reports):
        raise StoppedError("gpg asked for the passphrase of your key, and was told to stop")
    if not (ended.has_done("DECRYPTION_OKAY") and ended.has_done("GOODMDC")):
        raise DecryptionError(f"gpg could not decrypt: {ended.complaint}")
    return bytes(content)


def _code(value: str) -> int:
    """The error code in what follows ERROR: a place, and a number the lower half of which is libgpg-error's code."""
    number = value.split(" ")[1:2]
    return int(number[0]) & 0xFFFF if number and number[0].isdecimal() else 0


def _keyring(home: str) -> str:
    """The keyring in a GnuPG home, or the file of certificates that `home` is."""
    names = (f"{home}/{name}" for name in ("pubring.kbx", "pubring.gpg"))
    return next((name for name in names if os.path.exists(name)), home)
