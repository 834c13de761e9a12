"""Encrypts, and judges certificates, in this process by PySequoia.

Its functions are called with the names of their arguments: up to 0.1.27, which Debian 13 has, these came the other way
round, and what it encrypted was always armored.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from sieve_filter.errors import CryptomailError, SpoolError
from sieve_filter.openpgp import blocks
from sieve_filter.openpgp.encrypted import EncryptedMessage, encrypted_message
from sieve_filter.openpgp.packets import VERSION_6_DIGITS, following
from sieve_filter.system import spool
from sieve_filter.system.spool import MemoryFile

if TYPE_CHECKING:
    from pysequoia import Cert

_T = TypeVar("_T")

# PySequoia writes what all certificates claim to understand, and cannot be told otherwise. So it gets one more, which
# claims nothing; and its session key is taken out again. Made by
#   gpg --rfc4880 --faked-system-time 20240101T000000! --quick-gen-key nobody ed25519 cert never
#   gpg --rfc4880 --faked-system-time 20240101T000000! --quick-add-key FINGERPRINT cv25519 encr never
# The secret key was not kept, and is not needed.
_PLAIN = base64.b64decode(
    b"mDMEZZIAgBYJKwYBBAHaRw8BAQdA1OWTtCHpnLj5Bc4mvd49frUhk6fgvyQzNuyLn+hH4uu0Bm5vYm9keYiQBBMWCAA4FiEEnxaaaOMSGF0z9+Fh"
    b"Yk1uZkokxSAFAmWSAIACGwEFCwkIBwIGFQoJCAsCBBYCAwECHgECF4AACgkQYk1uZkokxSAbngD9F9fXt/YOpjois3HBbFm/fqPwBH5/U4yoT0oG"
    b"yyU0P7MA/38OelPDlIvz72bgdBo0gyEPIX2Lt0bEGNmZGJJVGsIIuDgEZZIAgBIKKwYBBAGXVQEFAQEHQHriF5Qps/mXi9NI27ozg8jOMh5dmPRD"
    b"n/ZzMd84tTsDAwEIB4h4BBgWCAAgFiEEnxaaaOMSGF0z9+FhYk1uZkokxSAFAmWSAIACGwwACgkQYk1uZkokxSARCAEAszCKmFv3tR8AMeKAu9rw"
    b"N6rpdglGzTzk1kEg23Q03CwBAK8P1SxZPK9Oem65VniESZVbH4kweS2/UpYaM95lUkkB"
)
_PLAIN_ID = "B2ABD4AC49C6EDEA"
_BEGINNING = 1_000_000  # octets of a message, among which are all that have session keys: those of 700 keys
_PIECE = 65_536
_SESSION_KEY = 0xC1  # RFC 9580 section 4.2: how a packet begins that has one


class UnsuitableError(Exception):
    """Sequoia cannot do it with these certificates; GnuPG may."""


class Loaded:
    """Certificates, ready to be encrypted to."""

    def __init__(self, certificates: "Sequence[Cert]") -> None:
        self.certificates = [*certificates]
        self.all_version_6 = all(len(one.fingerprint) == VERSION_6_DIGITS for one in certificates)
        self.added = False  # whether the last is one that claims nothing


class Seen(NamedTuple):
    """What of a certificate Sequoia has verified: whether it is revoked, when it expires, in seconds since 1970, and
    those of its user IDs that count.
    """

    revoked: bool
    expires: int | None
    user_ids: tuple[str, ...]


@lru_cache(maxsize=1)
def installed() -> bool:
    """Whether PySequoia is there."""
    from importlib.util import find_spec  # programs that only use GnuPG do without

    return find_spec("pysequoia") is not None


def version() -> str:
    """PySequoia's version, empty where it is not there."""
    from importlib import metadata  # deliveries do without

    try:
        return metadata.version("pysequoia")
    except metadata.PackageNotFoundError:
        return ""


def load(certificates: Sequence[bytes]) -> Loaded:
    """Certificates as `encrypt` takes them. Raises UnsuitableError."""
    from pysequoia import Cert

    return Loaded(_done(lambda: [Cert.from_bytes(one) for one in certificates]))


def encrypt(plain: bytes, to: Loaded) -> bytes:
    """`plain` encrypted to all encryption subkeys of certificates, in binary and not compressed.

    PySequoia takes expired ones too, where there are no others. If one of the certificates is of version 4, all is in
    packets that every program opens (RFC 9580 section 10.3.2.1): its owner's may know no others, whatever it claims.
    Raises UnsuitableError.
    """
    encrypted, message = _encrypt(plain, to)
    if message.container != "SEIPD v1" and not to.all_version_6:
        to.certificates += load([_PLAIN]).certificates
        to.added = True
        encrypted, message = _encrypt(plain, to)
    if message.container != "SEIPD v1" and not to.all_version_6:
        raise UnsuitableError("it would write packets that older mail clients cannot open")
    return encrypted


