"""Runs GnuPG, by python-gnupg. The only module that starts a program."""

import io
import os
import select
import subprocess
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import gnupg

from sieve_filter.errors import CryptomailError, DecryptionError, EncryptionError, KeyringError

# What every run during a delivery gets. The owner's gpg.conf is not read: `encrypt-to` and its like are for the hand.
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
# The cipher is named because a key without preferences would get the one that was mandatory then, 3DES.
_PACKETS = ("--rfc4880", "--cipher-algo", "AES256")

# What is not imported: other people's signatures, and the owner's own that newer ones replace.
_CLEANING = "import-minimal,import-clean,self-sigs-only"

# Where GnuPG 2.3 and later has an owner's keys in a database, if somebody asked for it.
KEYBOXD = "public-keys.d"

_NO_HOME = "/nonexistent"
_CHUNK = 65536  # octets: what a pipe of Linux holds


Sink = Callable[[bytes], object]


class _Conversation(NamedTuple):
    """What goes into a gpg, and who takes what comes out of it."""

    source: Iterable[bytes]
    sink: Sink


class _GnuPG(gnupg.GPG):  # type: ignore[misc]  # python-gnupg has no types
    """python-gnupg, but for how it talks to gpg: three threads, whose errors nobody sees, and all output in memory."""

    def _open_subprocess(self, arguments: list[str], *_arguments: Any, **_named: Any) -> "subprocess.Popen[bytes]":
        """Start gpg; python-gnupg would first write down how, for each message, for a log that nobody keeps."""
        command = self.make_args(arguments, False)
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.env)

    def _collect_output(self, process: subprocess.Popen[bytes], result: Any, *_arguments: Any, **_named: Any) -> Any:
        output = bytearray()
        self._converse(process, result, _Conversation((), output.extend))
        result.data = bytes(output)

    def _handle_io(self, arguments: list[str], conversation: _Conversation, result: Any, *_: Any, **_named: Any) -> Any:
        self._converse(self._open_subprocess(arguments), result, conversation)
        return result

    def _converse(self, process: subprocess.Popen[bytes], result: Any, conversation: _Conversation) -> None:
        """Do the talking. Where it breaks off (a signal handler raises when the time is over), leave no gpg behind."""
        said = bytearray()
        with process:
            try:
                _pump(process, conversation, said)
            except BaseException:
                process.kill()
                raise
        result.returncode = process.returncode
        self._read_response(io.StringIO(said.decode("utf-8", "replace")), result)

    def _decode_result(self, result: Any) -> Any:
        """Leave a listing as bytes: python-gnupg ends lines at octet 0x85 too, which UTF-8 user IDs may hold."""
        return result


def _pump(process: Any, conversation: _Conversation, said: bytearray) -> None:
    """Write the source to the process's input, and read both of its outputs, until it has closed them."""
    target = process.stdin.fileno()
    os.set_blocking(target, False)
    poll = select.poll()
    takers = {process.stdout.fileno(): conversation.sink, process.stderr.fileno(): said.extend}
    for descriptor in takers:
        poll.register(descriptor, select.POLLIN)
    poll.register(target, select.POLLOUT)
    chunks = iter(conversation.source)
    rest = memoryview(b"")
    while takers:
        for descriptor, _ in poll.poll():
            if descriptor in takers:
                data = os.read(descriptor, _CHUNK)
                if data:
                    takers[descriptor](data)
                else:
                    poll.unregister(descriptor)
                    del takers[descriptor]
                continue
            try:
                rest = rest or memoryview(next(chunks))
                rest = rest[os.write(target, rest) :]
            except (StopIteration, BrokenPipeError):  # where gpg gave up, its exit code tells
                poll.unregister(target)
                process.stdin.close()


def list_keys(home: str, patterns: Sequence[str] = ()) -> bytes:
    """The public keys in the GnuPG home `home`, as colon-separated records; those that match `patterns` if given.

    A pattern is a fingerprint, or an address in angle brackets, which GnuPG compares as a whole. Raises KeyringError
    where the keyring cannot be read.
    """
    try:
        result = _gnupg(home).list_keys(keys=list(patterns))
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot list the keys in {home}: {error}") from error
    # With patterns, gpg exits with 2 where one of them matched nothing.
    if result.returncode != 0 and not (patterns and "No public key" in result.stderr):
        raise KeyringError(f"cannot list the keys in {home}: {_complaint(result.stderr)}")
    data: bytes = result.data
    return data


def encrypt(
    source: Iterable[bytes],
    sink: Sink,
    homes: Sequence[str],
    fingerprints: Sequence[str],
    compression: str,
    moment: int | None = None,
) -> None:
    """Encrypt `source` to exactly the subkeys `fingerprints`, which stand in the GnuPG homes `homes`.

    The armored message goes to `sink`, in pieces. `compression` is an algorithm's name: none, zip or zlib; `moment`,
    in seconds since 1970, the time that gpg takes it to be, for keys that have expired since. Raises EncryptionError
    where gpg fails, or exits well without having said that it encrypted: what it wrote is worth nothing then.
    """
    keyrings = [option for home in homes[1:] for option in ("--keyring", _keyring(home))]
    recipients = [f"{one}!" for one in fingerprints]
    clock = [] if moment is None else ["--faked-system-time", str(moment)]
    options = [*_PACKETS, "--compress-algo", compression, *clock, *keyrings]
    conversation = _Conversation(source, sink)
    _done(
        lambda: _gnupg(homes[0]).encrypt_file(conversation, recipients, extra_args=options),
        "encrypt",
        EncryptionError,
    )


