"""What a search for an owner's keys finds, and what mail is encrypted to. Pure: only the shapes of it."""

from collections.abc import Container, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from sieve_filter.gpg.colons import Key

NEWER = "certificates.pgp"  # in a GnuPG home, the file of certificates that GnuPG cannot read


class FileVersion(NamedTuple):
    """What a file shows when it has been changed; `changed` counts nanoseconds since 1970."""

    inode: int
    size: int
    changed: int
    is_file: bool


# The files of a keyring; None for one that is not there.
Version = tuple[FileVersion | None, ...]


class Home(NamedTuple):
    """A GnuPG home or a file of certificates, as it is now."""

    path: str
    version: Version


class Holding(NamedTuple):
    """Keys in one keyring that count; `listing` is gpg's, with signatures, where these were asked for.

    Where this process read the keyring, each key has the encryption subkey alone that may be chosen, and `proofs` has
    certificates of it, by its fingerprint: see `plain`. Nobody has verified them.
    Of keys that GnuPG cannot read, `newer` has a certificate of each encryption subkey likewise, which Sequoia has.
    Where they are S/MIME's, each key is one of `certificates`, which has them in DER.
    """

    home: Home
    keys: tuple[Key, ...]
    listing: bytes = b""
    proofs: Mapping[str, tuple[bytes, ...]] | None = None
    newer: Mapping[str, tuple[bytes, ...]] = MappingProxyType({})
    certificates: Mapping[str, bytes] | None = None

    def of(self, fingerprints: Sequence[str]) -> "Recipients":
        """These subkeys, which are among the keys, as something to encrypt to."""
        known = {**(self.proofs or {}), **self.newer}
        return Recipients(
            (self.home.path,),
            tuple(fingerprints),
            (self.home.version,),
            proofs=tuple((one, known[one]) for one in fingerprints if one in known),
            newer=tuple(one for one in fingerprints if one in self.newer),
            certificates=tuple(self.certificates[one] for one in fingerprints) if self.certificates is not None else (),
        )


class Found(NamedTuple):
    """The keys that count for a message to `user`.

    There is one holding, or none; where the message's own options name keys (`named`), there is one for each, and all
    are needed. `place` is where the owner's keys belong; `lost` says that there is none, and that there was one before.
    `strangers` are keys with an address of the owner's that do not count, because nothing says that they are theirs.
    """

    user: str
    holdings: tuple[Holding, ...]
    place: str = ""
    named: bool = False
    lost: bool = False
    strangers: tuple[Holding, ...] = ()

    @property
    def doubts(self) -> tuple[str, ...]:
        """In words, what is to be said of each stranger's key, and what is to be done."""
        return tuple(
            f"key {key.fingerprint} in {holding.home.path} has an address of {self.user}, and does not count, because "
            "nothing says that it is theirs: if it is, set it up with cryptomail keys import, or have them trust it "
            f"ultimately (gpg --edit-key {key.fingerprint} trust)"
            for holding in self.strangers
            for key in holding.keys
        )

    def naming(self, fingerprints: Container[str]) -> "Found":
        """The same where a message's own options name those of these keys."""
        named = (
            one._replace(keys=(key,)) for one in self.holdings for key in one.keys if key.fingerprint in fingerprints
        )
        return self._replace(holdings=tuple(named), named=True)


class Recipients(NamedTuple):
    """What to encrypt to: fingerprints of encryption subkeys, the GnuPG homes that hold them, and their versions.

    Where the keys have expired, `expired_after` is the last second at which they were good. Where this process read the
    keyring, `proofs` are those of each subkey (see `Holding`), which whoever encrypts has to verify. GnuPG cannot read
    those of `newer`.
    Where mail becomes S/MIME, `certificates` has the certificate of each fingerprint, in DER.
    """

    homes: tuple[str, ...]
    fingerprints: tuple[str, ...]
    versions: tuple[Version, ...]
    expired_after: int | None = None
    proofs: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    newer: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()

    @property
    def unverified(self) -> bool:
        """Whether nobody has verified some of what is said of them."""
        return len(self.proofs) > len(self.newer)
