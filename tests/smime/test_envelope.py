"""Nothing but ciphertext for the certificates that were asked for is taken from an engine."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.mail.protection import Protected
from sieve_filter.smime import certificate, cms, envelope
from sieve_filter.smime.envelope import CBC, GCM, Enveloped, Walker
from tests.support.asn1 import AES, CONTENT, DATA, ENVELOPED, RECIPIENTS, VERSION, ber, der, info
from tests.support.samples import noise
from tests.support.x509 import Card, Maker, card, ec, maker, openssl

__all__ = ["card", "maker"]

OAEP = ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")
CBC_ALGORITHM = der(0x30, bytes.fromhex("060960864801650304012a"), der(0x04, noise(16)))


def written(*cards: Card, cipher: str = CBC, options: tuple[str, ...] = (), data: bytes = b"text\n") -> bytes:
    """What openssl writes to encrypt to these certificates."""
    recipients = [part for one in cards for part in ("-recip", str(one.directory / "cert.pem"), *options)]
    command = ("cms", "-encrypt", "-binary", "-stream", "-outform", "DER", f"-{cipher}")
    return openssl(*command, *recipients, data=data)


def walked(data: bytes, step: int = 65_536) -> Enveloped | None:
    walker = Walker()
    for start in range(0, len(data), step):
        walker.feed(data[start : start + step])
    return walker.finish()


def names(*cards: Card) -> tuple[bytes, ...]:
    return tuple(certificate.read(one.pem).certificates[0].issuer_and_serial for one in cards)


@pytest.mark.parametrize("cipher", [CBC, GCM])
@pytest.mark.parametrize("size", [1, 16, 5_000, 300_000])
@pytest.mark.parametrize("step", [1_000, 65_536])
def test_what_openssl_writes_is_followed_to_its_end(card: Card, cipher: str, size: int, step: int) -> None:
    data = written(card, cipher=cipher, data=bytes(size))
    assert walked(data, step) == Enveloped(cipher, names(card), envelope.size(cipher, size))
    assert cms.enveloped(data)


def test_all_recipients_are_told(maker: Maker, card: Card) -> None:
    cards = [card, maker.make(*ec("P-256")), maker.make(*ec("P-384"))]
    found = walked(written(*cards), 1)
    assert found is not None
    assert sorted(found.recipients) == sorted(names(*cards))
    assert walked(written(card, options=OAEP)) == Enveloped(CBC, names(card), 16)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda data: data[:-1], id="cut"),
        pytest.param(lambda data: data[: len(data) // 2], id="half"),
        pytest.param(lambda data: data + b"\n", id="something-behind"),
        pytest.param(lambda data: data + data, id="twice"),
        pytest.param(lambda data: b"Meet me at noon." + data, id="something-before"),
        pytest.param(lambda data: b"Subject: secret\r\n\r\nMeet me at noon.\r\n", id="the-message-itself"),
        pytest.param(lambda data: b"", id="nothing"),
        pytest.param(lambda data: info(VERSION, RECIPIENTS, CONTENT), id="definite-lengths"),
        pytest.param(
            lambda data: ber(
                0x30,
                ENVELOPED,
                ber(0xA0, ber(0x30, VERSION, der(0x31), ber(0x30, DATA, AES, ber(0xA0, der(4, b"plain text"))))),
            ),
            id="no-recipient",
        ),
        pytest.param(
            lambda data: ber(
                0x30, ENVELOPED, ber(0xA0, ber(0x30, VERSION, RECIPIENTS, ber(0x30, DATA, CBC_ALGORITHM, ber(0xA0))))
            ),
            id="no-ciphertext",
        ),
    ],
)
def test_anything_else_is_refused(card: Card, make: "object") -> None:
    assert callable(make)
    assert walked(make(written(card))) is None


def test_signed_data_and_other_ciphers_are_refused(card: Card) -> None:
    signer = ("-signer", str(card.directory / "cert.pem"), "-inkey", str(card.key))
    signed = openssl("cms", "-sign", "-binary", "-nodetach", "-stream", "-outform", "DER", *signer, data=b"text\n")
    assert walked(signed) is None
    for cipher in ("aes-128-cbc", "des3", "aes-128-gcm"):
        assert walked(written(card, cipher=cipher)) is None
    password = openssl("cms", "-encrypt", "-outform", "DER", "-stream", "-aes256", "-pwri_password", "x", data=b"text")
    assert walked(password) is None
    key_ids = openssl(
        *("cms", "-encrypt", "-keyid", "-outform", "DER", "-stream", "-aes256", "-recip"),
        str(card.directory / "cert.pem"),
        data=b"text",
    )
    assert walked(key_ids) is None


def test_a_head_that_does_not_end_is_not_kept_in_memory() -> None:
    walker = Walker()
    start = b"\x30\x80" + ENVELOPED + b"\xa0\x80\x30\x80" + VERSION + b"\x31\x84\x7f\xff\xff\xff"
    walker.feed(start + bytes(limits.ENVELOPE_HEAD_OCTETS))
    assert walker.malformed


@pytest.fixture(scope="module")
def sample(card: Card) -> bytes:
    return written(card)


@given(st.data())
def test_damage_raises_no_error(sample: bytes, data: st.DataObject) -> None:
    octets = bytearray(sample)
    position = data.draw(st.integers(0, len(octets) - 1))
    octets[position] = data.draw(st.integers(0, 255))
    walked(bytes(octets), data.draw(st.integers(1, 500)))


@given(st.binary(max_size=300))
def test_no_octets_at_all_raise_an_error(data: bytes) -> None:
    assert walked(data) is None


@pytest.mark.parametrize(("cipher", "kind"), [(CBC, b"enveloped-data"), (GCM, b"authEnveloped-data")])
def test_the_header_section_says_what_it_is(cipher: str, kind: bytes) -> None:
    header = envelope.compose(Protected(b"Subject: s\r\n", b"", b"\r\n"), cipher, b"_cryptomail_x")
    assert header.startswith(b"Subject: s\r\nX-Cryptomail: encrypted-at-delivery\r\n")
    assert b"Content-Type: application/pkcs7-mime; smime-type=" + kind + b";\r\n" in header
    assert header.endswith(b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")
