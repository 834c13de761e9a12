"""What `cryptomail keys` and the notices say of an owner's mail is what becomes of it."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab import keys
from lab.keys import Owner
from sieve_filter.delivery import inventory, pipeline
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.enrolment import service
from sieve_filter.errors import CryptomailError
from sieve_filter.keys import status
from sieve_filter.mail.message import split
from sieve_filter.owners import owner, register
from sieve_filter.policy import config_file
from sieve_filter.policy.settings import Options, Settings
from tests.support.enrolment import letter, program
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of, make_rotating
from tests.support.newer import NewerOwner
from tests.support.server import ALICE, Outbox, Server, run
from tests.support.x509 import Maker, ec

CAROL = "carol@example.org"
WITHOUT_DOMAIN = ALICE.partition("@")[0]

PLACES = {
    "owner": ("%h/.cryptomail", "%h/second", "%h/keys.pgp"),
    "shared": ("%h/.gnupg", "%h/shared", "%h/shared.pgp"),
}
# The keys that the keyrings are made of, by what they are.
KINDS = ("good", "another", "expired", "revoked", "cannot encrypt", "weak", "rotating", "carol's")
DAMAGED = "damaged"
SMIME = ("good card", "expired card", "signing card", "carol's card")


# Those that GnuPG cannot read, which are in a file of their own beside its keyring.
NEWER_KINDS = ("version 6", "ML-KEM")


class Case(NamedTuple):
    """Which keyrings there are, what is in each of them, and the settings that matter.

    And which GnuPG homes trust their keys ultimately, whether it is noted that mail is encrypted, the user's name, and
    which S/MIME certificates there are, where there is a file of them; and which kind comes first.
    """

    keyrings: tuple[tuple[str, tuple[str, ...]], ...]
    order: tuple[tuple[str, ...], tuple[str, ...]]
    no_key: str = "store-plain"
    unusable_key: str = "refuse"
    expired_key: str = "encrypt-anyway"
    minimum_bits: int = 2048
    trusting: frozenset[str] = frozenset(PLACES["shared"])
    noted: bool = False
    user: str = ALICE
    smime: tuple[str, ...] | None = None
    prefer: str = "openpgp"

    @property
    def toml(self) -> str:
        owned, shared = (json.dumps(places) for places in self.order)
        return (
            f"[keyrings]\nowner = {owned}\nshared = {shared}\nminimum_bits = {self.minimum_bits}\n"
            f'prefer = "{self.prefer}"\ncertificates = ["%h/smime.pem"]\n'
            f'[on]\nno_key = "{self.no_key}"\nunusable_key = "{self.unusable_key}"\n'
            f'expired_key = "{self.expired_key}"\n'
        )


contents = st.lists(st.sampled_from(KINDS + NEWER_KINDS), max_size=3, unique=True).map(tuple)
every_case = st.builds(
    Case,
    st.dictionaries(
        st.sampled_from(PLACES["owner"] + PLACES["shared"]), contents | st.just((DAMAGED,)), max_size=4
    ).map(lambda made: tuple(made.items())),
    st.tuples(st.permutations(PLACES["owner"]).map(tuple), st.permutations(PLACES["shared"]).map(tuple)),
    st.sampled_from(["store-plain", "refuse"]),
    st.sampled_from(["store-plain", "refuse"]),
    st.sampled_from(["store-plain", "refuse", "encrypt-anyway"]),
    st.sampled_from([0, 2048]),
    st.frozensets(st.sampled_from(PLACES["shared"])),
    st.booleans(),
    st.sampled_from([ALICE, WITHOUT_DOMAIN]),
    st.none() | st.lists(st.sampled_from([*SMIME, DAMAGED]), max_size=3, unique=True).map(tuple),
    st.sampled_from(["openpgp", "smime"]),
)


def for_no_engine(case: Case) -> bool:
    """Whether mail has to be encrypted to a key that GnuPG cannot read, and to one that Sequoia takes for too weak.

    No engine knows both, so all mail waits, whatever is said of the keys.
    """
    return case.minimum_bits == 0 and any(
        "weak" in kinds and set(kinds) & set(NEWER_KINDS) for _, kinds in case.keyrings
    )


cases = every_case.filter(lambda case: not for_no_engine(case))
TWO_SHARED = Case((("%h/.gnupg", ("carol's",)), ("%h/shared", ("good",))), (PLACES["owner"], PLACES["shared"]))


class Certificates(dict[str, bytes]):
    def __repr__(self) -> str:
        return "the same in all cases"


@pytest.fixture(scope="module")
def certificates() -> Mapping[str, bytes]:
    """Public keys by their kind: they are made once, and keyrings of them without GnuPG; and trust in all of them."""
    made = Certificates()

    def make(kind: str, work: Callable[[Owner], object], address: str = ALICE) -> None:
        with keys.owner() as somebody:
            work(somebody)
            made[kind] = somebody.public(address)

    def weak(somebody: Owner) -> None:
        somebody.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never")
        somebody.gpg("--quick-add-key", fingerprint_of(somebody), "rsa1024", "encr", "never")

    make("good", lambda somebody: somebody.make_key(ALICE))
    make("another", lambda somebody: somebody.make_key(ALICE))
    make("expired", lambda somebody: somebody.make_key(ALICE, made_at="20200101T000000!", expires="1y"))
    make("revoked", lambda somebody: somebody.revoke(somebody.make_key(ALICE)))
    make("cannot encrypt", lambda one: one.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never"))
    make("weak", weak)
    make("rotating", lambda somebody: make_rotating(somebody, "3y"))
    make("carol's", lambda somebody: somebody.make_key(CAROL), CAROL)
    with TemporaryDirectory(prefix="cards-", dir="/tmp") as directory:
        maker = Maker(Path(directory))
        made["good card"] = maker.make().pem
        made["expired card"] = maker.make(*ec("P-256"), days=-1).pem
        made["signing card"] = maker.make(*ec("P-256"), usage="digitalSignature").pem
        made["carol's card"] = maker.make(*ec("P-384"), address=CAROL).pem
        made[DAMAGED] = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    made["version 6"] = NewerOwner("version 6").public
    made["ML-KEM"] = NewerOwner("version 4, ML-KEM").public
    with keys.owner() as everybody:
        everybody.gpg("--import", data=b"".join(made[kind] for kind in KINDS))
        keys.trust(everybody.home)
        made["trust"] = (everybody.home / "trustdb.gpg").read_bytes()
    return made


def make_keyrings(case: Case, home: Path, certificates: Mapping[str, bytes]) -> None:
    for template, kinds in case.keyrings:
        place = Path(template.replace("%h", str(home)))
        content = b"\xff" * 100 if kinds == (DAMAGED,) else b"".join(certificates[kind] for kind in kinds)
        if place.suffix == ".pgp":
            place.write_bytes(content)
        else:
            place.mkdir(mode=0o700)
            if newer := b"".join(certificates[kind] for kind in kinds if kind in NEWER_KINDS):
                (place / "certificates.pgp").write_bytes(newer)
                content = b"".join(certificates[kind] for kind in kinds if kind not in NEWER_KINDS)
            (place / "pubring.gpg").write_bytes(content)
            if template in case.trusting:
                (place / "trustdb.gpg").write_bytes(certificates["trust"])
    if case.smime is not None:
        (home / "smime.pem").write_bytes(b"".join(certificates[kind] for kind in case.smime))
    if case.noted:
        (home / "enrolled" / str(os.geteuid())).mkdir(parents=True)
        register.note(f"{home}/enrolled", case.user)


# What becomes of mail, in the words of all who are asked: the subkeys that it is encrypted to, or one of these two.
CLEAR, WAITS = "clear", "waits"
Fate = frozenset[str] | str


def delivered(home: Path, user: str, settings: Settings) -> Fate:
    incoming = Incoming(split(MESSAGE), True, ())
    try:
        environment = {"USER": user, "HOME": str(home), "RECIPIENT": ALICE}
        delivery = pipeline.encrypt_for_owner(
            incoming, Options(), environment, settings, Engines(lambda _: None, lasting=True)
        )
    except CryptomailError:
        return WAITS
    return frozenset(delivery.fingerprints) if delivery.encrypted else CLEAR


def checked(home: Path, user: str, settings: Settings) -> Fate:
    """What `check` and `list` say; they write the same."""
    try:
        state = inventory.look(owner.identify({"USER": user, "HOME": str(home)}, {}), settings, 30)
    except CryptomailError:
        return WAITS
    if used := frozenset(key.used for key in state.keys if key.used):
        return used
    if state.state != status.CRITICAL or "mail is stored in clear" in state.notes:
        return CLEAR
    return WAITS


def tried(home: Path, user: str, settings: Settings) -> Fate:
    """What `test` says."""
    try:
        fingerprints, _, _ = inventory.try_out(owner.identify({"USER": user, "HOME": str(home)}, {}), settings)
    except CryptomailError:
        return WAITS
    return frozenset(fingerprints) or CLEAR


def told(home: Path, user: str, settings: Settings) -> Fate:
    """What notices say, which name whole keys: here by their encryption subkeys, as they are in the owner's state."""
    whose = owner.identify({"USER": user, "HOME": str(home)}, {})
    try:
        standing = service.standing(whose, settings)
    except CryptomailError:
        return WAITS
    if standing.used is None:
        return WAITS
    subkeys = {key.fingerprint: key.used for key in standing.state.keys}
    return frozenset(subkeys[one.fingerprint] for one in standing.used) or CLEAR


