"""What this process reads of a keyring, once the engine has verified it, is what GnuPG says of it."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pysequoia import Profile, Tsk

from lab import keys
from lab.keys import Owner
from sieve_filter.delivery import pipeline, sequoia
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.errors import EncryptionError, KeyringError, NoKeyError, UnusableKeyError
from sieve_filter.gpg import runner
from sieve_filter.gpg.colons import Key
from sieve_filter.keys import find
from sieve_filter.keys.decision import Decision, Encrypt, Rules, decide, settled
from sieve_filter.keys.recipients import Found, Recipients
from sieve_filter.mail.message import split as split_message
from sieve_filter.openpgp.packets import SIGNATURE, TRUST, USER_ID, Packet, split, subpackets
from sieve_filter.policy import settings
from sieve_filter.policy.settings import Keyrings, Options, Settings
from sieve_filter.sequoia import engine
from tests.support.filtered import MESSAGE, fingerprint_of
from tests.support.samples import packet

NAME = "<a@example.org>"
PAST, LATER = "20240101T000000!", "20240201T000000!"

RULES = Rules(minimum_bits=2048, no_key="refuse", unusable_key="refuse", expired_key="encrypt-anyway")

Make = Callable[[Owner], object]


def made(*algorithm: str, at: str = "", name: str = NAME, options: Sequence[str] = ()) -> Make:
    clock = ["--faked-system-time", at] if at else []
    return lambda one: one.gpg(*clock, *options, "--quick-gen-key", name, *algorithm)


def primary(*algorithm: str) -> Make:
    """A key that does not encrypt, made in the past."""
    return made(*(algorithm or ("ed25519", "cert,sign", "never")), at=PAST)


def subkey(*algorithm: str, at: str = LATER) -> Make:
    return lambda one: one.gpg("--faked-system-time", at, "--quick-add-key", fingerprint_of(one), *algorithm)


def run(*arguments: str, at: str = "") -> Make:
    """gpg with these arguments, where FPR stands for the key's fingerprint."""
    clock = ["--faked-system-time", at] if at else []
    return lambda one: one.gpg(*clock, *(fingerprint_of(one) if word == "FPR" else word for word in arguments))


def edited(*commands: str) -> Make:
    text = "".join(f"{one}\n" for one in (*commands, "save")).encode()
    return lambda one: one.gpg("--yes", "--command-fd", "0", "--edit-key", fingerprint_of(one), data=text)


def certified(*options: str) -> Make:
    """A signature by somebody else."""

    def make(one: Owner) -> None:
        one.gpg("--quick-gen-key", "<other@example.org>", "ed25519", "cert", "never")
        one.gpg("--default-key", "<other@example.org>", "--yes", *options, fingerprint_of(one))

    return make


def revocable(one: Owner) -> None:
    """Somebody else may revoke it."""
    one.gpg("--quick-gen-key", "<other@example.org>", "ed25519", "cert", "never")
    listing = one.gpg("--with-colons", "--list-keys", "<other@example.org>").decode()
    other = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    edited("addrevoker", other, "y")(one)


MODERN = made("future-default", "default", "2y")
BOUND = [primary(), subkey("cv25519", "encr", "never")]

