"""Takes the keyring file of GnuPG 2.1 and later (pubring.kbx) apart, and puts one together. Pure.

The format is that of GnuPG's kbx/keybox-blob.c: blobs, each with its length in front. A keyring for one owner is made
of the blobs that GnuPG itself wrote into a quarantine, which spares runs of gpg for each owner.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sieve_filter.openpgp.digest import sha1
from sieve_filter.openpgp.packets import certificate_fingerprint, key_fingerprints

NAME = "pubring.kbx"

_EMPTY, _HEADER, _OPENPGP = 0, 1, 2
_HEAD = 20  # octets of a blob's fixed fields up to the number of keys
_CHECKSUM = 20  # octets at the end of a certificate's blob: SHA-1, against accidents
_PLAIN = b"\x01\x00\x00"  # octets 5 to 7: the version for keys of version 4, and no flag, such as "pass over it"
_FINGERPRINT = 20  # octets at the beginning of each entry in the table of keys, which follows the fixed fields


class Keybox(NamedTuple):
    """`header` is the file's first blob; `blobs` has each certificate's, by its fingerprint."""

    header: bytes
    blobs: Mapping[str, bytes]


def split(data: bytes) -> Keybox:
    """The blobs of the keyring file `data`. Raises ValueError where it is not one."""
    header = b""
    blobs: dict[str, bytes] = {}
    position = 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4])
        blob = data[position : position + size]
        if size < _HEAD or len(blob) < size:
            raise ValueError("the keyring is cut short")
        position += size
        if blob[4] == _HEADER and not header:
            header = blob
        elif blob[4] == _OPENPGP and header:
            if sha1(blob[:-_CHECKSUM]) != blob[-_CHECKSUM:]:
                raise ValueError("a certificate in the keyring is damaged")
            blobs[certificate_fingerprint(packets(blob))] = blob
        elif blob[4] != _EMPTY:
            raise ValueError("the keyring is not one of OpenPGP certificates")
    return Keybox(header, blobs)


def join(header: bytes, blobs: Iterable[bytes]) -> bytes:
    """A keyring file of those blobs."""
    return header + b"".join(blobs)


def packets(blob: bytes) -> bytes:
    """The certificate in a blob: the fields at octets 8 and 12 are its offset and its length."""
    start = int.from_bytes(blob[8:12])
    return blob[start : start + int.from_bytes(blob[12:16])]


def plain(data: bytes) -> list[bytes]:
    """The certificates in the keyring file `data`, in which gpg finds them all. Raises ValueError where there is more:
    a certificate twice or passed over, the place of one that was deleted.
    """
    box = split(data)
    if join(box.header, box.blobs.values()) != data:
        raise ValueError("there is more than its certificates")
    return [_plain(blob) for blob in box.blobs.values()]


def only(header: bytes, blob: bytes) -> bytes:
    """The certificate in a keyring file of that header and that blob. Raises ValueError where there is more in it.

    So it does where gpg would not find the certificate's keys: it looks them up in a table in the blob.
    """
    alone = Keybox(header, {certificate_fingerprint(packets(blob)): blob})
    if split(header) != Keybox(header, {}) or split(header + blob) != alone:
        raise ValueError("there is more than one certificate")
    return _plain(blob)


def _plain(blob: bytes) -> bytes:
    """The certificate in a blob. Raises ValueError where gpg would not find its keys."""
    found = packets(blob)
    count, size = int.from_bytes(blob[16:18]), int.from_bytes(blob[18:20])
    entries = (_HEAD + number * size for number in range(count))
    table = [blob[start : start + _FINGERPRINT].hex().upper() for start in entries]
    if blob[5:8] != _PLAIN or len(set(table)) != count or set(table) != key_fingerprints(found):
        raise ValueError("its table is not of the keys in it")
    return found