@hypothesis_settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
@example(TWO_SHARED)
@example(TWO_SHARED._replace(user=WITHOUT_DOMAIN))
@example(TWO_SHARED._replace(keyrings=()))
@example(TWO_SHARED._replace(keyrings=(), noted=True))
@example(TWO_SHARED._replace(trusting=frozenset(), noted=True))
@example(TWO_SHARED._replace(keyrings=(("%h/.cryptomail", ("expired", "rotating")),)))
@example(TWO_SHARED._replace(keyrings=(("%h/.cryptomail", ("version 6", "ML-KEM", "expired", "good")),)))
@example(TWO_SHARED._replace(keyrings=(("%h/keys.pgp", ("version 6", "good", "revoked")),)))
@example(TWO_SHARED._replace(smime=("good card",)))
@example(TWO_SHARED._replace(smime=("good card", "expired card"), prefer="smime"))
@example(TWO_SHARED._replace(keyrings=(), smime=("expired card", "signing card")))
@example(TWO_SHARED._replace(keyrings=(), smime=(DAMAGED, "good card")))
def test_what_is_said_of_an_owner_s_mail_is_what_becomes_of_it(certificates: Mapping[str, bytes], case: Case) -> None:
    with TemporaryDirectory(prefix="agreement-", dir="/tmp") as directory:
        home = Path(directory)
        make_keyrings(case, home, certificates)
        settings = config_file.parse(case.toml)._replace(register=f"{home}/enrolled")
        fate = delivered(home, case.user, settings)
        assert checked(home, case.user, settings) == fate
        assert tried(home, case.user, settings) == fate
        assert told(home, case.user, settings) == fate


