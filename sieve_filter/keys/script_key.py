"""Keys that travel in a Sieve script, as arguments."""

from collections.abc import Sequence
from functools import lru_cache
from tempfile import NamedTemporaryFile
from typing import IO

from sieve_filter.errors import SpoolError, UsageError
from sieve_filter.mail.mime import decode_base64
from sieve_filter.openpgp import certificate
from sieve_filter.system import spool

# Files kept by a process that lives long: each is some 400 octets to 4 KB.
_FILES = 64


def keyring(pieces: Sequence[str]) -> str:
    """The path of a keyring with the certificates in `pieces`, which are base64 of them, cut anywhere.

    The file is there as long as this process is, or until many others were asked for. Raises UsageError where it is
    not base64 of public keys, SpoolError where the file cannot be written.
    """
    return _file("".join(pieces)).name


@lru_cache(maxsize=_FILES)
def _file(text: str) -> IO[bytes]:
    data = decode_base64(text.encode("ascii", "replace"))
    reading = certificate.read(data or b"")
    if reading.secret:
        raise UsageError("--keydata holds a secret key: take it out of the script, and make a new key")
    problem = next((text for text in (*reading.problems, *(one.problem for one in reading.certificates)) if text), "")
    if data is None or problem:
        raise UsageError(f"--keydata is not the base64 of a public key: {problem or 'it is not base64'}")
    try:
        file = NamedTemporaryFile(prefix="cryptomail-", suffix=".pgp", dir=spool.directory())  # noqa: SIM115  # lives on
        file.write(b"".join(one.packets for one in reading.certificates))
        file.flush()
    except OSError as error:
        raise SpoolError(f"the script's key cannot be kept in {spool.directory()}: {error.strerror}") from error
    return file
