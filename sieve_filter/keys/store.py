"""Reads the file of a keyring, and puts another in its place: who reads it sees the old one or the new one.

A keyring is a GnuPG home, or a file of binary certificates, such as those of a Web Key Directory.
"""

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import PlaceError, RefusedKeyError, TimedOutError
from sieve_filter.gpg import keybox, runner
from sieve_filter.gpg.keybox import Keybox
from sieve_filter.keys.recipients import NEWER
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp import newer as newer_packets
from sieve_filter.openpgp.packets import key_fingerprints
from sieve_filter.system import places
from sieve_filter.system.signals import at_most

_LEGACY = "pubring.gpg"  # GnuPG 2.0 and earlier


class Store(NamedTuple):
    """An opened keyring: the directory of its file, as a descriptor, that file's name in there, and what is in it.

    `alone` says that it is a file of certificates, and not one in a GnuPG home; `content` is empty if it has no keys.
    `newer` are certificates that GnuPG cannot read: they are in the same file where it is alone, else in one beside it.
    """

    keyring: str
    directory: int
    name: str
    content: bytes
    alone: bool
    newer: bytes = b""

    @property
    def copied(self) -> str:
        """The name under which gpg reads and writes it: certificates one behind the other are GnuPG 2.0's format."""
        return _LEGACY if self.alone else self.name

    @property
    def certificates(self) -> dict[str, bytes]:
        """The certificates in it, by their fingerprints. Raises PlaceError where they cannot be told apart."""
        if self._boxed:
            return {name: keybox.packets(blob) for name, blob in self._box.blobs.items()}
        return self._parts

    @property
    def keys(self) -> frozenset[str]:
        """The fingerprints of all keys and subkeys in it. Raises PlaceError as `certificates`."""
        try:
            every = (*self.certificates.values(), *self.newer_certificates.values())
            return frozenset(one for packets in every for one in key_fingerprints(packets))
        except ValueError as error:
            raise PlaceError(f"cannot read {self.keyring}: {error}") from error

    def with_added(self, header: bytes, blobs: Mapping[str, bytes]) -> bytes:
        """The content with these certificates besides; `header` and `blobs` are as in `keybox`."""
        if self._boxed:
            box = self._box
            return keybox.join(box.header or header, [*box.blobs.values(), *blobs.values()])
        return self.content + b"".join(map(keybox.packets, blobs.values()))

    def without(self, fingerprint: str) -> bytes:
        """The content without that certificate; empty where it was the last. Raises PlaceError as `certificates`."""
        if self._boxed:
            box = self._box
            left = [blob for name, blob in box.blobs.items() if name != fingerprint]
            return keybox.join(box.header, left) if left else b""
        return b"".join(raw for name, raw in self._parts.items() if name != fingerprint)

    @property
    def _boxed(self) -> bool:
        return self.name == keybox.NAME and not self.alone

    @property
    def _box(self) -> Keybox:
        return keybox.split(self.content)  # as it was when it was read

    @property
    def _parts(self) -> dict[str, bytes]:
        return self._apart(self.content)

    @property
    def newer_certificates(self) -> dict[str, bytes]:
        """Those that GnuPG cannot read, by their fingerprints. Raises PlaceError where they cannot be told apart."""
        return self._apart(self.newer)

    def _apart(self, packets: bytes) -> dict[str, bytes]:
        try:
            return certificate.apart(packets)
        except ValueError as error:
            raise PlaceError(f"cannot read {self.keyring}: {error}") from error

    def replace(self, content: bytes) -> None:
        """Put what GnuPG reads in place of what is there."""
        self._put(self.name, content + self.newer if self.alone else content)

    def replace_newer(self, newer: bytes) -> None:
        """Put what GnuPG cannot read in place of what is there; empty takes it away."""
        if self.alone:
            self._put(self.name, self.content + newer)
        else:
            self._put(NEWER, newer)

    def remove(self) -> None:
        """Take away what GnuPG reads."""
        self.replace(b"")

    def _put(self, name: str, content: bytes) -> None:
        if content:
            self._write(name, content)
        else:
            os.unlink(name, dir_fd=self.directory)
            self._settle()

    def _write(self, name: str, content: bytes) -> None:
        """Write the file beside the old one, and give it its name: a reader sees the one or the other."""
        fresh = f"{name}.cryptomail"

        def opener(path: str, flags: int) -> int:
            # It is of a command that was killed; or a pipe, for which opening it would wait.
            with suppress(FileNotFoundError):
                os.unlink(path, dir_fd=self.directory)
            return os.open(path, flags | os.O_EXCL, mode=0o600, dir_fd=self.directory)

        try:
            with open(fresh, "wb", opener=opener) as file:
                file.write(content)
                file.flush()
                if self.alone:
                    os.fchmod(file.fileno(), 0o644)  # a web server may have to show it to everybody
                os.fsync(file.fileno())
            os.rename(fresh, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except OSError as error:
            raise PlaceError(f"cannot write to {self.keyring}: {error.strerror}; nothing in it has changed") from error
        self._settle()

    def _settle(self) -> None:
        """Have the disk know what the keyring's file is called now, or that it is gone."""
        try:
            os.fsync(self.directory)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that does this by itself
                raise PlaceError(
                    f"cannot write to {self.keyring}: {error.strerror}; it has changed, but perhaps not on the disk"
                ) from error


@contextmanager
def opened(keyring: str, make: bool = False, as_file: bool = False) -> Iterator[Store]:
    """The keyring at that place, made if asked for; nobody else changes it with this program meanwhile.

    Raises RefusedKeyError where there is none, PlaceError.
    """
    path = Path(keyring)
    alone = path.is_file() or (as_file and not path.is_dir())
    if alone and not path.parent.is_dir():
        raise PlaceError(f"there is no directory {path.parent}: make it, as the user who owns the home directory")
    with _locked(path.parent if alone else path, make) as directory:
        if alone:
            yield Store(keyring, directory, path.name, *_divided(_read(directory, path.name)))
        else:
            name, content = _stored(directory, keyring)
            yield Store(keyring, directory, name, content, alone=False, newer=_read(directory, NEWER))


@contextmanager
def _locked(keyring: Path, make: bool) -> Iterator[int]:
    """The directory `keyring`, made if asked for, as a descriptor; nobody else changes it with this program meanwhile.

    The lock is on the directory itself: it needs no file of its own, which would stay behind.
    """
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(places.opened(str(keyring), make))
        except FileNotFoundError:
            raise RefusedKeyError(f"there is no keyring {keyring}") from None
        except OSError as error:
            raise PlaceError(
                f"cannot use {keyring} as a keyring: {error.strerror}; see who owns what it is in"
            ) from error
        try:
            with at_most(limits.QUARANTINE_SECONDS):
                fcntl.flock(directory, fcntl.LOCK_EX)
        except TimedOutError:
            raise PlaceError(f"another cryptomail is at work on {keyring}: try again later") from None
        yield directory


def _divided(content: bytes) -> tuple[bytes, bool, bytes]:
    older, newer = newer_packets.divided(content)
    return older, True, newer


def _stored(directory: int, keyring: str) -> tuple[str, bytes]:
    """The name and the content of the keyring file that gpg uses in there; the content is empty if it has no keys."""
    if runner.KEYBOXD in os.listdir(directory):
        raise PlaceError(f"{keyring} is kept by keyboxd, which cannot replace it in one step: use gpg itself")
    content = _read(directory, keybox.NAME)
    if content:
        try:
            if keybox.split(content).blobs:
                return keybox.NAME, content
        except ValueError as error:
            raise PlaceError(f"cannot read {keyring}/{keybox.NAME}: {error}") from error
    if legacy := _read(directory, _LEGACY):
        return _LEGACY, legacy
    return keybox.NAME, b""


def _read(directory: int, name: str) -> bytes:
    try:
        descriptor = places.open_file(name, os.O_RDONLY | os.O_NOFOLLOW, directory)
    except FileNotFoundError:
        return b""
    except places.NotAFileError as error:
        raise PlaceError(f"{name} in the keyring is not a file") from error
    except OSError as error:
        raise PlaceError(f"cannot read {name} in the keyring: {error.strerror}") from error
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        content = file.read(limits.KEYRING_OCTETS + 1)
    if len(content) > limits.KEYRING_OCTETS:
        raise PlaceError(f"{name} in the keyring is larger than {limits.KEYRING_OCTETS} octets")
    return content
