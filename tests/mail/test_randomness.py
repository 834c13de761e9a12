"""Random octets are told from text, all of them, and alike however they are cut."""

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.mail.randomness import Randomness
from tests.support.samples import noise

WINDOW = limits.RANDOM_WINDOW_OCTETS
PROSE = b"Meet me at noon, where the old road crosses the river. " * 30


def random(data: bytes, *sizes: int) -> bool:
    """The verdict on octets that come in pieces of these sizes, then the rest."""
    randomness = Randomness()
    for size in sizes:
        randomness.feed(data[:size])
        data = data[size:]
    randomness.feed(data)
    return randomness.finish()


STRETCHES = st.one_of(
    st.builds(noise, st.integers(0, 2_500), st.integers(0, 1_000)),
    st.integers(0, 60).map(lambda size: PROSE[:size]),
    st.integers(0, 60).map(lambda size: b"\xd0" * size),
    st.integers(0, 300).map(lambda size: bytes(range(128, 192)) * 5 + noise(size)),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(STRETCHES, max_size=6).map(b"".join), st.lists(st.integers(0, 3_000), max_size=8))
def test_the_verdict_does_not_depend_on_the_pieces(data: bytes, sizes: list[int]) -> None:
    assert random(data, *sizes) == random(data) == random(data, *[1] * len(data))


@pytest.mark.parametrize("before", [0, 1, 500, WINDOW - 31, WINDOW - 1, WINDOW, 3 * WINDOW - 16, 5_000])
@pytest.mark.parametrize("behind", [0, 1, WINDOW - 1, WINDOW, 5_000])
def test_a_piece_of_text_is_found_wherever_it_stands(before: int, behind: int) -> None:
    ascii_piece, other_piece = PROSE[: limits.ASCII_PIECE_OCTETS], "Встретимсявполдень".encode()[:36] + b"\xd0\xb0" * 6
    assert len(other_piece) == limits.OTHER_PIECE_OCTETS
    for piece in (ascii_piece, other_piece):
        data = noise(before) + piece + noise(behind, 2)
        for size in (1, 100, WINDOW, 10_000):
            assert not random(data, *[size] * (len(data) // size))


@pytest.mark.parametrize("start", range(0, 3 * WINDOW, 200))
def test_text_that_fills_a_window_in_short_pieces_is_found(start: int) -> None:
    mixed = b"".join(PROSE[at : at + 12] + noise(12, at) for at in range(0, 3 * WINDOW // 2, 12))
    assert not random(noise(start) + mixed + noise(5 * WINDOW - start, 2))


def test_few_octets_could_be_anything() -> None:
    assert all(random(bytes(size)) for size in range(21))
    assert random(b"")


@pytest.mark.parametrize("size", [24, 32, 48, 64])
def test_chance_exceeds_the_limit_once_in_ten_thousand_millions(size: int) -> None:
    """Exact, over all ways to divide so few octets among four quarters; with more octets the odds are smaller."""
    odds = 0.0
    for a in range(size + 1):
        for b in range(size - a + 1):
            for c in range(size - a - b + 1):
                counts = (a, b, c, size - a - b - c)
                if 4 * sum(count * count for count in counts) > (limits.RANDOM_CHI_SQUARE + size) * size:
                    odds += math.exp(math.lgamma(size + 1) - sum(math.lgamma(count + 1) for count in counts))
    assert odds / 4**size < 1e-10


def test_takes_linear_time() -> None:
    data = noise(1 << 20) * 10
    start = time.process_time()
    assert random(data, *[4_096] * (len(data) // 4_096))
    assert time.process_time() - start < 3