# What nearly everybody has: this process has to read these, and they are encrypted to.
USUAL: Mapping[str, Sequence[Make]] = {
    "modern": [MODERN],
    "RSA": [made("rsa3072", "default", "2y"), run("--quick-add-key", "FPR", "rsa3072", "encr", "2y")],
    "NIST": [made("nistp256", "sign", "never"), run("--quick-add-key", "FPR", "nistp384", "encr", "1y")],
    "several user IDs": [MODERN, run("--quick-add-uid", "FPR", "A <b@example.org>")],
    "several subkeys": [*BOUND, subkey("ed25519", "sign", "never"), subkey("ed25519", "auth", "1y")],
    "RSA that signs": [*BOUND, subkey("rsa2048", "sign", "never")],
    "rotated": [primary(), subkey("cv25519", "encr", "1m", at=PAST), subkey("cv25519", "encr", "never")],
    "revoked and replaced": [
        primary(),
        subkey("cv25519", "encr", "never", at=PAST),
        edited("key 1", "revkey", "y", "0", "", "y"),
        subkey("cv25519", "encr", "never"),
    ],
    "prolonged": [
        made("future-default", "default", "1y", at=PAST),
        run("--quick-set-expire", "FPR", "0", at=LATER),
        run("--quick-set-expire", "FPR", "0", "*", at=LATER),
    ],
    "certified by another": [MODERN, certified("--quick-sign-key")],
    "notation": [made("future-default", "default", "2y", options=("--cert-notation", "x@example.org=y"))],
}
SEQUOIA = {"Sequoia": Profile.RFC4880, "Sequoia, newer": Profile.RFC9580}
OTHERS: Mapping[str, Sequence[Make]] = {
    "signs only": [primary()],
    "primary encrypts": [made("rsa2048", "sign,cert,encr", "never")],
    "signs and encrypts": [primary(), subkey("rsa2048", "sign,encr", "never")],
    "weak": [primary(), subkey("rsa1024", "encr", "never")],
    "ElGamal": [made("dsa1024", "sign", "never"), run("--quick-add-key", "FPR", "elg1024", "encr", "never")],
    "brainpool": [primary(), subkey("brainpoolP256r1", "encr", "never")],
    "expired": [made("future-default", "default", "1m", at=PAST)],
    "subkey expired": [primary(), subkey("cv25519", "encr", "1m")],
    "newer subkey expired": [*BOUND, subkey("cv25519", "encr", "1m", at="20240301T000000!")],
    "newer subkey revoked": [
        *BOUND,
        subkey("cv25519", "encr", "never", at="20240301T000000!"),
        edited("key 2", "revkey", "y", "0", "", "y"),
    ],
    "subkeys of one second": [*BOUND, subkey("cv25519", "encr", "never")],
    "revoked": [MODERN, lambda one: one.revoke(fingerprint_of(one))],
    "subkey revoked": [MODERN, edited("key 1", "revkey", "y", "0", "", "y")],
    "user ID revoked": [
        MODERN,
        run("--quick-add-uid", "FPR", "A <b@example.org>"),
        run("--quick-revoke-uid", "FPR", "A <b@example.org>"),
    ],
    "shortened": [*BOUND, run("--quick-set-expire", "FPR", "1m", "*", at="20240301T000000!")],
    "whole key shortened": [*BOUND, run("--quick-set-expire", "FPR", "1m", at=LATER)],
    "revoker": [MODERN, revocable],
    "MD5": [
        made("rsa2048", "sign", "2y", options=("--cert-digest-algo", "MD5", "--allow-weak-digest-algos")),
        run("--quick-add-key", "FPR", "rsa2048", "encr", "2y"),
    ],
    "SHA-1": [made("future-default", "default", "2y", options=("--cert-digest-algo", "SHA1"))],
    "critical notation": [made("future-default", "default", "2y", options=("--cert-notation", "!x@example.org=y"))],
    "critical policy": [made("future-default", "default", "2y", options=("--cert-policy-url", "!https://x.example"))],
    "trusted by another": [MODERN, certified("--quick-lsign-key")],
    "made in the future": [made("future-default", "default", "2y", at="20990101T000000!")],
    "subkey from the future": [*BOUND, subkey("cv25519", "encr", "never", at="20990101T000000!")],
    "no address": [made("future-default", "default", "2y", name="Alice")],
}


class Certificates(dict[str, bytes]):
    def __repr__(self) -> str:
        return "the same in all cases"


def make(steps: Sequence[Make]) -> bytes:
    """The public key after the last step, with what it had before and a later step took away."""
    with keys.owner() as one, keys.owner() as everything:
        for step in steps:
            step(one)
            public = one.gpg("--export-options", "export-local-sigs", "--export", fingerprint_of(one))
            everything.gpg("--import-options", "import-local-sigs", "--import", data=public)
        return everything.gpg("--export-options", "export-local-sigs", "--export") or public


