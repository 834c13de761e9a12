"""Runs OpenSSL: encrypts to certificates, and decrypts for who has the secret key; or has gpgsm do that."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import NamedTuple

from sieve_filter.errors import DecryptionError, EncryptionError
from sieve_filter.system import process, spool
from sieve_filter.system.process import Sink

_ENCRYPT = ("openssl", "cms", "-encrypt", "-binary", "-stream", "-outform", "DER")
_OAEP = ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")

# A line of OpenSSL's: a thread, the number of the error, the library, the function, the reason, the place.
_ERROR = re.compile(r"^[0-9A-F]+:error:[0-9A-F]+:([^:\n]*):[^:\n]*:([^:\n]*):", re.MULTILINE)


class Recipient(NamedTuple):
    """A certificate in PEM, and whether its key is of RSA, where the padding may be OAEP."""

    pem: bytes
    rsa: bool


def encrypt(source: Iterable[bytes], sink: Sink, recipients: Sequence[Recipient], cipher: str, *, oaep: bool) -> None:
    """Encrypt `source` to exactly these certificates, with that cipher of OpenSSL's; enveloped data goes to `sink`.

    OpenSSL looks at no dates and at no usage of a certificate: who calls it has. Raises EncryptionError.
    """
    command = [*_ENCRYPT, f"-{cipher}"]
    try:
        with ExitStack() as opened:
            for one in recipients:
                command += ["-recip", opened.enter_context(_in_file(one.pem)), *(_OAEP if oaep and one.rsa else ())]
            code, said = process.converse(command, _environment(), source, sink)
    except (OSError, ValueError) as error:
        raise EncryptionError(f"cannot run openssl: {error}") from error
    if code != 0:
        raise EncryptionError(f"openssl could not encrypt: {_complaint(said)}")


def certificates(pkcs12: bytes, passphrase: str) -> bytes:
    """The certificates in PKCS #12, as PEM, and no secret key; empty where the passphrase is another one."""
    environment = _environment() | {"PASSPHRASE": passphrase}
    command = ["openssl", "pkcs12", "-nokeys", "-passin", "env:PASSPHRASE"]
    for more in ((), ("-legacy",)):  # ciphers of the last century, which most such files have
        pem = bytearray()
        with suppress(OSError, ValueError):
            code, _ = process.converse([*command, *more], environment, [pkcs12], pem.extend)
            if code == 0:
                return bytes(pem)
    return b""


def version() -> str:
    """OpenSSL's version, empty where it cannot be started."""
    said = bytearray()
    with suppress(OSError):
        process.converse(["openssl", "version"], _environment(), (), said.extend)
    words = said.decode("ascii", "replace").split()
    return words[1] if len(words) > 1 else ""


def decrypt(enveloped: bytes, key: str | None) -> bytes:
    """The content of enveloped data in DER: by openssl with the secret key in the file `key`, else by the caller's
    gpgsm, agent and pinentry. Raises DecryptionError.
    """
    program = "openssl" if key is not None else "gpgsm"
    by_openssl = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", key or ""]
    by_gpgsm = ["gpgsm", "--batch", "--no-tty", "--assume-binary", "--decrypt"]
    content = bytearray()
    try:
        command = by_openssl if key is not None else by_gpgsm
        code, said = process.converse(command, os.environ, [enveloped], content.extend)
    except (OSError, ValueError) as error:
        raise DecryptionError(f"cannot run {program}: {error}") from error
    if code != 0:
        raise DecryptionError(f"{program} could not decrypt: {_complaint(said)}")
    return bytes(content)


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


@contextmanager
def _in_file(content: bytes) -> Iterator[str]:
    """The path of a file with that content, until the block ends: openssl takes certificates from nothing else.

    No /proc is needed for it, as it would be for one without a name. There is nothing in it that is secret.
    """
    path = f"{spool.directory()}/cryptomail-{os.urandom(16).hex()}.pem"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        yield path
    finally:
        os.unlink(path)


def _complaint(said: bytes) -> str:
    """What it complains of, in one line; never content, which neither program writes there."""
    text = said.decode("utf-8", "replace")
    if reason := _ERROR.search(text):
        return f"{reason[1]}: {reason[2]}"
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it ended without a word"
