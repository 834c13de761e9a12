"""`cryptomail decrypt`, and the round trip with real gpg for any message at all."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lab.keys import Owner
from sieve_filter import limits
from sieve_filter.delivery import restore
from sieve_filter.delivery.encrypt import Sink, encrypt_message
from sieve_filter.delivery.incoming import receive
from sieve_filter.gpg import runner
from sieve_filter.keys.decision import Encrypt, Rules, decide
from sieve_filter.keys.find import find
from sieve_filter.keys.recipients import Recipients
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.owners.owner import identify
from sieve_filter.policy.settings import GNUPG, REFUSE, Keyrings
from sieve_filter.system.spool import MemoryFile, Spool
from tests.support.messages import any_message
from tests.support.server import ALICE, Server, run

MESSAGE = b"From: b@example.com\r\nSubject: hello\r\n\r\nThe text.\r\n"


@pytest.fixture(scope="module")
def home(alice: Owner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    server = Server(tmp_path_factory.mktemp("home"))
    server.give(alice.public(ALICE))
    return server.home


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(any_message, st.sampled_from(list(POLICIES)))
@example(b"", "baseline")
def test_any_message_decrypts_to_exactly_what_arrived(
    home: Path, alice: Owner, monkeypatch: pytest.MonkeyPatch, raw: bytes, policy: str
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(alice.home))
    owner = identify({"USER": ALICE, "HOME": str(home)}, {})

    def decided() -> Encrypt:
        found = find(owner, Keyrings(("%h/.cryptomail",), (), 2048))
        decision = decide(found, Rules(2048, REFUSE, REFUSE, REFUSE), 1_800_000_000)
        assert isinstance(decision, Encrypt)
        return decision

    def encrypt(source: Iterable[bytes], sink: Sink, to: Recipients) -> str:
        runner.encrypt(source, sink, to.homes, to.fingerprints, "zlib")
        return GNUPG

    incoming = receive(iter([raw]), limits.SMALL_OCTETS)
    delivery = encrypt_message(incoming, POLICIES[policy], decided, encrypt, b"_b_", Spool(), MemoryFile, "aes-256-cbc")
    assert delivery.encrypted
    assert restore.decrypt(b"".join(delivery.pieces)) == raw


def environment(owner: Owner) -> dict[str, str]:
    return {"GNUPGHOME": str(owner.home), "PATH": os.environ["PATH"]}


def test_line_ends_of_the_stored_copy_do_not_matter(enrolled: Server, alice: Owner) -> None:
    stored = enrolled.filter(MESSAGE).stdout
    assert run("decrypt", data=stored.replace(b"\r\n", b"\n"), environment=environment(alice)).stdout == MESSAGE


@pytest.mark.parametrize("message", [MESSAGE, b"", b"X-Cryptomail: encrypted-at-delivery\r\n\r\nforged\r\n"])
def test_message_that_cryptomail_did_not_encrypt_is_written_unchanged(message: bytes, alice: Owner) -> None:
    done = run("decrypt", data=message, environment=environment(alice))
    assert (done.returncode, done.stdout) == (0, message)
    assert b"not encrypted by cryptomail" in done.stderr


def test_ciphertext_that_only_claims_to_be_ours_is_written_unchanged(alice: Owner) -> None:
    armored = alice.gpg("--trust-model", "always", "--armor", "-r", f"<{ALICE}>", "--encrypt", data=b"no list inside")
    message = b"X-Cryptomail: encrypted-at-delivery\r\n\r\n" + armored
    done = run("decrypt", data=message, environment=environment(alice))
    assert (done.returncode, done.stdout) == (0, message)


def test_somebody_elses_message_cannot_be_decrypted(enrolled: Server, mallory: Owner) -> None:
    done = run("decrypt", data=enrolled.filter(MESSAGE).stdout, environment=environment(mallory))
    assert (done.returncode, done.stdout) == (65, b"")
    assert done.stderr.count(b"\n") == 1


def test_damaged_ciphertext_gives_nothing(enrolled: Server, alice: Owner) -> None:
    stored = enrolled.filter(MESSAGE).stdout
    middle = stored.index(b"-----BEGIN PGP MESSAGE-----") + 250
    damaged = stored[:middle] + (b"A" if stored[middle : middle + 1] != b"A" else b"B") + stored[middle + 1 :]
    done = run("decrypt", data=damaged, environment=environment(alice))
    assert (done.returncode, done.stdout) == (65, b"")