@pytest.fixture(scope="module")
def certificates() -> Mapping[str, bytes]:
    made = Certificates({kind: make(steps) for kind, steps in {**USUAL, **OTHERS}.items()})
    for kind, profile in SEQUOIA.items():
        key = Tsk.generate(user_ids=["A <a@example.org>", "<b@example.org>"], profile=profile, validity_seconds=10**7)
        made[kind] = bytes(key.extract_certificate())
    with keys.owner() as one:
        one.gpg("--import", data=(Path(__file__).parent.parent / "support/keys/gnupg-2.4-aead.asc").read_bytes())
        made["GnuPG 2.4"] = one.gpg("--export")
    return made


def imported(certificate: bytes, home: Path) -> Owner:
    """A GnuPG home in that directory, with the certificate."""
    home.chmod(0o700)
    one = Owner(home)
    one.gpg("--no-autostart", "--import-options", "import-local-sigs", "--import", data=certificate)
    keys.trust(home)
    return one


@pytest.fixture(scope="module")
def homes(certificates: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """GnuPG homes, as far as gpg takes the key."""
    made = {kind: tmp_path_factory.mktemp("home") for kind in certificates}
    for kind, home in made.items():
        with suppress(subprocess.CalledProcessError):
            imported(certificates[kind], home)
    return made


class Change(NamedTuple):
    """What is done to the packet `where` of a certificate."""

    what: str
    where: int
    number: int = 0


def changed(certificate: bytes, changes: Sequence[Change]) -> bytes:
    packets = split(certificate)
    for what, where, number in changes:
        if what == "cached":
            packets.insert(where % len(packets) + 1, _with(packets[0], bytes([0, number % 5]) + b"gpg\0", tag=TRUST))
            continue
        one = packets.pop(where % len(packets))
        if what == "twice":
            packets.insert(where % (len(packets) + 1), one)
        if what in ("twice", "elsewhere"):
            packets.insert(number % (len(packets) + 1), one)
        if what == "damaged":
            bit = number % (8 * len(one.body))
            one = _with(one, bytes(octet ^ ((at == bit // 8) << bit % 8) for at, octet in enumerate(one.body)))
        if what == "forged":
            one = _with(one, _forged(one.body, number)) if one.tag == SIGNATURE else one
        if what in ("damaged", "forged"):
            packets.insert(where % (len(packets) + 1), one)
    return b"".join(one.raw for one in packets)


def _with(one: Packet, body: bytes, tag: int = 0) -> Packet:
    return Packet(tag or one.tag, packet(tag or one.tag, body), body)


def _forged(signature: bytes, number: int) -> bytes:
    """The signature with another time, lifetime or flags, or another kind."""
    size = int.from_bytes(signature[4:6])
    position = 6
    places = [(1, b"\x10\x13\x18\x1f\x20\x28\x30")]
    for length, content in subpackets(signature[6 : 6 + size]):
        if content[0] & 0x7F in (2, 9):
            places += [(position + 3, bytes(range(256)))]
        elif content[0] & 0x7F == 27:
            places += [(position + 2, b"\x00\x02\x04\x08\x0c\x0e\x20")]
        position += length + (1 if length < 192 else 2)
    at, values = places[number % len(places)]
    return signature[:at] + values[number % len(values) :][:1] + signature[at + 1 :]


changes = st.lists(
    st.builds(
        Change,
        st.sampled_from(["left out", "twice", "elsewhere", "damaged", "forged", "cached"]),
        st.integers(1, 20),
        st.integers(0, 10_000),
    ),
    max_size=3,
)


def verdict(found: Found) -> tuple[Decision, tuple[str, ...]]:
    decision = decide(found, RULES, int(time.time()))
    return decision, decision.recipients.fingerprints if isinstance(decision, Encrypt) else ()


def listed(path: Path) -> tuple[Found, tuple[str, ...]]:
    """The keys in the file as gpg lists them, and to which mail is encrypted."""
    try:
        found = find.find_in_file(str(path))
    except (NoKeyError, KeyringError):
        return Found("", ()), ()
    decision, fingerprints = verdict(found)
    return found, () if isinstance(decision, Encrypt) and decision.recipients.expired_after else fingerprints


def read(path: Path) -> Recipients | None:
    """To what mail is encrypted as this process reads the file; None where gpg has to be asked."""
    found = find.find_in_file(str(path), listed=False)
    decision, _ = verdict(found)
    sure = settled(decision, found) and found.holdings[0].proofs is not None
    return decision.recipients if sure and isinstance(decision, Encrypt) else None


def by_sequoia(recipients: Recipients) -> bool:
    try:
        return bool(sequoia.encrypt(b"x", recipients))
    except engine.UnsuitableError:
        return False


def by_gnupg(recipients: Recipients) -> bool:
    written: list[bytes] = []
    try:
        runner.encrypt([b"x"], written.append, recipients.homes, recipients.fingerprints, "none")
    except EncryptionError:
        return False
    return bool(written)


def check(path: Path) -> str:
    """That whoever encrypts to what was read does what gpg's listing says. Returns who did."""
    try:
        recipients = read(path)
    except (NoKeyError, KeyringError):
        return "not read"
    if recipients is None:
        return "not read"
    found, fingerprints = listed(path)
    did = [engine.__name__ for engine in (by_sequoia, by_gnupg) if engine(recipients)]
    assert not did or fingerprints == recipients.fingerprints
    if "by_sequoia" in did:
        said = {key.fingerprint: _without_grips(key) for holding in found.holdings for key in holding.keys}
        holding = find.find_in_file(str(path), listed=False).holdings[0]
        for key in holding.keys:
            theirs = said[key.fingerprint]
            assert key.subkeys[0] == theirs.subkeys[0]
            assert key.subkeys[1] in theirs.subkeys
            assert key.addresses == theirs.addresses
    return " and ".join(did) or "refused"


def _without_grips(key: Key) -> Key:
    return key._replace(subkeys=tuple(one._replace(grip="", state="-") for one in key.subkeys))


@pytest.mark.parametrize("kind", [*USUAL, "Sequoia", "GnuPG 2.4"])
def test_usual_keys_are_read_in_this_process(
    certificates: Mapping[str, bytes], homes: Mapping[str, Path], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pgp"
    file.write_bytes(certificates[kind])
    assert check(file) == "by_sequoia and by_gnupg"
    assert check(homes[kind]) == "by_sequoia and by_gnupg"
    (homes[kind] / "trustdb.gpg").unlink()
    assert check(homes[kind]) == "by_sequoia and by_gnupg"


@pytest.mark.parametrize("kind", [*OTHERS, "Sequoia, newer"])
def test_of_other_keys_nothing_is_read_that_gpg_does_not_say(
    certificates: Mapping[str, bytes], homes: Mapping[str, Path], kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pgp"
    file.write_bytes(certificates[kind])
    for place in (file, homes[kind]):
        assert check(place) in ("not read", "by_gnupg", "by_sequoia and by_gnupg")


def test_disabled_key_is_not_read(certificates: Mapping[str, bytes], tmp_path: Path) -> None:
    one = imported(certificates["modern"], tmp_path)
    one.gpg("--import", data=certificates["several subkeys"])
    assert check(tmp_path) == "by_sequoia and by_gnupg"
    edited("disable")(one)
    assert check(tmp_path) == "not read"
    assert len(listed(tmp_path)[1]) == 1
    edited("enable")(one)
    assert check(tmp_path) == "by_sequoia and by_gnupg"


@pytest.mark.parametrize("other", ["pubring.gpg", "common.conf", "public-keys.d/pubring.db"])
def test_home_with_another_keyring_is_not_read(certificates: Mapping[str, bytes], other: str, tmp_path: Path) -> None:
    imported(certificates["modern"], tmp_path)
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_bytes(b"")
    assert find.find_in_file(str(tmp_path), listed=False).holdings[0].proofs is None


def test_one_broken_signature_is_enough_for_gpg_to_be_asked(certificates: Mapping[str, bytes], tmp_path: Path) -> None:
    """gpg cannot read a key at all in which a signature's number is too long, be it that of a subkey for log-ins."""
    *packets, last = split(certificates["several subkeys"])
    hashed = int.from_bytes(last.body[4:6])
    numbers = 10 + hashed + int.from_bytes(last.body[6 + hashed : 8 + hashed])
    broken = last.body[:numbers] + b"\xff" + last.body[numbers + 1 :]
    (tmp_path / "keys.pgp").write_bytes(b"".join(one.raw for one in [*packets, _with(last, broken)]))
    assert listed(tmp_path / "keys.pgp")[1] == ()
    assert check(tmp_path / "keys.pgp") == "not read"


FOREVER = bytes(4)


def prolonged(certificate: bytes) -> bytes:
    """With all lifetimes forged to none."""
    made = b""
    for one in split(certificate):
        body = one.body
        for length, content in subpackets(body[6 : 6 + int.from_bytes(body[4:6])]) if one.tag == SIGNATURE else ():
            if content[:1] == b"\x09" and length == 5:
                body = body.replace(content, b"\x09" + FOREVER)
        made += _with(one, body).raw
    return made


@pytest.mark.parametrize("engine", [settings.SEQUOIA, settings.GNUPG])
@pytest.mark.parametrize("kind", ["expired", "subkey expired"])
def test_forged_lifetime_changes_nothing(
    certificates: Mapping[str, bytes], kind: str, engine: str, tmp_path: Path
) -> None:
    """GnuPG is asked, and says that the key expired; in each case, no message is encrypted as if it had not."""
    forged = prolonged(certificates[kind])
    (tmp_path / "keys.pgp").write_bytes(forged)
    recipients = read(tmp_path / "keys.pgp")
    assert recipients is not None, "it looks good"
    assert check(tmp_path / "keys.pgp") == "refused"
    refusing = Settings(engine=engine, expired_key="refuse", keyrings=Keyrings(("%h/keys.pgp",), (), 2048))
    incoming = Incoming(split_message(MESSAGE), True, ())
    environment = {"USER": "a@example.org", "HOME": str(tmp_path)}
    with pytest.raises(UnusableKeyError):
        pipeline.encrypt_for_owner(incoming, Options(), environment, refusing, Engines(print, lasting=True))


def test_second_user_id_that_is_forged_is_refused(certificates: Mapping[str, bytes], tmp_path: Path) -> None:
    """GnuPG might go by its other signatures."""
    packets = split(certificates["several user IDs"])
    *_, last = (number for number, one in enumerate(packets) if one.tag == USER_ID)
    packets[last] = _with(packets[last], b"M <m@example.org>")
    (tmp_path / "keys.pgp").write_bytes(b"".join(one.raw for one in packets))
    recipients = read(tmp_path / "keys.pgp")
    assert recipients is not None
    assert not by_sequoia(recipients)


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from([*USUAL, *OTHERS, *SEQUOIA, "GnuPG 2.4"]), min_size=1, max_size=2), changes)
@example(["modern"], [Change("damaged", 1, 20)])  # no user ID has a good signature any more
@example(["modern"], [Change("cached", 2, 1)])  # GnuPG has noted that this signature is bad
def test_what_is_read_and_verified_is_what_gpg_says(
    certificates: Mapping[str, bytes], kinds: Sequence[str], changes: Sequence[Change]
) -> None:
    first, *others = (certificates[kind] for kind in kinds)
    with TemporaryDirectory(prefix="reading-", dir="/tmp") as directory:
        file = Path(directory, "keys.pgp")
        file.write_bytes(b"".join([changed(first, changes), *others]))
        check(file)
