"""Tells whether there are secret keys in some octets, by the keys themselves and not by what is written on them. Pure.

A packet counts whose structure is that of a secret key and fits its length, wherever it begins. Noise looks like it
less than once in fifty terabytes; encodings that are undone by mistake make megabytes of it from a message. A key need
not be whole: its beginning is enough.
"""

import re

# What says so itself: PEM and armor (RFC 7468, RFC 9580 section 6.2), also where a line is damaged; and the files in
# which gpg-agent keeps keys.
_LABEL = re.compile(
    rb"BEGIN\W{1,12}(?:[A-Z0-9]{1,10}\W{1,12}){0,3}(?:PRIVATE|SECRET)\W{1,12}KEY"
    rb"|\((?:\d\d?:)?(?:protected-|shadowed-)?private-key[ \t\r\n]*+\("
)

# RFC 9580 section 4.2: packet types 5 and 7, in all their lengths; section 5.5.2: version, time of making, algorithm.
# Lengths that are not told, or in part, are not allowed here, which is nothing to rely on: a key has to say more then.
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
_RSA = (1, 2, 3)
_ECDH = 18
_ON_CURVES = (_ECDH, 19, 22)
# Octets of both where they are fixed: sections 5.5.5.7 to 5.5.5.10, and RFC 9980.
_OCTETS = {25: (32, 32), 26: (56, 56), 27: (32, 32), 28: (57, 57)}
_OCTETS |= {30: (1984, 64), 31: (2649, 89), 32: (32, 64), 33: (32, 64), 34: (64, 128), 35: (1216, 96), 36: (1624, 120)}
_VERSION_4 = (25, 26, 27, 28, 35)  # those of them that keys of version 4 may have
_MODULUS_BITS = range(384, 16_385)  # PGP 2 made the shortest
_EXPONENT_BITS = range(1, 257)  # the public one of RSA: FIPS 186-5, section 5.4
_POINT_BITS = range(112, 1_201)
_CURVES = (0x2A, 0x2B, 0x60)  # what an object identifier of a curve begins with (section 9.2): 1.2, 1.3 or 2.16
_CIPHERS = range(1, 14)  # section 9.3
_SHORT_BLOCKS = range(1, 5)  # those of them that encrypt 8 octets at a time, not 16
_HASHES = range(1, 15)  # section 9.5
_AEAD, _CFB, _OLD_CFB = 253, 254, 255  # section 3.7.2.1
_NONCES = {1: 16, 2: 15, 3: 12}  # octets of AEAD's (section 9.6)
_CHECKS = {_AEAD: 16, _CFB: 20, _OLD_CFB: 2}  # octets that tell whether it was decrypted well
# Section 3.7.1: what makes keys of strings, and how many octets it has behind a digest's number; Argon2 has no such.
_HASHED, _ARGON2, _ARGON2_OCTETS = {0: 0, 1: 8, 3: 9}, 4, 19
# GnuPG's own, for a secret that is somewhere else: a number for a digest and these letters follow.
_ELSEWHERE, _GNU = 101, int.from_bytes(b"GNU")


