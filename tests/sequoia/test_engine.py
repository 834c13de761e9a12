"""What Sequoia is asked to do, and how."""

import sys
from types import ModuleType
from typing import Any

import pysequoia
import pytest
from pysequoia import Cert, decrypt

from lab.keys import Owner
from sieve_filter.errors import TimedOutError
from sieve_filter.openpgp.encrypted import encrypted_message
from sieve_filter.sequoia import engine
from sieve_filter.sequoia.engine import UnsuitableError
from tests.support.newer import KINDS, NewerOwner
from tests.support.server import ALICE


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_keys_that_were_asked_for_can_open_it(kind: str) -> None:
    owner = NewerOwner(kind)
    to = engine.load([owner.public])
    for _ in range(2):
        message = encrypted_message(engine.encrypt(b"text", to))
        assert message is not None
        assert len(message.key_ids) == 1
        assert not message.passphrase
    assert decrypt(engine.encrypt(b"text", to), decryptor=owner.tsk.decryptor()).bytes == b"text"


def test_what_claims_nothing_can_be_encrypted_to_for_ever() -> None:
    [nobody] = engine.load([engine._PLAIN]).certificates
    assert nobody.expiration is None
    assert engine.recipients_of(engine._PLAIN) == (engine._PLAIN_ID,)


def test_versions_of_a_certificate_are_merged(alice: Owner) -> None:
    owner = NewerOwner()
    merged = engine.merge(owner.public, owner.revoked)
    assert engine.look(merged).revoked
    with pytest.raises(UnsuitableError):
        engine.merge(owner.public, alice.public(ALICE))


@pytest.mark.parametrize("octets", [b"", b"\x00", b"-----BEGIN PGP"])
def test_what_is_no_certificate_is_refused_in_one_line(octets: bytes) -> None:
    with pytest.raises(UnsuitableError) as told:
        engine.load([octets])
    assert str(told.value).isprintable()


def test_a_bug_of_sequoias_is_told_in_one_line_and_what_ends_the_process_is_not_held_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to = engine.load([NewerOwner().public])
    for raised, expected in (
        (type("PanicException", (BaseException,), {})("x\ny"), UnsuitableError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (TimedOutError("it took longer"), TimedOutError),
    ):

        def encrypt(raised: BaseException = raised, **_: object) -> None:
            raise raised

        monkeypatch.setattr(pysequoia, "encrypt", encrypt)
        with pytest.raises(expected):
            engine.encrypt(b"text", to)


def old_sequoia() -> ModuleType:
    """PySequoia as Debian 13 has it: 0.1.27, whose `encrypt` takes the recipients first, and always writes an armor."""

    def encrypt(recipients: list[Cert], bytes: Any, signer: Any = None) -> bytes:  # noqa: A002
        return pysequoia.encrypt(bytes=bytes, recipients=recipients)

    module = ModuleType("pysequoia")
    module.__dict__.update(vars(pysequoia))
    vars(module)["encrypt"] = encrypt
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_the_pysequoia_of_debian_13_will_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = NewerOwner(kind)
    monkeypatch.setitem(sys.modules, "pysequoia", old_sequoia())
    encrypted = engine.encrypt(b"text\x00" * 1_000, engine.load([owner.public]))
    assert decrypt(encrypted, decryptor=owner.tsk.decryptor()).bytes == b"text\x00" * 1_000
