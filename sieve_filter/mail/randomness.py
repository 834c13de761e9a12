"""Tells readable text from ciphertext by its octets, cheaply and as they come. Pure: bytes in, yes or no out.

Ciphertext looks like octets drawn at random; what people read does not, in any alphabet and encoding that mail knows.
Compressed data does look random, and so does text that is encrypted with a key that everybody has: that somebody can
decrypt it, or nobody else, is not what is tested here.

Three tests, over all octets, each with the odds that it takes random ones for text:

- In each window, the octets below 64, 128, 192 and 256 are counted, and chi-square (three degrees of freedom) tells how
  far they are from a quarter each. Random octets exceed the limit once in 10**12 windows of a KiB. Prose does if it is
  three tenths of a window or, base64 in place of octets and UTF-16 included, if it is all of it.
- There is no text in one piece: 32 octets of ASCII, or 48 of other alphabets. That is once in 10**13 octets.
- In each window of base64, as the message has it, small letters are not above their share by more than seven standard
  deviations, which is once in 10**12. They are where words are a fifth of it.
"""

from sieve_filter import limits

_WINDOW = limits.RANDOM_WINDOW_OCTETS
_HIGHEST = int.from_bytes(b"\x80" * _WINDOW)
_SECOND = int.from_bytes(b"\x40" * _WINDOW)

_PUNCTUATION = b"\t\n\r ,."
_YES, _NO = b"y", b"n"


def _alphabet(octets: bytes) -> bytes:
    """A table for bytes.translate that says of each octet whether it is one of these."""
    return bytes((_YES if octet in octets else _NO)[0] for octet in range(256))


# Alphabets, and how many of their octets follow each other only in text. NUL is half of UTF-16.
_PIECES = (
    (_alphabet(bytes(range(32, 127)) + b"\0\t\n\r"), _YES * limits.ASCII_PIECE_OCTETS),
    (_alphabet(bytes(range(128, 256)) + _PUNCTUATION), _YES * limits.OTHER_PIECE_OCTETS),
)
_OVERLAP = max(len(piece) for _, piece in _PIECES) - 1


class _Windows:
    """Looks at octets that come in pieces, however they are cut: in windows, the last of which ends where they end."""

    def __init__(self) -> None:
        self._held = b""  # the last window, once there was one, and what is not yet a whole one
        self._tested = 0  # octets of it that are in a window that was tested
        self._text = False

    def feed(self, octets: bytes) -> None:
        """Go on with the next octets."""
        if self._text:
            return
        data = self._held + octets
        start = self._tested
        while start + _WINDOW <= len(data) and not self._text:
            self._text = self._is_text(data[start : start + _WINDOW])
            start += _WINDOW
        if start > self._tested:
            self._text = self._text or self._has_piece(data[max(0, self._tested - _OVERLAP) : start])
            data = data[start - _WINDOW :]
            start = _WINDOW
        self._held = data
        self._tested = start

    def finish(self) -> bool:
        """Whether all of the octets could be random."""
        return not (self._text or self._is_text(self._held[-_WINDOW:]) or self._has_piece(self._held))

    def _is_text(self, window: bytes) -> bool:
        raise NotImplementedError

    def _has_piece(self, data: bytes) -> bool:
        return False


class Randomness(_Windows):
    """Looks at octets that must be random."""

    def _is_text(self, window: bytes) -> bool:
        """Whether chi-square is above the limit.

        With a quarter each expected, it is the sum of squares of three differences over the size: of octets with the
        highest bit and those without, the same for the second, and of octets where the two are equal and others.
        """
        number = int.from_bytes(window)
        size = len(window)
        highest = 2 * (number & _HIGHEST).bit_count() - size
        second = 2 * (number & _SECOND).bit_count() - size
        both = 2 * ((number ^ number >> 1) & _SECOND).bit_count() - size
        return highest * highest + second * second + both * both > limits.RANDOM_CHI_SQUARE * size

    def _has_piece(self, data: bytes) -> bool:
        return any(piece in data.translate(alphabet) for alphabet, piece in _PIECES)


class Letters(_Windows):
    """Looks at the base64 of octets that must be random, without white space: words can be written in its letters."""

    def _is_text(self, window: bytes) -> bool:
        """Whether there are too many small letters, which are 26 of the 64 characters, and most of any text.

        Of that alphabet, they alone have both the second bit and the third.
        """
        number = int.from_bytes(window)
        excess = 64 * (number & number << 1 & _SECOND).bit_count() - 26 * len(window)
        return excess > 0 and excess * excess > limits.RANDOM_LETTERS_SQUARE * len(window) * 26 * 38
