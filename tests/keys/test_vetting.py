"""The quarantine and what comes behind it, where something goes wrong inside."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import keys
from lab.keys import Owner
from sieve_filter import limits
from sieve_filter.errors import EncryptionError, TimedOutError
from sieve_filter.gpg import keyrings, runner
from sieve_filter.keys import changes, vetting
from sieve_filter.keys.vetting import Vetted
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.system import pool, signals


@pytest.fixture(scope="module")
def certificates() -> Iterator[tuple[Certificate, ...]]:
    """Five people's."""
    with keys.owner() as owner:
        for number in range(5):
            owner.make_key(f"u{number}@example.org")
        yield certificate.read(owner.gpg("--export")).certificates


@pytest.fixture(autouse=True)
def _signals() -> None:
    pool.stop_on_signals()


def test_one_certificate_that_gpg_cannot_stand_does_not_take_others_with_it(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    really = keyrings.import_keys

    def hang(home: str, packets: bytes, *, listed: bool) -> keyrings.Imported:
        if certificates[3].packets in packets:
            time.sleep(60)
        return really(home, packets, listed=listed)

    monkeypatch.setattr(keyrings, "import_keys", hang)
    monkeypatch.setattr(limits, "QUARANTINE_SECONDS", 1)
    verdicts = vetting.vet(certificates, 2048)
    assert [isinstance(verdicts[one], Vetted) for one in certificates] == [True, True, True, False, True]
    assert verdicts[certificates[3]] == "it took too long"


def test_certificate_is_refused_where_the_trial_encryption_fails(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise EncryptionError("gpg could not encrypt: no reason")

    monkeypatch.setattr(runner, "encrypt", refuse)
    assert vetting.vet(certificates[:1], 2048) == {certificates[0]: "gpg could not encrypt: no reason"}


def test_certificate_is_refused_where_gpg_says_nothing_and_encrypts_nothing(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "encrypt", lambda *_: None)
    assert vetting.vet(certificates[:1], 2048) == {
        certificates[0]: "gpg did not encrypt to the keys that it was told to"
    }


def test_more_certificates_than_one_gpg_is_given_are_all_vetted(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CERTIFICATES_AT_ONCE", 2)
    twice = certificates + certificates
    assert all(isinstance(one, Vetted) for one in vetting.vet(twice, 2048).values())
    assert len(vetting.vet(twice, 2048)) == len(certificates)


def test_two_versions_of_a_certificate_are_vetted_apart_and_merged(new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key("a@example.org")
    old = owner.public("a@example.org")
    owner.gpg("--quick-add-uid", fingerprint, "<b@example.org>")
    both = certificate.read(old + owner.public("a@example.org")).certificates
    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        order = changes.Order("a", f"{directory}/k", both, frozenset({"a@example.org"}), named=True)
        outcomes = changes.enrol([order], 2048)
        assert [(one.fingerprint, one.status) for one in outcomes] == [(fingerprint, changes.IMPORTED)]
        (key,) = vetting.read_listing(Path(directory, "k"))
        assert key.addresses == {"a@example.org", "b@example.org"}


def test_another_key_with_the_same_key_id_is_noticed() -> None:
    fingerprint = "A" * 24 + "0123456789ABCDEF"
    other = "B" * 24 + "0123456789ABCDEF"
    assert changes.clashing([other], fingerprint) == other
    assert changes.clashing([fingerprint, "C" * 40], fingerprint) is None
    assert changes.clashing([], fingerprint) is None


def test_another_key_with_the_same_key_id_is_refused(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "clashing", lambda _, fingerprint: "F" * 24 + fingerprint[-16:])
    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        order = changes.Order("a", f"{directory}/k", certificates[:1], frozenset(), named=True, foreign=True)
        (outcome,) = changes.enrol([order], 2048)
        assert (outcome.status, "which is another key" in outcome.note) == (changes.REFUSED, True)
        assert list(Path(directory, "k").iterdir()) == []


def test_disk_that_is_full_leaves_the_keyring_as_it_was(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        orders = [
            changes.Order("a", f"{directory}/k", (one,), frozenset(), named=True, foreign=True)
            for one in certificates[:2]
        ]
        changes.enrol(orders[:1], 2048)
        before = Path(directory, "k/pubring.kbx").read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        (outcome,) = changes.enrol(orders[1:], 2048)
        assert outcome.status == changes.REFUSED
        assert "No space left on device; nothing in it has changed" in outcome.note
        assert Path(directory, "k/pubring.kbx").read_bytes() == before


def test_lock_that_another_import_holds_is_waited_for_but_not_for_ever(
    certificates: tuple[Certificate, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        Path(directory, "k").mkdir()
        held = os.open(Path(directory, "k"), os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        order = changes.Order("a", f"{directory}/k", certificates[:1], frozenset(), named=True, foreign=True)
        monkeypatch.setattr(limits, "QUARANTINE_SECONDS", 1)
        (outcome,) = changes.enrol([order], 2048)
        os.close(held)
        assert "another cryptomail is at work on" in outcome.note
        (outcome,) = changes.enrol([order], 2048)
        assert outcome.status == changes.IMPORTED


def test_time_limit_is_kept() -> None:
    with pytest.raises(TimedOutError), signals.at_most(1):
        time.sleep(5)
