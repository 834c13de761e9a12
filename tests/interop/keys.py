"""Keys of every kind, by the programs that their owners make them with."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pysequoia import CipherSuite, EncryptionAlgorithm, Profile, Tsk

from lab import keys
from lab.keys import Owner
from tests.support.server import ALICE

GNUPG, GNUPG_24, SEQUOIA = "gpg 2.2", "gpg 2.4", "PySequoia"


class Made(NamedTuple):
    """Keys of one owner: `public` and `secret` are binary; `by` is the owner's own kind of program."""

    public: bytes
    secret: bytes
    by: str


Make = Callable[[], Made]


def _by_gnupg(*subkeys: str, primary: str = "ed25519") -> Make:
    def make() -> Made:
        with keys.owner() as owner:
            clock = ["--faked-system-time", "20240101T000000!"]
            owner.gpg(*clock, "--quick-gen-key", f"<{ALICE}>", primary, "cert,sign", "never")
            for day, algorithm in enumerate(subkeys, start=2):
                later = ["--faked-system-time", f"202401{day:02}T000000!"]
                owner.gpg(*later, "--quick-add-key", _fingerprint(owner), algorithm, "encr", "never")
            return _exported(owner, GNUPG)

    return make


def _by_gnupg_24() -> Made:
    """By `gpg --compliance gnupg --quick-gen-key` of 2.4.7: it would like OCB, which is GnuPG's own."""
    with keys.owner() as owner:
        owner.gpg("--import", data=(Path(__file__).parents[1] / "support/keys/gnupg-2.4-aead.asc").read_bytes())
        return _exported(owner, GNUPG_24)


def _exported(owner: Owner, by: str) -> Made:
    return Made(owner.gpg("--export"), owner.gpg("--export-secret-keys"), by)


def _fingerprint(owner: Owner) -> str:
    listing = owner.gpg("--with-colons", "--list-keys").decode()
    return next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))


def _by_sequoia(
    profile: Profile, suite: CipherSuite | None = None, encryption: EncryptionAlgorithm | None = None
) -> Make:
    def make() -> Made:
        tsk = Tsk.generate(f"<{ALICE}>", profile=profile, cipher_suite=suite, encryption_algorithm=encryption)
        return Made(bytes(tsk.extract_certificate()), bytes(tsk), SEQUOIA)

    return make


def _two(one: Make, other: Make) -> Make:
    """An owner with two keys, who reads with the second."""

    def make() -> Made:
        first, second = one(), other()
        return Made(first.public + second.public, second.secret, second.by)

    return make


_CURVE_25519 = _by_gnupg("cv25519")
_VERSION_6 = _by_sequoia(Profile.RFC9580)

KINDS: dict[str, Make] = {
    "GnuPG, RSA 2048": _by_gnupg("rsa2048", primary="rsa2048"),
    "GnuPG, RSA 3072": _by_gnupg("rsa3072", primary="rsa3072"),
    "GnuPG, RSA 4096": _by_gnupg("rsa4096", primary="rsa4096"),
    "GnuPG, Curve25519": _CURVE_25519,
    "GnuPG, Curve25519, two subkeys": _by_gnupg("rsa2048", "cv25519"),
    "GnuPG, NIST P-256": _by_gnupg("nistp256", primary="nistp256"),
    "GnuPG, NIST P-384": _by_gnupg("nistp384", primary="nistp384"),
    "GnuPG, NIST P-521": _by_gnupg("nistp521", primary="nistp521"),
    "GnuPG, Brainpool P-256": _by_gnupg("brainpoolP256r1", primary="brainpoolP256r1"),
    "GnuPG, Brainpool P-512": _by_gnupg("brainpoolP512r1", primary="brainpoolP512r1"),
    "GnuPG 2.4's own profile": _by_gnupg_24,
    "Sequoia, version 4, Curve25519": _by_sequoia(Profile.RFC4880),
    "Sequoia, version 4, RSA 3072": _by_sequoia(Profile.RFC4880, CipherSuite.RSA3k),
    "Sequoia, version 4, X25519": _by_sequoia(Profile.RFC4880, None, EncryptionAlgorithm.X25519),
    "Sequoia, version 4, ML-KEM-768": _by_sequoia(Profile.RFC4880, None, EncryptionAlgorithm.MLKEM768_X25519),
    "Sequoia, version 6, Curve25519": _VERSION_6,
    "Sequoia, version 6, Curve448": _by_sequoia(Profile.RFC9580, CipherSuite.Cv448),
    "Sequoia, version 6, RSA 3072": _by_sequoia(Profile.RFC9580, CipherSuite.RSA3k),
    "Sequoia, version 6, ML-KEM-768": _by_sequoia(Profile.RFC9580, None, EncryptionAlgorithm.MLKEM768_X25519),
    "Sequoia, version 6, ML-DSA-65 and ML-KEM-768": _by_sequoia(Profile.RFC9580, CipherSuite.MLDSA65_Ed25519),
    "Sequoia, version 6, ML-DSA-87 and ML-KEM-1024": _by_sequoia(Profile.RFC9580, CipherSuite.MLDSA87_Ed448),
    "keys of version 4 and 6, read with that of version 4": _two(_VERSION_6, _CURVE_25519),
    "keys of version 4 and 6, read with that of version 6": _two(_CURVE_25519, _VERSION_6),
}