def found(data: bytes) -> bool:
    """Whether there is a secret key in `data`, in these octets as they are."""
    return _LABEL.search(data) is not None or _has_packet(data)


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

    def is_integer(self, allowed: range, exactly: bool) -> bool:
        """Go past an MPI (section 3.2). Returns whether it can be one of so many bits.

        `exactly`: the first bit is where it says.
        Those of points and scalars on curves are written in several ways.
        """
        bits = self.number(2)
        if bits not in allowed:
            return False
        first = self.number(1)
        if exactly and first.bit_length() != (bits - 1) % 8 + 1:
            return False
        self.skip((bits + 7) // 8 - 1)
        return True

    def is_checksum(self, begin: int) -> bool:
        """Whether the next two octets are the sum of all those from `begin` on, or are missing."""
        told = self._data[self.position : self.position + 2]
        return len(told) < 2 or sum(self._data[begin : self.position]) & 0xFFFF == int.from_bytes(told)


def _is_secret(reader: _Reader, end: int | None) -> bool:
    """Whether a secret key packet's body (section 5.5.3) begins there, that ends at `end` if that is known.

    Raises IndexError where the octets end before that can be told.
    """
    version = reader.number(1)
    reader.skip(4 if version > 3 else 6)
    algorithm = reader.number(1)
    told = reader.number(4) if version > 4 else None
    begin = reader.position
    if not _has_public(reader, version, algorithm):
        return False
    public = reader.position - begin
    if told is not None and public != told:
        return False
    if version < 5 and algorithm in _OCTETS and end is None:  # too little is left that could tell it from noise
        return False
    usage = reader.number(1)
    allowed = _secret_octets(algorithm, public)
    if usage in _CHECKS:
        return _has_protection(reader, version, usage, allowed, end)
    if usage:
        # A cipher by itself: that was over before there were keys on curves.
        if usage not in _CIPHERS or version > 4 or algorithm >= _ECDH or end is None:
            return False
        return end - reader.position - _vector_octets(usage) - _CHECKS[_OLD_CFB] in allowed
    return _has_plain(reader, version, algorithm, allowed, end)


def _has_public(reader: _Reader, version: int, algorithm: int) -> bool:
    if algorithm in _OCTETS:
        reader.skip(_OCTETS[algorithm][0])
        return version == 6 or algorithm in _VERSION_4
    if algorithm not in _INTEGERS:
        return False
    if algorithm in _ON_CURVES:
        octets = reader.number(1)
        if not 3 <= octets <= 16 or reader.number(1) not in _CURVES:
            return False
        reader.skip(octets - 1)
        if not reader.is_integer(_POINT_BITS, exactly=False):
            return False
        # Section 5.5.5.6: three octets, the first of which is 1, say how a key is derived.
        return algorithm != _ECDH or (reader.number(2) == 0x0301 and reader.number(2) > 0)
    begin = reader.position
    if not reader.is_integer(_MODULUS_BITS, exactly=True):
        return False
    # Nothing is longer than the modulus.
    others = _EXPONENT_BITS if algorithm in _RSA else range(1, 8 * (reader.position - begin - 2) + 1)
    return all(reader.is_integer(others, exactly=True) for _ in range(_INTEGERS[algorithm][0] - 1))


def _secret_octets(algorithm: int, public: int) -> range:
    """How many octets of secret material there may be where there are so many of public."""
    if algorithm in _OCTETS:
        return range(_OCTETS[algorithm][1], _OCTETS[algorithm][1] + 1)
    # Those of RSA, d, p, q and u, are two and a half times as long as n.
    return range(public // 2, 3 * public + 1) if algorithm in _RSA else range(3, public + 1)


def _vector_octets(cipher: int) -> int:
    """How many octets the initialization vector has, which is as long as a block."""
    return 8 if cipher in _SHORT_BLOCKS else 16


def _has_protection(reader: _Reader, version: int, usage: int, allowed: range, end: int | None) -> bool:
    """Whether what follows says how a secret is encrypted, as it does behind that usage octet."""
    if version > 4:
        reader.skip(1)
    cipher = reader.number(1)
    mode = reader.number(1) if usage == _AEAD else 0
    if version == 6:
        reader.skip(1)
    kind = reader.number(1)
    if kind == _ELSEWHERE:
        return reader.number(4) & 0xFFFFFF == _GNU
    if cipher not in _CIPHERS or (usage == _AEAD and mode not in _NONCES):
        return False
    if kind == _ARGON2:
        if usage != _AEAD:  # section 3.7.1.4
            return False
        reader.skip(_ARGON2_OCTETS)
    else:
        if kind not in _HASHED or reader.number(1) not in _HASHES:
            return False
        reader.skip(_HASHED[kind])
    if end is None or version > 4:
        return True
    vector = _NONCES[mode] if usage == _AEAD else _vector_octets(cipher)
    return end - reader.position - vector - _CHECKS[usage] in allowed


def _has_plain(reader: _Reader, version: int, algorithm: int, allowed: range, end: int | None) -> bool:
    """Whether a secret follows that is not encrypted."""
    if version == 5 and (reader.number(1) != 0 or reader.number(4) == 0):  # LibrePGP's draft, section 5.5.3
        return False
    begin = reader.position
    behind = 0 if version == 6 else 2
    if end is not None and end - begin - behind not in allowed:
        return False
    fixed = algorithm in _OCTETS
    bits = range(1, 8 * allowed.stop)
    try:
        if fixed:
            reader.skip(_OCTETS[algorithm][1])
        elif not all(reader.is_integer(bits, exactly=False) for _ in range(_INTEGERS[algorithm][1])):
            return False
    except IndexError:  # it is cut short
        return version > 4 or not fixed
    # Where little else tells it from noise, the checksum has to.
    if version < 5 and (fixed or end is None) and not reader.is_checksum(begin):
        return False
    return end is None or reader.position + behind == end
