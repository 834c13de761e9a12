"""Where an address's key is published, in a Web Key Directory or in the DNS, and what of an answer is it. Pure."""

import hashlib
import re
import unicodedata
from typing import NamedTuple
from urllib.parse import quote

from sieve_filter.errors import RefusedKeyError
from sieve_filter.openpgp import certificate, wkd
from sieve_filter.openpgp.certificate import Certificate

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+")
_DANE_OCTETS = 28  # of the hash: a DNS label has no more than 63 characters


class Place(NamedTuple):
    """Where a Web Key Directory has a key: the advanced method's URL, and the direct one's for domains without that."""

    advanced: str
    direct: str


class Found(NamedTuple):
    """What an answer holds: certificates with the address that was asked for, and in words what else is wrong."""

    certificates: tuple[Certificate, ...]
    problems: tuple[str, ...]


def wkd_place(address: str) -> Place:
    """The URLs of an address (draft-koch-openpgp-webkey-service, section 3.1). May raise RefusedKeyError."""
    local, host = _split(address)
    file = f"hu/{wkd.key_name(local)}?l={quote(local, safe='')}"
    return Place(
        f"https://openpgpkey.{host}/.well-known/openpgpkey/{host}/{file}",
        f"https://{host}/.well-known/openpgpkey/{file}",
    )


def dane_name(address: str) -> str:
    """The name of an address's OPENPGPKEY records (RFC 7929 section 3), with a dot at its end.

    Raises RefusedKeyError for no address.
    """
    local, host = _split(address)
    canonical = unicodedata.normalize("NFC", local).encode("utf-8")
    return f"{hashlib.sha256(canonical).hexdigest()[: 2 * _DANE_OCTETS]}._openpgpkey.{host}."


def judge(data: bytes, address: str) -> Found:
    """What of an answer's octets may be a key for `address`: binary certificates with exactly that address."""
    if not data[:1] or not data[0] & 0x80:  # RFC 9580 section 4.2
        return Found((), ("the answer is not an OpenPGP key",))
    reading = certificate.read(data)
    if reading.secret:
        return Found((), ("the answer holds a SECRET key, which everybody can read there: it is not safe any more",))
    if reading.problems:
        return Found((), tuple(f"the answer is damaged: {one}" for one in reading.problems))
    fits = tuple(one for one in reading.certificates if address.lower() in one.addresses)
    others = (one for one in reading.certificates if one not in fits)
    return Found(fits, tuple(_wrong(one, address) for one in others))


def _wrong(one: Certificate, address: str) -> str:
    has = ", ".join(sorted(one.addresses)) or "no address"
    return one.problem or f"key {one.fingerprint} in the answer is not for {address}: it has {has}"


def _split(address: str) -> tuple[str, str]:
    local, _, domain = address.rpartition("@")
    try:
        local.encode("utf-8")
        host = domain.lower().encode("idna").decode("ascii")
    except UnicodeError:
        host = ""
    if not local or not _HOST.fullmatch(host):
        raise RefusedKeyError(f"{address} is not an address whose key could be looked up")
    return local, host
