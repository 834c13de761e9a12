"""Reads ASN.1 values in DER (X.690 section 10): definite lengths in their shortest form; on request, in BER. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

INTEGER, BIT_STRING, OCTET_STRING, OID, SEQUENCE, SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
BOOLEAN, UTC_TIME, GENERALIZED_TIME = 0x01, 0x17, 0x18
CONTEXT = 0xA0
_END = b"\0\0"  # X.690 section 8.1.5


class Value(NamedTuple):
    """A value: its identifier octet, its `content`, and all of it."""

    identifier: int
    content: bytes
    raw: bytes


def values(data: bytes, *, ber: bool = False) -> Iterator[Value]:
    """The values that `data` is made of, one behind the other. Raises ValueError where it is not.

    In BER, lengths may have any form, and be indefinite (X.690 section 8.1.3).
    """
    position = 0
    while position < len(data):
        start = position
        length, position = _head(data, position, ber)
        end = _end(data, position) if length is None else position + length
        yield Value(data[start], data[position:end], data[start:end])
        position = end if length is not None else end + len(_END)


def only(data: bytes, identifier: int, *, ber: bool = False) -> Value:
    """The one value that `data` is. Raises ValueError where it is none, or not of that kind."""
    return expect(values(data, ber=ber), identifier, last=True)


def expect(rest: Iterator[Value], identifier: int, *, last: bool = False) -> Value:
    """The next of these values, which must be of that kind, and, if so asked, the last. Raises ValueError."""
    value = next(rest, None)
    if value is None or value.identifier != identifier or (last and next(rest, None) is not None):
        raise ValueError("it is not made as it should be")
    return value


def parts(value: Value, *, ber: bool = False) -> Iterator[Value]:
    """The values in a constructed one."""
    return values(value.content, ber=ber)


def dotted(octets: bytes) -> str:
    """An object identifier (X.690 section 8.19) in dotted form. Raises ValueError."""
    if not 0 < len(octets) <= 32 or octets[-1] >= 0x80:
        raise ValueError("an object identifier in it is malformed")
    numbers: list[int] = []
    number = 0
    for octet in octets:
        number = number << 7 | octet & 0x7F
        if octet < 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))


def _head(data: bytes, position: int, ber: bool) -> tuple[int | None, int]:
    """The length of the content of the value at `position`, None for indefinite, and where that begins.

    Raises ValueError; also where the content ends behind the end of `data`.
    """
    if len(data) - position < 2 or data[position] & 0x1F == 0x1F:
        raise ValueError("it is not DER")
    indefinite = data[position] & 0x20 and data[position + 1] == 0x80
    length = data[position + 1]
    position += 2
    if ber and indefinite:
        return None, position
    if length >= 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or count > len(data) - position:
            raise ValueError("it is not DER")
        length = int.from_bytes(data[position : position + count])
        if not ber and (length < 0x80 or data[position] == 0):
            raise ValueError("it is not DER")
        position += count
    if length > len(data) - position:
        raise ValueError("a value in it is cut off")
    return length, position


def _end(data: bytes, position: int) -> int:
    """Where the content ends that begins at `position`, and is of indefinite length. Raises ValueError."""
    depth = 1
    while True:
        if data[position : position + 2] == _END:
            depth -= 1
            if not depth:
                return position
            position += len(_END)
            continue
        length, position = _head(data, position, ber=True)
        if length is None:
            depth += 1
        else:
            position += length
