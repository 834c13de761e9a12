"""S/MIME encryption is told from signatures, compression, and whatever only looks like it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.smime.cms import COMPRESSED_DATA, ENVELOPED_DATA, SIGNED_DATA, content_type, enveloped
from tests.support.asn1 import (
    AES,
    AUTH_ENVELOPED,
    CONTENT,
    DATA,
    ENVELOPED,
    RECIPIENT,
    RECIPIENTS,
    VERSION,
    ber,
    der,
    info,
)
from tests.support.samples import Smime, smime

__all__ = ["smime"]


MESSAGE = info(VERSION, RECIPIENTS, CONTENT)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MESSAGE, id="smallest"),
        pytest.param(info(VERSION, der(0xA0, AES), RECIPIENTS, CONTENT, der(0xA1, AES)), id="optional-fields"),
        pytest.param(info(VERSION, der(0x31, RECIPIENT, RECIPIENT), CONTENT), id="two-recipients"),
        pytest.param(info(VERSION, der(0x31, der(0xA3, VERSION, AES)), CONTENT), id="password"),
        pytest.param(info(VERSION, RECIPIENTS, CONTENT, der(0x04, bytes(16)), kind=AUTH_ENVELOPED), id="authenticated"),
        pytest.param(
            ber(
                0x30,
                ENVELOPED,
                ber(0xA0, ber(0x30, VERSION, RECIPIENTS, ber(0x30, DATA, AES, ber(0xA0, der(0x04, b"xy"))))),
            ),
            id="indefinite-lengths",
        ),
        pytest.param(
            info(VERSION, ber(0x31, ber(0x30, VERSION, ber(0x30, ber(0x30)))), CONTENT), id="nested-indefinite"
        ),
    ],
)
def test_enveloped_data_is_recognised(data: bytes) -> None:
    assert enveloped(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"Hi!", id="text"),
        pytest.param(MESSAGE + b"\n", id="line-end-behind"),
        pytest.param(MESSAGE + b"Meet me at noon", id="text-behind"),
        pytest.param(MESSAGE[:-1], id="cut"),
        pytest.param(info(VERSION, RECIPIENTS, CONTENT, kind=DATA), id="data"),
        pytest.param(info(VERSION, der(0x31), CONTENT), id="no-recipient"),
        pytest.param(info(VERSION, der(0x31, b"\x0c\x03Hi!"), CONTENT), id="text-for-recipient"),
        pytest.param(info(VERSION, der(0x31, der(0x30)), CONTENT), id="empty-recipient"),
        pytest.param(info(VERSION, RECIPIENTS), id="no-content-info"),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, AES)), id="no-content"),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, AES, der(0x80))), id="empty-content"),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, AES, ber(0xA0))), id="empty-content-in-pieces"),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, AES, ber(0xA0, b"\x0c\x03Hi!"))), id="text-for-piece"),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, der(0x30), der(0x80, b"x"))), id="no-algorithm"),
        pytest.param(info(VERSION, RECIPIENTS, CONTENT, b"\x0c\x03Hi!"), id="text-in-the-end"),
        pytest.param(info(RECIPIENTS, CONTENT), id="no-version"),
        pytest.param(info(VERSION, RECIPIENTS, CONTENT, kind=AUTH_ENVELOPED), id="no-authentication-code"),
        pytest.param(b"\x30\x80" + MESSAGE[2:], id="no-end-of-contents"),
        pytest.param(b"\x30\xff" + MESSAGE[2:], id="reserved-length"),
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    assert not enveloped(data)


def test_the_content_type_is_told_whatever_follows() -> None:
    assert content_type(der(0x30, ENVELOPED)) == ENVELOPED_DATA
    assert content_type(b"\x30\x80" + ENVELOPED) == ENVELOPED_DATA
    assert content_type(der(0x30, b"\x06\x03\x55\x04\x03")) == "2.5.4.3"
    assert content_type(b"Hi!") is None
    assert content_type(der(0x30, b"\x06\x01\x80")) is None


@pytest.mark.parametrize("options", [[], ["-stream"], ["-aes-256-cbc"], ["-keyid"], ["-camellia128"]])
@pytest.mark.parametrize("size", [1, 5_000, 200_000])
def test_what_openssl_encrypts_is_recognised(smime: Smime, options: list[str], size: int) -> None:
    output = smime.encrypted(*options, data=bytes(size))
    assert enveloped(output)
    assert not enveloped(output + b"\n")


def test_what_openssl_encrypts_with_a_password_is_recognised(smime: Smime) -> None:
    output = smime.cms("-encrypt", "-aes128", "-outform", "DER", "-pwri_password", "secret", data=b"x")
    assert enveloped(output)


@pytest.mark.parametrize("options", [[], ["-nodetach"], ["-nodetach", "-stream"]])
def test_what_openssl_signs_is_not_encrypted(smime: Smime, options: list[str]) -> None:
    output = smime.signed(*options)
    assert content_type(output) == SIGNED_DATA
    assert not enveloped(output)


def test_data_that_is_not_ciphertext_is_not_encrypted(smime: Smime) -> None:
    assert not enveloped(smime.cms("-data_create", "-outform", "DER"))
    assert not enveloped(smime.cms("-digest_create", "-outform", "DER"))
    assert not enveloped(info(VERSION, AES, CONTENT, kind=bytes.fromhex("060b2a864886f70d0109100109")))
    assert content_type(info(kind=bytes.fromhex("060b2a864886f70d0109100109"))) == COMPRESSED_DATA


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda data: MESSAGE[:60] + data))
def test_no_octets_at_all_raise_an_error(data: bytes) -> None:
    enveloped(data)
    content_type(data)


@given(st.integers(0, len(MESSAGE) - 1), st.binary(min_size=1, max_size=50))
def test_a_message_cut_or_continued_is_not_encrypted(length: int, tail: bytes) -> None:
    assert not enveloped(MESSAGE[:length])
    assert not enveloped(MESSAGE + tail)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x30\x80" * 5_000_000, id="nested"),
        pytest.param(info(VERSION, ber(0x31, b"\x30\x80" * 5_000_000), CONTENT), id="nested-recipients"),
        pytest.param(info(VERSION, der(0x31, RECIPIENT * 5_000), CONTENT) + b"x", id="recipients"),
        pytest.param(
            info(VERSION, der(0x31, der(0x30, VERSION, b"\x30\x00" * 5_000_000)), CONTENT), id="values-in-a-recipient"
        ),
        pytest.param(
            info(VERSION, RECIPIENTS, der(0x30, DATA, AES, ber(0xA0, b"\x04\x01x" * 5_000_000))), id="pieces-of-content"
        ),
        pytest.param(info(VERSION, RECIPIENTS, der(0x30, DATA, AES, der(0x80, bytes(20_000_000)))) + b"x", id="20-mb"),
    ],
)
def test_takes_linear_time(data: bytes) -> None:
    start = time.process_time()
    assert not enveloped(data)
    assert time.process_time() - start < 3


def test_more_values_than_the_limit_are_not_looked_at() -> None:
    pieces = ber(0xA0, b"\x04\x01x" * limits.CMS_VALUES)
    assert not enveloped(info(VERSION, RECIPIENTS, der(0x30, DATA, AES, pieces)))
