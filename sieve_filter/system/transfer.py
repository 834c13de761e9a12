"""What a process of another user tells its parent: values of a declared type, in JSON. Nothing of it can run. Pure.

Whoever runs that process could send anything at all. So the reader goes by the type that it expects, which the writer
cannot choose; every length is limited before anything is read; and what does not fit is an error.

A frame is two lengths of 4 octets, JSON, and the octets of all `bytes` in it, one behind the other; in the JSON are
their lengths. A tuple, list, set or NamedTuple is an array, a dict an array of pairs, a member of an Enum its value,
and what may be of several types an array of a number (which of these) and the value.
"""

import functools
import json
import struct
import types
import typing
from collections.abc import Callable
from enum import EnumType
from typing import Any, NamedTuple, Union

from sieve_filter import errors, limits
from sieve_filter.errors import CryptomailError

HEAD = struct.Struct("!II")

_PLAIN = (str, int, bool, type(None))
_ERRORS = {
    name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, CryptomailError)
}


class Failure(NamedTuple):
    """An error of ours, instead of a result: the name of its class, and its text."""

    name: str
    text: str


def returned(work: Callable[..., Any]) -> Any:
    """The type of what the function `work` says that it returns; of a functools.partial, the function in it."""
    while isinstance(work, functools.partial):
        work = work.func
    return typing.get_type_hints(work)["return"]


def pack(result: Any, kind: Any) -> bytes:
    """A frame with `result`, which is of the type `kind`, or a CryptomailError.

    Raises TypeError where it is not, ValueError where it is larger than a frame may be.
    """
    if isinstance(result, CryptomailError):
        result = Failure(type(result).__name__, str(result)[: limits.RESULT_ERROR_CHARACTERS])
    blobs: list[bytes] = []
    text = json.dumps(_plain(result, _or_failure(kind), blobs), separators=(",", ":")).encode("ascii")
    content = b"".join(blobs)
    if len(text) > limits.RESULT_TEXT_OCTETS or len(content) > limits.RESULT_BYTES_OCTETS:
        raise ValueError("too large")
    return HEAD.pack(len(text), len(content)) + text + content


def size(head: bytes) -> int:
    """How many octets follow the HEAD of a frame. Raises ValueError where it says more than there may be."""
    text, content = HEAD.unpack(head)
    if text > limits.RESULT_TEXT_OCTETS or content > limits.RESULT_BYTES_OCTETS:
        raise ValueError("too large")
    return int(text + content)


def unpack(frame: bytes, kind: Any) -> Any:
    """The value of the type `kind` in a whole frame, or the CryptomailError in it. Raises ValueError for all else."""
    text = HEAD.unpack_from(frame)[0]
    content = _Octets(frame, HEAD.size + text)
    try:
        plain = json.loads(frame[HEAD.size : HEAD.size + text].decode("ascii"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    value = _value(plain, _or_failure(kind), content)
    content.check()
    if not isinstance(value, Failure):
        return value
    if value.name not in _ERRORS:
        raise ValueError("there is no such error")
    return _ERRORS[value.name](value.text[: limits.RESULT_ERROR_CHARACTERS])


class _Octets:
    """The octets behind the JSON, of which one piece is taken after the other."""

    def __init__(self, frame: bytes, position: int) -> None:
        self._frame = frame
        self._position = position

    def take(self, count: int) -> bytes:
        """The next `count` octets. Raises ValueError where there are fewer."""
        if not 0 <= count <= len(self._frame) - self._position:
            raise ValueError("there are fewer octets")
        piece = self._frame[self._position : self._position + count]
        self._position += count
        return piece

    def check(self) -> None:
        """Raise ValueError where some are left."""
        if self._position != len(self._frame):
            raise ValueError("there are more octets")


def _or_failure(kind: Any) -> Any:
    return Union[kind, Failure]  # noqa: UP007 - `|` does not take None


def _plain(value: Any, kind: Any, blobs: list[bytes]) -> Any:
    """`value`, which is of the type `kind`, as JSON has it; its octets are put behind `blobs`."""
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        for number, arm in enumerate(arms):
            if type(value) is (typing.get_origin(arm) or arm):
                return [number, _plain(value, arm, blobs)]
        raise TypeError(f"a {type(value).__name__} is none of {kind}")
    if type(value) is not (origin or kind):
        raise TypeError(f"a {type(value).__name__} is no {kind}")
    if kind in _PLAIN:
        return value
    if _is_enum(kind):
        return value.value
    if kind is bytes:
        blobs.append(value)
        return len(value)
    if origin is dict:
        return [[_plain(key, arms[0], blobs), _plain(one, arms[1], blobs)] for key, one in value.items()]
    if origin in (list, frozenset) or arms[1:] == (...,):
        return [_plain(one, arms[0], blobs) for one in value]
    return [_plain(one, part, blobs) for one, part in zip(value, _parts(kind), strict=True)]


def _value(plain: Any, kind: Any, content: _Octets) -> Any:
    """What `_plain` made `plain` of. Raises ValueError where that cannot be of the type `kind`."""
    origin, arms = typing.get_origin(kind), typing.get_args(kind)
    if kind in _PLAIN:
        if type(plain) is not kind:
            raise ValueError(f"no {kind.__name__}")
        return plain
    if _is_enum(kind):
        return kind(_value(plain, str, content))
    if kind is bytes:
        return content.take(_value(plain, int, content))
    if type(plain) is not list:
        raise ValueError("no array")
    if origin in (Union, types.UnionType):
        number, one = _exactly(plain, 2)
        if type(number) is not int or not 0 <= number < len(arms):
            raise ValueError("no type of these")
        return _value(one, arms[number], content)
    if origin is dict:
        pairs = (_exactly(one, 2) for one in plain)
        return _without_doubles({_value(a, arms[0], content): _value(b, arms[1], content) for a, b in pairs}, plain)
    if origin is frozenset:
        return _without_doubles(frozenset(_value(one, arms[0], content) for one in plain), plain)
    if origin is list or arms[1:] == (...,):
        return origin(_value(one, arms[0], content) for one in plain)
    parts = _parts(kind)
    values = (_value(one, part, content) for one, part in zip(_exactly(plain, len(parts)), parts, strict=True))
    return tuple(values) if origin is tuple else kind(*values)


def _is_enum(kind: Any) -> bool:
    """Whether it is an Enum, whose values are all text."""
    return isinstance(kind, EnumType)


@functools.cache
def _parts(kind: Any) -> tuple[Any, ...]:
    """The types of what is in a NamedTuple, or in a tuple of a certain length."""
    if typing.get_origin(kind) is tuple:
        return typing.get_args(kind)
    hints = typing.get_type_hints(kind)
    return tuple(hints[name] for name in kind._fields)


def _exactly(plain: Any, count: int) -> list[Any]:
    if type(plain) is not list or len(plain) != count:
        raise ValueError(f"not {count} of them")
    return plain


def _without_doubles(made: Any, plain: list[Any]) -> Any:
    if len(made) != len(plain):
        raise ValueError("one of them is there twice")
    return made
