"""Tells whether there are secret keys in some octets, by the keys themselves and not by what is written on them. Pure.

A packet counts whose structure is that of a secret key and fits its length, wherever it begins. Octets that are not one
look like it about once in a terabyte. A key need not be whole: its beginning is enough.
"""

import re

from sieve_filter.mail import unwrap

# What says so itself: PEM and armor (RFC 7468, RFC 9580 section 6.2), also where a line is damaged; and the files in
# which gpg-agent keeps keys.
_LABEL = re.compile(
    rb"BEGIN\W{1,12}(?:[A-Z0-9]{1,10}\W{1,12}){0,3}(?:PRIVATE|SECRET)\W{1,12}KEY"
    rb"|\((?:\d\d?:)?(?:protected-|shadowed-)?private-key[ \t\r\n]*+\("
)

# RFC 9580 section 4.2: packet types 5 and 7, in all their lengths; section 5.5.2: version, time of making, algorithm.
# Lengths that are not told, or in part, are not allowed here, which is nothing to rely on.
# The first octet is matched by itself, because a search for it is fast.
_PACKET = re.compile(
    rb"[\x94-\x97\x9c-\x9f\xc5\xc7](?=(?:"
    rb"(?<=[\x94\x9c])(?P<one>.)|(?<=[\x95\x9d])(?P<two>..)|(?<=[\x96\x9e])(?P<four>.{4})|(?<=[\x97\x9f])"
    rb"|(?<=[\xc5\xc7])(?:(?P<short>[\x00-\xbf])|(?P<middle>[\xc0-\xdf].)|\xff(?P<long>.{4})|[\xe0-\xfe]))"
    rb"(?P<body>[\x02\x03].{6}[\x01-\x03]|[\x04-\x06].{4}[\x01-\x03\x10-\x16\x19-\x24]))",
    re.DOTALL,
)

# Section 9.1: how many integers (MPIs) the public and the secret key material have.
_INTEGERS = {1: (2, 4), 2: (2, 4), 3: (2, 4), 16: (3, 1), 17: (4, 1), 18: (1, 1), 19: (1, 1), 20: (3, 1), 22: (1, 1)}
_ON_CURVES = (18, 19, 22)
_ECDH = 18
# Octets of both where they are fixed: sections 5.5.5.7 to 5.5.5.10, and RFC 9980.
_OCTETS = {25: (32, 32), 26: (56, 56), 27: (32, 32), 28: (57, 57)}
_OCTETS |= {30: (1984, 64), 31: (2649, 89), 32: (32, 64), 33: (32, 64), 34: (64, 128), 35: (1216, 96), 36: (1624, 120)}
_VERSION_4 = (25, 26, 27, 28, 35)  # those of them that keys of version 4 may have
_MOST_BITS = 16_384
_CIPHERS = range(1, 14)  # section 9.3
_AEAD, _CFB, _OLD_CFB = 253, 254, 255  # section 3.7.2.1
_STRINGS_TO_KEYS = (0, 1, 3, 4)  # section 3.7.1
# GnuPG's own, for a secret that is somewhere else: a number for a digest and these letters follow.
_ELSEWHERE, _GNU = 101, int.from_bytes(b"GNU")


def found(data: bytes) -> bool:
    """Whether there is a secret key in `data`, plain, or encoded in ways that anybody can undo."""
    return any(_LABEL.search(one) or _has_packet(one) for one in unwrap.layers(data))


def _has_packet(data: bytes) -> bool:
    for match in _PACKET.finditer(data):
        start = match.start("body")
        size = _size(match)
        try:
            if _is_secret(_Reader(data, start), None if size is None else start + size):
                return True
        except IndexError:
            continue
    return False


def _size(match: re.Match[bytes]) -> int | None:
    """What a packet's header says of its length; None where it says nothing clear."""
    for name in ("one", "two", "four", "short", "long"):
        if match[name] is not None:
            return int.from_bytes(match[name])
    middle: bytes | None = match["middle"]
    return (middle[0] - 192 << 8) + middle[1] + 192 if middle else None


