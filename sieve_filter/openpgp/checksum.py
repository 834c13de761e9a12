"""The checksum of an armor (RFC 9580 section 6.1). Pure.

anycrc, in C, takes a hundredth of the time. Loading it takes as long as a message, so processes that last do it once,
and others for large data only. Where it is not installed, the same comes out.
"""

from collections.abc import Callable
from functools import lru_cache

_INIT, _GENERATOR = 0xB704CE, 0x1864CFB
# What is worked on at once: less takes longer, and so does more.
_PIECE_OCTETS = 1 << 16
# Data for which loading the library pays.
_LARGE_OCTETS = 1_000_000


class Checksum:
    """Of octets that come in pieces."""

    def __init__(self) -> None:
        self._value = _INIT
        self._held = bytearray()
        self._fed = 0

    def feed(self, octets: bytes) -> None:
        self._fed += len(octets)
        if self._fed > _LARGE_OCTETS:
            load()
        self._held += octets
        if len(self._held) >= _PIECE_OCTETS:
            self.finish()

    def finish(self) -> int:
        """The checksum so far."""
        self._value = _calculate(bytes(self._held), self._value)
        self._held.clear()
        return self._value


def load() -> None:
    """Take anycrc from here on, where it is installed."""
    global _calculate
    if _calculate is not _folded:
        return
    try:
        from anycrc import Model  # type: ignore[import-untyped]
    except ImportError:
        return
    _calculate = Model("CRC24-OPENPGP").calc


def _folded(octets: bytes, value: int) -> int:
    """The checksum of `octets` behind others that have the checksum `value`.

    It is the remainder of all octets, read as a polynomial over GF(2), after division by the generator. The work is
    shifts of long integers, many times as fast as a table look-up for each octet. Folding halves the polynomial until
    it is short: with h for its upper part, h * x**k has the remainder of h * (x**k mod generator).
    """
    rest = value << 8 * len(octets) ^ int.from_bytes(octets) << 24
    width = 16
    while width * 2 < rest.bit_length():
        width *= 2
    while width >= 16:
        upper, rest = rest >> width, rest & (1 << width) - 1
        power = _power(width)
        for bit in range(24):
            if power >> bit & 1:
                rest ^= upper << bit
        width //= 2
    return _remainder(rest)


@lru_cache(maxsize=64)
def _power(width: int) -> int:
    """The remainder of x**width, where that is 16 times a power of two."""
    # Squaring over GF(2) puts a zero between the bits, as if the binary digits were digits in base 4.
    return 1 << width if width == 16 else _remainder(int(f"{_power(width // 2):b}", 4))


def _remainder(polynomial: int) -> int:
    while (excess := polynomial.bit_length() - 25) >= 0:
        polynomial ^= _GENERATOR << excess
    return polynomial


_calculate: Callable[[bytes, int], int] = _folded
