"""Certificates are read as openssl reads them, and whatever else there is in a file is told."""

import re
import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.smime import certificate, der, private_key, recipients
from sieve_filter.smime.certificate import EC, RSA
from tests.support.asn1 import der as value
from tests.support.x509 import Card, Maker, card, ec, maker, openssl

__all__ = ["card", "maker"]

KINDS = {"RSA 2048": ("-newkey", "rsa:2048"), "P-256": ec("P-256"), "P-384": ec("P-384"), "P-521": ec("P-521")}


@pytest.mark.parametrize(("kind", "bits"), [*zip(KINDS, (2048, 256, 384, 521), strict=True)])
def test_a_certificate_is_read_as_openssl_reads_it(maker: Maker, kind: str, bits: int) -> None:
    made = maker.make(*KINDS[kind])
    [one] = certificate.read(made.pem).certificates
    assert (one.algorithm, one.bits) == (RSA if kind.startswith("RSA") else EC, bits)
    assert one.fingerprint == made.fingerprint
    assert one.addresses == {"alice@example.org"}
    assert one.encrypts
    said = openssl("x509", "-noout", "-dates", data=made.pem).decode()
    dates = [datetime.strptime(text, "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC) for text in re.findall("=(.*)", said)]
    assert [one.begins, one.expires] == [int(date.timestamp()) for date in dates]


def test_each_form_holds_the_same_certificate(card: Card) -> None:
    pem = certificate.read(card.pem)
    [one] = pem.certificates
    signed = openssl("crl2pkcs7", "-nocrl", "-certfile", str(card.directory / "cert.pem"))
    assert certificate.read(one.der) == pem
    assert certificate.read(signed) == pem
    assert certificate.read(openssl("pkcs7", "-outform", "DER", data=signed)) == pem
    assert certificate.read(b"Bag Attributes\n" + card.pem.replace(b"\n", b"\r\n")) == pem
    assert certificate.read(certificate.pem([one.der])) == pem
    assert certificate.pem([one.der]) == card.pem


def test_secret_keys_are_seen(card: Card) -> None:
    files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
    for password in ("", "secret"):
        pfx = openssl("pkcs12", "-export", *files, "-passout", f"pass:{password}")
        assert certificate.holds(pfx)
        assert certificate.read(pfx).secret
    for key in (card.key.read_bytes(), openssl("rsa", "-traditional", data=card.key.read_bytes())):
        reading = certificate.read(card.pem + key)
        assert certificate.holds(key)
        assert reading.secret


@pytest.mark.parametrize(
    ("usage", "mail", "kind", "encrypts"),
    [
        ("", True, (), True),
        ("keyEncipherment", True, (), True),
        ("digitalSignature,nonRepudiation", True, (), False),
        ("keyAgreement", True, (), False),
        ("keyEncipherment", False, (), False),
        ("keyAgreement", True, ec("P-256"), True),
        ("keyEncipherment", True, ec("P-256"), False),
    ],
)
def test_key_usage_says_whether_it_encrypts(
    maker: Maker, usage: str, mail: bool, kind: tuple[str, ...], encrypts: bool
) -> None:
    [one] = certificate.read(maker.make(*kind, usage=usage, mail=mail).pem).certificates
    assert one.encrypts == encrypts


@pytest.mark.parametrize("kind", [("-newkey", "ed25519"), ec("brainpoolP256r1")])
def test_keys_that_mail_programs_do_not_know_are_told(maker: Maker, kind: tuple[str, ...]) -> None:
    reading = certificate.read(maker.make(*kind).pem)
    assert not reading.certificates
    assert "a certificate cannot be read: its " in reading.problems[0]


@pytest.mark.parametrize("data", [b"", b"Hi!", b"\x30", b"\x30\x00", b"\x30\x80\x00\x00", b"\x30\x84\xff\xff\xff\xff"])
def test_anything_else_is_no_certificate(data: bytes) -> None:
    reading = certificate.read(data)
    assert (reading.certificates, reading.secret) == ((), False)
    assert reading.problems


def test_openpgp_keys_are_not_taken_for_certificates() -> None:
    assert not certificate.holds(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n")
    assert not certificate.holds(b"\x98\x33\x04")


def test_a_certificate_that_is_too_large_is_told(card: Card) -> None:
    [one] = certificate.read(card.pem).certificates
    with pytest.raises(ValueError, match="larger than"):
        certificate.parse(one.der + bytes(limits.X509_OCTETS))


@given(st.data())
def test_a_damaged_certificate_raises_nothing_else(card: Card, data: st.DataObject) -> None:
    [one] = certificate.read(card.pem).certificates
    octets = bytearray(one.der)
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(octets[: data.draw(st.integers(0, len(octets)))]) if data.draw(st.booleans()) else bytes(octets)
    certificate.read(cut)
    certificate.read(certificate.pem([cut]))


@given(st.binary(max_size=200))
def test_no_octets_at_all_raise_an_error(data: bytes) -> None:
    certificate.read(data)
    certificate.read(b"\x30" + data)
    certificate.read(b"-----BEGIN CERTIFICATE-----\n" + data + b"-----END CERTIFICATE-----")


@given(st.lists(st.tuples(st.sampled_from([2, 4, 0x30, 0xA0]), st.binary(max_size=300)), max_size=5))
def test_values_are_read_as_they_were_written(made: list[tuple[int, bytes]]) -> None:
    data = b"".join(value(identifier, content) for identifier, content in made)
    read = list(der.values(data))
    assert [(one.identifier, one.content) for one in read] == made
    assert b"".join(one.raw for one in read) == data


@pytest.mark.parametrize("data", [b"\x04\x81\x01x", b"\x04\x82\x00\x81" + bytes(129), b"\x1f\x01\x00", b"\x04\x80"])
def test_what_is_not_in_its_shortest_form_is_not_der(data: bytes) -> None:
    with pytest.raises(ValueError, match="DER"):
        list(der.values(data))


@given(st.binary(max_size=300))
def test_no_octets_at_all_make_readers_of_secret_keys_or_recipients_fail(data: bytes) -> None:
    private_key.found(data)
    recipients.key_ids(data)
    with suppress(ValueError):
        list(der.values(data, ber=True))


@given(
    st.recursive(
        st.binary(max_size=20).map(lambda data: value(4, data)),
        lambda inner: st.lists(inner).map(lambda parts: b"\x24\x80" + b"".join(parts) + b"\x00\x00"),
        max_leaves=10,
    )
)
def test_values_of_indefinite_length_are_read_to_their_end(data: bytes) -> None:
    [one] = der.values(data, ber=True)
    assert data in (one.raw, one.raw + b"\x00\x00")
    assert der.only(data, data[0], ber=True) == one
    with pytest.raises(ValueError, match=r"cut off|not DER"):
        list(der.values(data[:-1], ber=True))


def test_a_chain_is_passed_over_and_a_renewed_certificate_is_not(maker: Maker) -> None:
    authority = maker.make(name="Authority", address="")
    issued = maker.make(issuer=authority)
    chain = certificate.read(authority.pem + issued.pem).certificates
    assert certificate.without_issuers(chain) == certificate.read(issued.pem).certificates
    both = certificate.read(maker.make().pem + maker.make().pem).certificates
    assert certificate.without_issuers(both) == both


def test_a_certificate_that_is_cut_off_is_told_also_behind_others(card: Card) -> None:
    reading = certificate.read(card.pem + card.pem[:-20])
    assert "a certificate in it is cut off" in reading.problems


def test_many_certificates_take_no_time(card: Card) -> None:
    started = time.process_time()
    assert certificate.read(b"-----BEGIN CERTIFICATE-----\n" * 200_000).problems
    assert certificate.read(b"-----BEGIN PRIVATE KEY-----\n" * 200_000).secret
    assert certificate.read(card.pem * 1_000).problems == (
        f"there are more than {limits.X509_CERTIFICATES} certificates in it",
    )
    assert time.process_time() - started < 3