class _Reader:
    """Goes through octets; raises IndexError at their end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self.position = position

    def number(self, octets: int) -> int:
        self.skip(octets)
        return int.from_bytes(self._data[self.position - octets : self.position])

    def skip(self, octets: int) -> None:
        self.position += octets
        if self.position > len(self._data):
            raise IndexError

    def integers(self, count: int, exactly: bool) -> bool:
        """Go past so many MPIs (section 3.2). Returns whether they can be some.

        `exactly`: the first bit is where it says.
        Those of points and scalars on curves are written in several ways.
        """
        for _ in range(count):
            bits = self.number(2)
            if not 0 < bits <= _MOST_BITS:
                return False
            first = self.number(1)
            if exactly and first.bit_length() != (bits - 1) % 8 + 1:
                return False
            self.skip((bits + 7) // 8 - 1)
        return True


def _is_secret(reader: _Reader, end: int | None) -> bool:
    """Whether a secret key packet's body (section 5.5.3) begins there, that ends at `end` if that is known.

    Raises IndexError where the octets end before that can be told.
    """
    version = reader.number(1)
    reader.skip(4 if version > 3 else 6)
    algorithm = reader.number(1)
    told = reader.number(4) if version > 4 else None
    begin = reader.position
    if not _has_public(reader, version, algorithm) or (told is not None and reader.position - begin != told):
        return False
    usage = reader.number(1)
    if end is not None and reader.position >= end:
        return False
    if usage:
        # Of these, little else can be told: what is encrypted is hardly longer than it is in plain.
        if algorithm in _OCTETS and end is not None and not 0 <= end - reader.position - _OCTETS[algorithm][1] <= 100:
            return False
        return _is_encrypted(reader, version, usage)
    if version == 5 and (reader.number(1) != 0 or reader.number(4) == 0):  # LibrePGP's draft, section 5.5.3
        return False
    try:
        if not _has_secret(reader, algorithm):
            return False
    except IndexError:  # it is cut short
        return True
    return end is None or reader.position + (0 if version == 6 else 2) == end


def _has_public(reader: _Reader, version: int, algorithm: int) -> bool:
    if algorithm in _OCTETS:
        reader.skip(_OCTETS[algorithm][0])
        return version == 6 or algorithm in _VERSION_4
    if algorithm not in _INTEGERS:
        return False
    if algorithm in _ON_CURVES:
        curve = reader.number(1)
        if not 3 <= curve <= 16:
            return False
        reader.skip(curve)
    if not reader.integers(_INTEGERS[algorithm][0], algorithm not in _ON_CURVES):
        return False
    # Section 5.5.5.6: three octets, the first of which is 1, say how a key is derived.
    return algorithm != _ECDH or (reader.number(2) == 0x0301 and reader.number(2) > 0)


def _has_secret(reader: _Reader, algorithm: int) -> bool:
    if algorithm in _OCTETS:
        reader.skip(_OCTETS[algorithm][1])
        return True
    return reader.integers(_INTEGERS[algorithm][1], exactly=False)


def _is_encrypted(reader: _Reader, version: int, usage: int) -> bool:
    """Whether what follows says how a secret is encrypted, as it does behind that usage octet."""
    if usage not in (_AEAD, _CFB, _OLD_CFB):
        return version < 5 and usage in _CIPHERS
    if version > 4:
        reader.skip(1)
    cipher = reader.number(1)
    if usage == _AEAD and reader.number(1) not in (1, 2, 3):  # section 9.6
        return False
    if version == 6:
        reader.skip(1)
    kind = reader.number(1)
    if kind == _ELSEWHERE:
        return reader.number(4) & 0xFFFFFF == _GNU
    return cipher in _CIPHERS and kind in _STRINGS_TO_KEYS
