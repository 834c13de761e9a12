"""What an owner has asked for and not confirmed yet, in a file beside their keys; and the codes that confirm it.

A code of six digits goes to the owner in a message that is encrypted to the keys that it is about. Whoever gives it
back can read what is encrypted to them. A stolen password can ask for codes, and guess: so there are few of both in a
day.
What is in the file weakens nothing by itself: where it is damaged, nothing waits.
"""

import base64
import json
import os
import secrets
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sieve_filter import limits
from sieve_filter.errors import PlaceError, RefusedKeyError
from sieve_filter.keys import beside

FILE = "cryptomail-requests"
_DAY = 86_400
_T = TypeVar("_T")

ADD, REMOVE, READ, NEW, CHOOSE = "add", "remove", "read", "new", "choose"


class Request(NamedTuple):
    """One that waits for its code until `until`, in seconds since 1970.

    ADD sets up the certificates `packets`; REMOVE takes away the key `fingerprint`, at `until` without a code too; READ
    only says that the owner could read a test message. NEW is none, but says that the key `fingerprint` was set up
    without a code: until its owner could read a test message, it can be removed at once, so that nobody is locked out.
    CHOOSE has for its `packets` what is to be in the file of choices.
    """

    kind: str
    code: str
    until: int
    fingerprint: str = ""
    packets: bytes = b""


class Book(NamedTuple):
    """What is in the file: the requests; when codes were made, and wrong ones given, in the last 24 hours; and when the
    owner last confirmed that they can read a test message, 0 for never. Times are in seconds since 1970.
    """

    requests: tuple[Request, ...] = ()
    made: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    read: int = 0


def book(file: Path, now: int) -> Book:
    """What waits now. Raises PlaceError where that cannot be read."""
    return _with(file, now, lambda one: (one, one)) if _there(file) else Book()


def add(file: Path, request: Request, now: int) -> Request:
    """Have a request wait, with a new code, in the place of one for the same; of one that removes a key, the time at
    which it does stays. Raises RefusedKeyError where there were too many codes today, PlaceError.
    """

    def change(one: Book) -> tuple[Book, Request]:
        if len(one.made) >= limits.CODES_A_DAY:
            raise RefusedKeyError("there were too many test messages and requests today: try again tomorrow")
        same = [old for old in one.requests if (old.kind, old.fingerprint) == (request.kind, request.fingerprint)]
        others = tuple(old for old in one.requests if old not in same)
        taken = {old.code for old in others}
        code = next(code for code in iter(_code, "") if code not in taken)
        until = min((old.until for old in same), default=request.until) if request.kind == REMOVE else request.until
        new = request._replace(code=code, until=until)
        return one._replace(requests=(*others, new), made=(*one.made, now)), new

    return _with(file, now, change)


def confirm(file: Path, code: str, now: int) -> Request:
    """The request with that code, which waits no more. Raises RefusedKeyError where there is none, PlaceError."""

    def change(one: Book) -> tuple[Book, Request | None]:
        if len(one.wrong) >= limits.WRONG_CODES_A_DAY:
            raise RefusedKeyError("there were too many wrong codes today: try again tomorrow")
        found = next((old for old in one.requests if old.code and secrets.compare_digest(old.code, code)), None)
        if found is None:
            return one._replace(wrong=(*one.wrong, now)), None
        ended = [found] if found.kind == REMOVE else [found, *(old for old in one.requests if old.kind == NEW)]
        rest = tuple(old for old in one.requests if old not in ended)
        return one._replace(requests=rest, read=one.read if found.kind == REMOVE else now), found

    confirmed = _with(file, now, change)
    if confirmed is None:
        raise RefusedKeyError("this is not the code of any request that waits; a code is good for a day, and once")
    return confirmed


def note_new(file: Path, fingerprints: Iterable[str], now: int) -> None:
    """Note that these keys are set up now without a code. Raises PlaceError."""
    fresh = tuple(Request(NEW, "", now + limits.CODE_SECONDS, one) for one in fingerprints)
    if fresh:
        _with(file, now, lambda one: (one._replace(requests=(*one.requests, *fresh)), None))


def overdue(file: Path, now: int) -> list[str]:
    """The fingerprints of the keys whose time has come to be removed; they wait no more. Raises PlaceError."""

    def change(one: Book) -> tuple[Book, list[str]]:
        come = [old for old in one.requests if old.kind == REMOVE and old.until <= now]
        return one._replace(requests=tuple(old for old in one.requests if old not in come)), [
            old.fingerprint for old in come
        ]

    return _with(file, now, change) if _there(file) else []


def keep(file: Path, now: int, fingerprints: Container[str] | None = None) -> list[str]:
    """Have no key removed, or none of these. Returns the fingerprints of those that waited. Raises PlaceError."""

    def change(one: Book) -> tuple[Book, list[str]]:
        kept = [
            old
            for old in one.requests
            if old.kind == REMOVE and (fingerprints is None or old.fingerprint in fingerprints)
        ]
        return one._replace(requests=tuple(old for old in one.requests if old not in kept)), [
            old.fingerprint for old in kept
        ]

    return _with(file, now, change) if _there(file) else []


def _there(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise PlaceError(f"cannot use {file}: {error.strerror}") from error


def _code() -> str:
    return f"{secrets.randbelow(1_000_000):06}"


def _with(file: Path, now: int, change: Callable[[Book], tuple[Book, _T]]) -> _T:
    """What `change` returns beside the new book, which takes the old one's place in the file."""
    with beside.opened(file) as descriptor:
        old = _read(descriptor, now)
        new, result = change(old)
        if new != old:
            _write(descriptor, new)
        return result


def _read(descriptor: int, now: int) -> Book:
    """The book, without what has expired; an empty one where the file is damaged."""
    try:
        content = json.loads(os.pread(descriptor, limits.REQUESTS_OCTETS, 0) or b"{}")
        requests = tuple(_request(one) for one in content.get("requests", []))
        made, wrong = (tuple(_number(one) for one in content.get(name, [])) for name in ("made", "wrong"))
        read = _number(content.get("read", 0))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return Book()
    live = tuple(one for one in requests if one.kind == REMOVE or one.until > now)
    # A clock that was wrong for a while shuts nobody out: times to come do not count.
    made, wrong = (tuple(one for one in times if now - _DAY < one <= now) for times in (made, wrong))
    return Book(live, made, wrong, read)


def _request(one: dict[str, Any]) -> Request:
    kind, code, fingerprint, packets = (one[name] for name in ("kind", "code", "fingerprint", "packets"))
    if not all(isinstance(text, str) and text.isascii() for text in (kind, code, fingerprint, packets)):
        raise ValueError("what should be text is not")
    return Request(kind, code, _number(one["until"]), fingerprint, base64.b64decode(packets))


def _number(value: object) -> int:
    if type(value) is not int:
        raise ValueError("what should be a number is not")
    return value


def _write(descriptor: int, one: Book) -> None:
    requests = [old._asdict() | {"packets": base64.b64encode(old.packets).decode()} for old in one.requests]
    content = json.dumps(one._asdict() | {"requests": requests}).encode()
    if len(content) > limits.REQUESTS_OCTETS:
        raise RefusedKeyError("its keys are too large to wait for a code: set them up one by one")
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    except OSError as error:
        raise PlaceError(f"cannot note what was asked for: {error.strerror}") from error