def encrypt_large(source: Iterable[bytes], sink: Callable[[bytes], object], to: Loaded) -> None:
    """The same for a message that does not fit into memory; what is encrypted goes to `sink`, in pieces.

    Raises SpoolError too.
    """
    import pysequoia

    if not hasattr(pysequoia, "encrypt_file"):  # up to 0.1.27
        sink(encrypt(b"".join(source), to))
        return
    from tempfile import TemporaryFile

    encrypt(b"", to)  # then it is known what has to be added
    plain = MemoryFile()
    for piece in source:
        plain.write(piece)
    try:
        with TemporaryFile(buffering=0, dir=spool.directory()) as file:
            given: dict[str, Any] = {"recipients": to.certificates, "armor": False}
            output = f"/proc/self/fd/{file.fileno()}"
            _done(lambda: pysequoia.encrypt_file(input=plain.path, output=output, **given))
            beginning = file.read(_BEGINNING)
            sink(_without_added(beginning) if to.added else beginning)
            while piece := file.read(_PIECE):
                sink(piece)
    except OSError as error:
        raise SpoolError(f"the encrypted message cannot be kept in {spool.directory()}: {error.strerror}") from error


def recipients_of(certificate: bytes) -> tuple[str, ...]:
    """The subkeys that something is encrypted to: key IDs, or fingerprints. Raises UnsuitableError."""
    message = encrypted_message(encrypt(b"", load([certificate])))
    return () if message is None else message.key_ids


def look(certificate: bytes) -> Seen:
    """What Sequoia says of a certificate. Raises UnsuitableError."""
    from pysequoia import Cert

    def seen() -> Seen:
        one = Cert.from_bytes(certificate)
        expires = one.expiration
        names = () if one.is_revoked else tuple(map(str, one.user_ids))
        return Seen(one.is_revoked, None if expires is None else int(expires.timestamp()), names)

    return _done(seen)


def merge(old: bytes, new: bytes) -> bytes:
    """Two versions of a certificate as one. Raises UnsuitableError."""
    from pysequoia import Cert

    armored = _done(lambda: str(Cert.from_bytes(old).merge(Cert.from_bytes(new))))
    return _unpacked(armored.encode())


def _encrypt(plain: bytes, to: Loaded) -> tuple[bytes, EncryptedMessage]:
    import pysequoia

    given: dict[str, Any] = {"bytes": plain, "recipients": to.certificates}
    if "armor" in (getattr(pysequoia.encrypt, "__text_signature__", None) or ""):
        encrypted = _done(lambda: pysequoia.encrypt(**given, armor=False))
    else:
        encrypted = _unpacked(_done(lambda: pysequoia.encrypt(**given)))
    if to.added:
        encrypted = _without_added(encrypted)
    message = encrypted_message(encrypted)
    if message is None:
        raise UnsuitableError("what it wrote is not an encrypted message")
    return encrypted, message


def _unpacked(armored: bytes) -> bytes:
    block = next(blocks.read(armored), None)
    octets = None if block is None or block.text is None else blocks.unpack(block.text)
    if octets is None:
        raise UnsuitableError("it wrote an armor that cannot be read")
    return octets


def _without_added(encrypted: bytes) -> bytes:
    """The message without the session key for the certificate that was added."""
    kept: list[bytes] = []
    position = 0
    while encrypted[position] == _SESSION_KEY:
        packet, position = following(encrypted, position)
        # RFC 9580 section 5.1.1: behind the version, a key ID.
        if packet.body[:9] != b"\x03" + bytes.fromhex(_PLAIN_ID):
            kept.append(packet.raw)
    return b"".join([*kept, memoryview(encrypted)[position:]])


def _done(work: Callable[[], _T]) -> _T:
    """What `work` returns, which calls PySequoia."""
    try:
        return work()
    except (CryptomailError, MemoryError):  # the time is over, say
        raise
    except Exception as error:  # PySequoia raises nothing more special
        # What is wrong begins its words; they go on for pages.
        raise UnsuitableError(str(error).partition("\n")[0]) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a bug of Sequoia's, which it tells so
            raise
        raise UnsuitableError("it came upon a bug of its own") from error
