"""Keys that GnuPG cannot read, and their owners, who read mail with Sequoia."""

from pysequoia import CipherSuite, EncryptionAlgorithm, Profile, Tsk, decrypt

from sieve_filter.mail import protection
from sieve_filter.openpgp.packets import split
from tests.support.filtered import armor_in
from tests.support.server import ALICE

# Each with what it is made with.
KINDS = {
    "version 6": {"profile": Profile.RFC9580},
    "version 6, RSA": {"profile": Profile.RFC9580, "cipher_suite": CipherSuite.RSA3k},
    "version 6, post-quantum": {"profile": Profile.RFC9580, "cipher_suite": CipherSuite.MLDSA65_Ed25519},
    "version 4, ML-KEM": {
        "profile": Profile.RFC4880,
        "encryption_algorithm": EncryptionAlgorithm.MLKEM768_X25519,
    },
    "version 4, X25519": {"profile": Profile.RFC4880, "encryption_algorithm": EncryptionAlgorithm.X25519},
}


class NewerOwner:
    """Somebody who has such a key."""

    def __init__(self, kind: str = "version 6", address: str = ALICE, seconds: int | None = None) -> None:
        self.tsk = Tsk.generate(f"<{address}>", validity_seconds=seconds, **KINDS[kind])  # type: ignore[arg-type]
        self.certificate = self.tsk.extract_certificate()

    @property
    def public(self) -> bytes:
        return bytes(self.certificate)

    @property
    def armored(self) -> bytes:
        return str(self.certificate).encode()

    @property
    def fingerprint(self) -> str:
        return str(self.certificate.fingerprint).upper()

    @property
    def revoked(self) -> bytes:
        """The public key, with its own revocation behind its first packet."""
        signature = bytes(self.certificate.revoke(self.tsk.certifier()))
        first = split(self.public)[0].raw
        return first + signature + self.public[len(first) :]

    def read(self, stored: bytes) -> bytes:
        """The message that was stored encrypted, as it arrived."""
        content = decrypt(armor_in(stored), decryptor=self.tsk.decryptor()).bytes
        assert content is not None
        original = protection.restore(content)
        assert original is not None
        return original