def export(home: str, fingerprint: str) -> bytes:
    """The certificate of the subkey with that fingerprint, in binary, with no other subkey and no foreign signature.

    Raises KeyringError.
    """
    try:
        result = _gnupg(home).export_keys(f"{fingerprint}!", armor=False, minimal=True)
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot export key {fingerprint} from {home}: {error}") from error
    return bytes(result)


def decrypt(armored: bytes) -> bytes:
    """The content of `armored`, by the caller's own gpg, agent and pinentry. Raises DecryptionError."""
    content = bytearray()
    _done(lambda: _GnuPG().decrypt_file(_Conversation([armored], content.extend)), "decrypt", DecryptionError)
    return bytes(content)


def _done(operation: Callable[[], Any], verb: str, failure: type[CryptomailError]) -> None:
    """Do an `operation` of python-gnupg. Raises `failure` unless gpg said that it is done and exited well."""
    try:
        result = operation()
    except (OSError, ValueError) as error:
        raise failure(f"cannot run gpg: {error}") from error
    if not result.ok or result.returncode != 0:
        raise failure(f"gpg could not {verb}: {_complaint(result.stderr)}")


def _gnupg(home: str) -> _GnuPG:
    """GnuPG with that home; or with a file of binary certificates as its only keyring, and no home."""
    one = copy(_first())
    if os.path.isfile(home):  # noqa: PTH113  # for each message; a Path costs as much again
        one.gnupghome, one.keyring = _NO_HOME, [home]
    else:
        one.gnupghome = home
    one.env = {"PATH": os.environ.get("PATH", os.defpath), "HOME": one.gnupghome, "LC_ALL": "C.UTF-8"}
    return one


@lru_cache(maxsize=1)
def _first() -> _GnuPG:
    """The one that the others are copies of: python-gnupg asks gpg for its version each time."""
    return _GnuPG(options=list(_OPTIONS))


def _keyring(home: str) -> str:
    names = (Path(home, name) for name in ("pubring.kbx", "pubring.gpg"))
    return str(next((name for name in names if name.exists()), home))


def _complaint(stderr: str) -> str:
    """gpg's own last words, in one line; never content, which gpg does not write there."""
    lines = [line for line in stderr.splitlines() if line.startswith("gpg: ")]
    return lines[-1] if lines else "gpg ended without a word"


class Imported(NamedTuple):
    """What gpg did with certificates: each fingerprint, and whether that key was new; and its last complaint."""

    new: dict[str, bool]
    changed: frozenset[str]
    complaint: str


def import_keys(home: str, certificates: bytes) -> Imported:
    """Import binary certificates into the GnuPG home `home`, with the owners' own signatures only.

    Raises KeyringError where gpg cannot be run. What gpg does not take is missing in the result.
    """
    # GnuPG 2.4 takes user IDs that nobody signed, unless told: anybody could give a key anybody's address, and an
    # expired key, whose end stands in that signature, a new life.
    arguments = ["--no-allow-non-selfsigned-uid", "--import-options", _CLEANING, "--import"]
    result, _ = _visit(home, "import", arguments, certificates)
    codes = {one["fingerprint"]: int(one["ok"]) for one in result.results if one.get("ok") is not None}
    return Imported(
        {fingerprint: bool(code & 1) for fingerprint, code in codes.items()},
        frozenset(fingerprint for fingerprint, code in codes.items() if code),
        _complaint(result.stderr),
    )


def list_signatures(home: str) -> bytes:
    """As `list_keys`, with a record for each signature; for many homes, each visited once."""
    result, data = _visit(home, "list", ["--list-sigs"])
    if result.returncode != 0:
        raise KeyringError(f"cannot list the keys in {home}: {_complaint(result.stderr)}")
    return data


def export_keys(home: str) -> bytes:
    """The certificates in the GnuPG home `home`, binary. Raises KeyringError."""
    result, data = _visit(home, "export", ["--export-options", "export-minimal", "--export"])
    if result.returncode != 0:
        raise KeyringError(f"cannot export the keys in {home}: {_complaint(result.stderr)}")
    return data


def delete_key(home: str, fingerprint: str) -> None:
    """Take one certificate out of the GnuPG home `home`. Raises KeyringError."""
    result, _ = _visit(home, "delete", ["--yes", "--delete-keys", fingerprint])
    if result.returncode != 0:
        raise KeyringError(f"cannot remove a key from {home}: {_complaint(result.stderr)}")


def _visit(home: str, kind: str, arguments: list[str], source: bytes = b"") -> tuple[Any, bytes]:
    """Run gpg once with `home`. Out: python-gnupg's result of that kind, and standard output. Raises KeyringError."""
    output = bytearray()
    try:
        visitor = _gnupg(home)
        if not Path(home, KEYBOXD).is_dir():  # what keyboxd keeps, it alone can read; and nothing here needs an agent
            visitor.options = [*visitor.options, "--no-autostart"]
        result = visitor.result_map[kind](visitor)
        visitor._handle_io(arguments, _Conversation([source] if source else (), output.extend), result)
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot run gpg: {error}") from error
    return result, bytes(output)