def test_mail_waits_where_no_engine_knows_all_keys(certificates: Mapping[str, bytes], tmp_path: Path) -> None:
    case = TWO_SHARED._replace(keyrings=(("%h/.cryptomail", ("weak", "version 6")),), minimum_bits=0)
    assert for_no_engine(case)
    make_keyrings(case, tmp_path, certificates)
    assert delivered(tmp_path, case.user, config_file.parse(case.toml)) == WAITS


@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases)
@example(TWO_SHARED)
@example(TWO_SHARED._replace(user=WITHOUT_DOMAIN))
def test_the_programs_say_so_too(certificates: Mapping[str, bytes], case: Case) -> None:
    with TemporaryDirectory(prefix="agreement-", dir="/tmp") as directory:
        home = Path(directory)
        make_keyrings(case._replace(noted=False), home, certificates)
        server = Server(home)
        server.config.write_text(case.toml)
        filtered = server.filter(MESSAGE, environment={"USER": case.user, "RECIPIENT": ALICE})
        fate = WAITS if filtered.returncode else CLEAR if filtered.stdout == MESSAGE else "encrypted"

        def said(action: str, *more: str) -> "subprocess.CompletedProcess[bytes]":
            named = ("--user", case.user, "--home", str(home), *more)
            return run("keys", action, *named, environment={"PATH": "/usr/bin:/bin"}, config=server.config)

        test = said("test", "--json")
        assert test.returncode == filtered.returncode
        if test.returncode == 0:
            assert json.loads(test.stdout)["encrypted"] == (fate == "encrypted")
        (state,) = json.loads(said("check", "--json").stdout)["owners"]
        assert any(key["used"] for key in state["keys"]) == (fate == "encrypted")
        assert state["keys"] == json.loads(said("list", "--json").stdout)[0]["keys"]


def test_owner_of_a_key_in_the_second_shared_keyring_is_told_when_another_key_is_saved(
    server: Server, certificates: Mapping[str, bytes], alice: Owner, new_owner: Callable[[], Owner], outbox: Outbox
) -> None:
    """The first shared keyring has other people's keys only: whoever knew the password could set up another key alone,
    and nobody was told.
    """
    for place, public in (("first", certificates["carol's"]), ("second", alice.public(ALICE))):
        server.give(public, place)
    server.config.write_text('[keyrings]\nshared = ["%h/first", "%h/second"]\n')
    thief = new_owner()
    thief.make_key(ALICE)
    program(server, letter(thief), sendmail=outbox.program, config=server.config)
    [(_, notice), _] = outbox.take()
    assert b"Another OpenPGP key was set up for you" in notice
    assert b"Whoever has that key can read it." in decrypt(notice, alice)
    assert decrypt(server.filter(MESSAGE).stdout, alice) == MESSAGE
    listed = run(
        *("keys", "list", "--user", ALICE, "--home", str(server.home)),
        environment={"PATH": "/usr/bin:/bin"},
        config=server.config,
    )
    assert fingerprint_of(alice).encode() in listed.stdout
