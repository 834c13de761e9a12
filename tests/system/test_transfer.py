"""What a process of another user may tell: all that is declared comes through, and nothing else does."""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sieve_filter import errors, limits
from sieve_filter.cli import keys_import
from sieve_filter.delivery import inventory
from sieve_filter.discovery import lookup
from sieve_filter.enrolment import service
from sieve_filter.errors import CryptomailError
from sieve_filter.keys import changes, x509_changes
from sieve_filter.keys.outcome import Status
from sieve_filter.notify import reminders
from sieve_filter.openssl import runner as openssl
from sieve_filter.system import transfer

# Everything that is done in another user's process, and so every type that comes from one.
WORK: list[Callable[..., Any]] = [
    keys_import._vet,
    keys_import._set_up,
    service.set_up,
    service.set_up_certificates,
    x509_changes.vet,
    openssl.certificates,
    inventory.export_smime,
    service.remove,
    service.send_trial,
    changes.remove,
    inventory.look,
    inventory.export,
    inventory.enrolled,
    inventory.try_out,
    reminders.remind,
    lookup.look_up,
]
KINDS = [transfer.returned(work) for work in WORK]
ERRORS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, CryptomailError)]

st.register_type_strategy(str, st.text(st.characters() | st.sampled_from("\udc80\udcff"), max_size=20))


class Pair(NamedTuple):
    """Something that a frame could hold."""

    number: int
    names: frozenset[str]


def frame(text: bytes, content: bytes = b"") -> bytes:
    return struct.pack("!II", len(text), len(content)) + text + content


@given(st.data())
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_every_result_comes_through_as_it_was(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    result = data.draw(st.from_type(kind))
    packed = transfer.pack(result, kind)
    assert transfer.size(packed[:8]) == len(packed) - 8
    assert transfer.unpack(packed, kind) == result
    assert transfer.unpack(packed, kind).__class__ is result.__class__


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_comes_through_with_its_exit_code(error: type[CryptomailError]) -> None:
    came = transfer.unpack(transfer.pack(error("it is so"), int), int)
    assert (type(came), str(came), came.code) == (error, "it is so", error.code)


@given(st.data())
def test_whatever_else_is_sent_is_an_error_and_nothing_more(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    packed = bytearray(transfer.pack(data.draw(st.from_type(kind)), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(8, len(packed) - 1))] = data.draw(st.integers(0, 255))
    for sent in (bytes(packed), frame(data.draw(st.binary(max_size=50)), data.draw(st.binary(max_size=9)))):
        try:
            came = transfer.unpack(sent, kind)
        except ValueError:
            continue
        transfer.pack(came, kind)  # what does come through is of that type


@pytest.mark.parametrize(
    ("kind", "text", "content"),
    [
        (int, b"[0,true]", b""),
        (int, b"[0,1.0]", b""),
        (int, b'[0,"1"]', b""),
        (int, b"[0,NaN]", b""),
        (int, b"[0," + b"9" * 5000 + b"]", b""),
        (int, b"[2,1]", b""),
        (int, b"[true,1]", b""),
        (int, b"[-1,1]", b""),
        (int, b"[0,1] x", b""),
        (int, b"[0,1]", b"x"),
        (int, b'{"0":1}', b""),
        (bool, b"[0,1]", b""),
        (bytes, b"[0,2]", b"x"),
        (bytes, b"[0,-1]", b"x"),
        (bytes, b'[0,"x"]', b""),
        (list[int], b"[0,{}]", b""),
        (list[int], b"[0," + b"[" * 100_000, b""),
        (frozenset[str], b'[0,["a","a"]]', b""),
        (dict[str, bytes], b'[0,[["a",0],["a",0]]]', b""),
        (dict[str, bytes], b'[0,[["a",0,0]]]', b""),
        (Pair, b"[0,[1]]", b""),
        (Pair, b"[0,[1,[],0]]", b""),
        (Pair, b'[0,["1",[]]]', b""),
        (tuple[int, str], b'[0,["a",1]]', b""),
        (Status, b'[0,"no such word"]', b""),
        (Status, b"[0,1]", b""),
        (int, b'[1,["SystemExit","x"]]', b""),
        (int, b'[1,["CryptomailError",1]]', b""),
        (int, b"\xff", b""),
        (int, b"", b""),
    ],
)
def test_what_is_not_of_the_type_that_is_expected_is_refused(kind: Any, text: bytes, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        transfer.unpack(frame(text, content), kind)


def test_more_than_there_may_be_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for head in (b"\xff" * 8, struct.pack("!II", limits.RESULT_TEXT_OCTETS + 1, 0)):
        with pytest.raises(ValueError, match="too large"):
            transfer.size(head)
    monkeypatch.setattr(limits, "RESULT_BYTES_OCTETS", 10)
    with pytest.raises(ValueError, match="too large"):
        transfer.pack(b"x" * 11, bytes)
    long = transfer.unpack(transfer.pack(CryptomailError("x" * 100_000), int), int)
    assert len(str(long)) == limits.RESULT_ERROR_CHARACTERS


def test_nothing_is_sent_that_is_not_what_was_declared() -> None:
    for result, kind in (("1", int), (True, int), ((1, "a"), Pair), ([b""], list[str])):
        with pytest.raises((TypeError, ValueError)):
            transfer.unpack(transfer.pack(result, kind), kind)
