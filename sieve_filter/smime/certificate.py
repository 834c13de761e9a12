"""Reads X.509 certificates for S/MIME (RFC 5280, RFC 8550): to whom mail can be encrypted with one. Pure.

Whose signature is on a certificate, and whether an authority is trusted, is not looked at: whose it is was decided by
whoever set it up, as with OpenPGP keys. What comes as DER, PEM (RFC 7468) or PKCS #7 (RFC 2315) is taken.
"""

import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.smime import der, private_key
from sieve_filter.smime.cms import SIGNED_DATA
from sieve_filter.smime.der import Value

RSA, EC = 1, 18  # as OpenPGP numbers RSA and ECDH (RFC 9580 section 9.1)

_RSA = "1.2.840.113549.1.1.1"
_EC = "1.2.840.10045.2.1"
_CURVES = {"1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384, "1.3.132.0.35": 521}
_EMAIL = "1.2.840.113549.1.9.1"
_KEY_IDENTIFIER, _KEY_USAGE, _ALTERNATIVE_NAMES, _EXTENDED_USAGE = "2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.37"
_FOR_MAIL = {"1.3.6.1.5.5.7.3.4", "2.5.29.37.0"}  # emailProtection, any
_ENCIPHERS, _AGREES = 2, 4  # bits of KeyUsage (RFC 5280 section 4.2.1.3)
_RFC822_NAME = 0x81
_YEAR_SPLIT = 50  # RFC 5280 section 4.1.2.5.1

_BEGIN = re.compile(rb"-----BEGIN (?:(?:X509 )?CERTIFICATE|PKCS7)-----")
_PEM = re.compile(_BEGIN.pattern + rb"([^-]*+)-----END (?:(?:X509 )?CERTIFICATE|PKCS7)-----")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY-----")
_ADDRESS = re.compile(r"[^\s<>@\"]+@[^\s<>@\"]+")
_LINE = 64


class X509(NamedTuple):
    """A certificate: all of it, in DER, and what counts of it.

    `fingerprint` is its SHA-256, in upper case; `issuer_and_serial` the two by which messages name it, in DER; so are
    `issuer` and `subject`; `algorithm` RSA or EC, and the `bits` of its key; `begins` and `expires` seconds since 1970;
    `encrypts` says whether it is there to encrypt mail to; `addresses` those in it, lower case.
    """

    der: bytes
    fingerprint: str
    issuer_and_serial: bytes
    issuer: bytes
    subject: bytes
    algorithm: int
    bits: int
    begins: int
    expires: int
    encrypts: bool
    addresses: frozenset[str]


class Reading(NamedTuple):
    """What there is in a file: certificates; whether a secret key is with them; in words what could not be read."""

    certificates: tuple[X509, ...]
    secret: bool
    problems: tuple[str, ...]


def holds(data: bytes) -> bool:
    """Whether `data` looks like certificates of this kind, and not like OpenPGP's."""
    return data[:1] == b"\x30" or (
        (_BEGIN.search(data) or _PRIVATE_KEY.search(data)) is not None and b"-----BEGIN PGP " not in data
    )


def read(data: bytes) -> Reading:
    """The certificates in `data`, whatever that is."""
    if data[:1] == b"\x30":
        return _reading([data])
    reading = _reading([_decoded(text) for text in _PEM.findall(data)])
    if _PRIVATE_KEY.search(data):
        return reading._replace(secret=True)
    cut = len(_BEGIN.findall(data)) - len(_PEM.findall(data))
    return reading._replace(problems=("a certificate in it is cut off", *reading.problems)) if cut else reading


def without_issuers(certificates: Collection[X509]) -> tuple[X509, ...]:
    """These, each once, without those that issued another: the chain that mail programs send with a certificate.

    It is for what somebody brings. Of an owner's own certificates none may be passed over, because somebody brought one
    that names it as its issuer.
    """
    issuers = {one.issuer for one in certificates if one.issuer != one.subject}
    return tuple(dict.fromkeys(one for one in certificates if one.subject not in issuers))


def pem(certificates: Iterable[bytes]) -> bytes:
    """Certificates in DER as PEM, one behind the other."""
    return b"".join(map(_pem, certificates))


def parse(data: bytes) -> X509:
    """The certificate that `data` is, in DER. Raises ValueError, which says in words why it cannot be used."""
    if len(data) > limits.X509_OCTETS:
        raise ValueError(f"it is larger than {limits.X509_OCTETS} octets")
    certificate = der.parts(der.only(data, der.SEQUENCE))
    fields = list(der.parts(der.expect(certificate, der.SEQUENCE)))
    if not fields or fields[0].identifier != der.CONTEXT or fields[0].content != b"\x02\x01\x02":
        raise ValueError("it is not a certificate of version 3")
    rest = iter(fields[1:])
    serial = der.expect(rest, der.INTEGER)
    der.expect(rest, der.SEQUENCE)  # the signature's algorithm
    issuer = der.expect(rest, der.SEQUENCE)
    dates = der.parts(der.expect(rest, der.SEQUENCE))
    begins, expires = _time(next(dates, None)), _time(next(dates, None))
    subject = der.expect(rest, der.SEQUENCE)
    algorithm, bits = _key(der.expect(rest, der.SEQUENCE))
    extensions = _extensions(rest)
    return X509(
        data,
        sha256(data).hexdigest().upper(),
        issuer.raw + serial.raw,
        issuer.raw,
        subject.raw,
        algorithm,
        bits,
        begins,
        expires,
        _encrypts(algorithm, extensions),
        frozenset(_addresses(subject, extensions)),
    )


def _reading(blocks: Sequence[bytes]) -> Reading:
    found: list[X509] = []
    problems: list[str] = []
    secret = False
    if len(blocks) > limits.X509_CERTIFICATES:
        return Reading((), False, (f"there are more than {limits.X509_CERTIFICATES} certificates in it",))
    for data in blocks:
        if private_key.found(data):
            secret = True
            continue
        try:
            pieces = _in_signed_data(data) or [data]
        except ValueError as error:
            problems.append(str(error))
            continue
        for one in pieces:
            try:
                found.append(parse(one))
            except ValueError as error:
                problems.append(f"a certificate cannot be read: {error}")
    if not found and not problems and not secret:
        problems.append("there is no certificate in it")
    return Reading(tuple(dict.fromkeys(found)), secret, tuple(problems))


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        return b""


def _pem(data: bytes) -> bytes:
    text = binascii.b2a_base64(data, newline=False)
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return b"\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def _in_signed_data(data: bytes) -> list[bytes]:
    """The certificates in signed data (RFC 5652 section 5.1); none where it is something else. Raises ValueError."""
    content = der.parts(der.only(data, der.SEQUENCE, ber=True), ber=True)
    kind = next(content, None)
    if kind is None or kind.identifier != der.OID or der.dotted(kind.content) != SIGNED_DATA:
        return []
    signed = der.only(der.expect(content, der.CONTEXT).content, der.SEQUENCE, ber=True)
    certificates = next((one for one in der.parts(signed, ber=True) if one.identifier == der.CONTEXT), None)
    pieces = der.parts(certificates, ber=True) if certificates is not None else iter(())
    found = [one.raw for one in islice(pieces, limits.X509_CERTIFICATES + 1)]
    if len(found) > limits.X509_CERTIFICATES:
        raise ValueError(f"there are more than {limits.X509_CERTIFICATES} certificates in it")
    if not found:
        raise ValueError("there is no certificate in it")
    return found


def _time(value: Value | None) -> int:
    """A moment (RFC 5280 section 4.1.2.5), in seconds since 1970."""
    if value is None or value.identifier not in (der.UTC_TIME, der.GENERALIZED_TIME):
        raise ValueError("its dates are malformed")
    text = value.content.decode("ascii", "replace")
    if value.identifier == der.UTC_TIME:
        text = ("20" if text[:2] < str(_YEAR_SPLIT) else "19") + text
    if not re.fullmatch(r"[0-9]{14}Z", text):
        raise ValueError("its dates are malformed")
    try:
        return int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError:  # a 13th month
        raise ValueError("its dates are malformed") from None


def _key(value: Value) -> tuple[int, int]:
    """The algorithm of a SubjectPublicKeyInfo, and its size in bits."""
    fields = der.parts(value)
    algorithm = der.parts(der.expect(fields, der.SEQUENCE))
    name = der.dotted(der.expect(algorithm, der.OID).content)
    octets = der.expect(fields, der.BIT_STRING, last=True).content
    if name == _RSA and octets[:1] == b"\0":
        modulus = der.expect(der.parts(der.only(octets[1:], der.SEQUENCE)), der.INTEGER).content
        return RSA, int.from_bytes(modulus).bit_length()
    if name == _EC:
        curve = der.dotted(der.expect(algorithm, der.OID).content)
        if curve in _CURVES:
            return EC, _CURVES[curve]
        raise ValueError("its curve is none of P-256, P-384 and P-521, so mail programs cannot use it")
    raise ValueError("its key is neither RSA nor of an elliptic curve, so nothing can be encrypted to it")


def _extensions(rest: Iterator[Value]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field in rest:
        if field.identifier != der.CONTEXT | 3:  # unique identifiers, which nobody has
            continue
        for extension in der.parts(der.only(field.content, der.SEQUENCE)):
            parts = list(der.parts(extension))
            if len(parts) not in (2, 3) or parts[0].identifier != der.OID or parts[-1].identifier != der.OCTET_STRING:
                raise ValueError("an extension in it is malformed")
            name = der.dotted(parts[0].content)
            if name in found:
                raise ValueError("an extension in it is there twice")
            found[name] = parts[-1].content
    return found


def _encrypts(algorithm: int, extensions: dict[str, bytes]) -> bool:
    """Whether its key usages allow it (RFC 8550 sections 4.4.2, 4.4.4). What is not there allows all."""
    if _KEY_USAGE in extensions:
        bits = der.only(extensions[_KEY_USAGE], der.BIT_STRING).content
        needed = _ENCIPHERS if algorithm == RSA else _AGREES
        if len(bits) < 2 or not bits[1] & 0x80 >> needed:
            return False
    if _EXTENDED_USAGE in extensions:
        usages = der.parts(der.only(extensions[_EXTENDED_USAGE], der.SEQUENCE))
        return bool({der.dotted(one.content) for one in usages} & _FOR_MAIL)
    return True


def _addresses(subject: Value, extensions: dict[str, bytes]) -> Iterator[str]:
    """Those of RFC 8550 section 3: alternative names, and the subject's own."""
    texts: list[bytes] = []
    if _ALTERNATIVE_NAMES in extensions:
        names = der.parts(der.only(extensions[_ALTERNATIVE_NAMES], der.SEQUENCE))
        texts += [one.content for one in names if one.identifier == _RFC822_NAME]
    for relative in der.parts(subject):
        for attribute in der.parts(relative):
            parts = list(der.parts(attribute))
            if len(parts) == 2 and parts[0].identifier == der.OID and der.dotted(parts[0].content) == _EMAIL:
                texts.append(parts[1].content)
    for text in texts:
        address = text.decode("utf-8", "replace").lower()
        if _ADDRESS.fullmatch(address):
            yield address
