"""Encodings are undone to the last octet, and as far as they go where they are damaged."""

import base64
import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable

import pytest

from sieve_filter.mail import unwrap
from tests.support.samples import noise


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("octets", [99, 100, 101])
def test_base64_is_read_to_its_last_octet(octets: int, encode: Callable[[bytes], bytes]) -> None:
    data = noise(octets)
    assert data in unwrap.layers(encode(data))
    assert data in unwrap.layers(encode(data).rstrip(b"="))


@pytest.mark.parametrize("compress", [bz2.compress, gzip.compress, lzma.compress, zlib.compress])
def test_what_is_before_damage_in_compressed_data_is_kept(compress: Callable[[bytes], bytes]) -> None:
    text = noise(400).hex().encode()
    damaged = compress(text)[:-1] + b"?"
    assert any(text[:700] in layer for layer in unwrap.layers(damaged))
