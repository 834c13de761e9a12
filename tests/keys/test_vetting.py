"""The quarantine and what comes behind it, where something goes wrong inside."""

import fcntl
import hashlib
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
from sieve_filter.gpg import keybox, keyrings, runner
from sieve_filter.keys import changes, vetting
from sieve_filter.keys.outcome import Status
from sieve_filter.keys.vetting import Revoked, Vetted
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.openpgp.packets import split
from sieve_filter.system import pool, signals
from tests.support.samples import packet


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
        assert [(one.fingerprint, one.status) for one in outcomes] == [(fingerprint, Status.IMPORTED)]
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
        assert (outcome.status, "which is another key" in outcome.note) == (Status.REFUSED, True)
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
        assert outcome.status == Status.REFUSED
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
        assert outcome.status == Status.IMPORTED


def test_time_limit_is_kept() -> None:
    with pytest.raises(TimedOutError), signals.at_most(1):
        time.sleep(5)


def vetted(one: Certificate) -> Vetted:
    verdict = vetting.vet([one], 2048)[one]
    assert isinstance(verdict, Vetted)
    return verdict


def with_table(verdict: Vetted, other: Vetted) -> Vetted:
    """That certificate, under which gpg would find another's fingerprints."""
    table = slice(20, 20 + 2 * 28)
    blob = verdict.blob[: table.start] + other.blob[table] + verdict.blob[table.stop : -20]
    return verdict._replace(blob=blob + hashlib.sha1(blob, usedforsecurity=False).digest())


def with_another_subkey(verdict: Vetted, other: Vetted) -> Vetted:
    primary, *_ = verdict.key.subkeys
    return verdict._replace(key=verdict.key._replace(subkeys=(primary, other.subkey)), subkey=other.subkey)


LIES: dict[str, Callable[[Vetted, Vetted], Vetted | Revoked]] = {
    "another certificate": lambda _, other: other,
    "another certificate under its name": lambda its, other: its._replace(blob=other.blob),
    "its name for another certificate": lambda its, other: other._replace(key=its.key),
    "another certificate behind it": lambda its, other: its._replace(blob=its.blob + other.blob),
    "another certificate in front of it": lambda its, other: its._replace(header=its.header + other.blob),
    "no header": lambda its, _: its._replace(header=b""),
    "another's fingerprints in gpg's table": with_table,
    "another's subkey to encrypt to": lambda its, other: its._replace(subkey=other.subkey),
    "another's subkey in it": with_another_subkey,
    "no subkeys": lambda its, _: its._replace(key=its.key._replace(subkeys=())),
    "another's revocation": lambda _, other: Revoked(other.key, keybox.packets(other.blob), "it was revoked"),
    "noise for a revocation": lambda its, _: Revoked(its.key, b"noise", "it was revoked"),
    "an address that it has not": lambda its, _: its._replace(key=its.key._replace(addresses=frozenset({"a@b.org"}))),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("stored", [False, True], ids=["no key yet", "another key"])
def test_what_the_process_that_vets_made_up_is_not_put_into_a_keyring(
    certificates: tuple[Certificate, ...], lie: str, stored: bool
) -> None:
    """It looks at octets of anybody's, so it may have fallen to them."""
    given, other, first, *_ = certificates

    def vet() -> list[tuple[vetting.Verdict, ...]]:
        return [(LIES[lie](vetted(given), vetted(other)),)]

    with TemporaryDirectory(prefix="keyring-", dir="/tmp") as directory:
        order = changes.Order("a", f"{directory}/k", (given,), frozenset({"a@b.org"}), named=True, foreign=True)
        if stored:
            changes.enrol([order._replace(certificates=(first, other))], 2048)
        (verdicts,) = pool.alone(pool.nobody(), vet)
        (outcome,) = changes.put([(order, verdicts)], 2048)
        assert outcome.fingerprint == given.fingerprint
        assert (outcome.status, outcome.note) == (
            Status.REFUSED,
            "what looked at it answered with something that is not in it",
        )
        keyring = Path(directory, "k")
        listed = [key.fingerprint for key in vetting.read_listing(keyring)] if stored else []
        assert listed == ([first.fingerprint, other.fingerprint] if stored else [])
        assert (keyring / keybox.NAME).exists() == stored


def test_subkey_that_was_not_given_is_not_put_into_a_keyring(new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    fingerprint = owner.make_key("a@example.org")
    (given,) = certificate.read(owner.public("a@example.org")).certificates
    owner.gpg("--quick-add-key", fingerprint, "cv25519", "encr")
    (more,) = certificate.read(owner.public("a@example.org")).certificates
    verdict = vetting.believed(given, vetted(more))
    assert verdict == "what looked at it answered with something that is not in it"
    answer = vetted(given)
    assert vetting.believed(more, answer) == answer  # what gpg leaves out is its affair


@pytest.mark.parametrize("algorithm", [("rsa2048", "cert,sign,encrypt"), ("future-default",)])
def test_key_whose_signatures_have_numbers_that_gpg_writes_anew_is_taken(
    new_owner: Callable[[], Owner], algorithm: tuple[str, ...]
) -> None:
    """Some programs write them with zeros in front, or without regard to the highest bit."""
    owner = new_owner()
    owner.gpg("--quick-gen-key", "<a@example.org>", *algorithm)
    data = owner.public("a@example.org")
    other = b""
    signatures = []
    for one in split(data):
        body = one.body
        if one.tag == 2:
            hashed = int.from_bytes(body[4:6])
            numbers = 10 + hashed + int.from_bytes(body[6 + hashed : 8 + hashed])
            octets = (int.from_bytes(body[numbers : numbers + 2]) + 7) // 8
            body = body[:numbers] + (8 * octets + 8).to_bytes(2) + b"\0" + body[numbers + 2 :]
            signatures.append(body)
        other += packet(one.tag, body)
    (given,) = certificate.read(other).certificates
    verdict = vetted(given)
    assert not [one for one in signatures if one in keybox.packets(verdict.blob)]
    assert vetting.believed(given, verdict) == verdict
