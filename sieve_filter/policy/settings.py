"""What is wanted: the administrator's settings, and what a Sieve script chooses. Values only; nothing is read here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

STORE_PLAIN, REFUSE, ENCRYPT_ANYWAY = "store-plain", "refuse", "encrypt-anyway"  # decisions
AUTO, GNUPG, SEQUOIA = "auto", "gnupg", "sequoia"  # engines
OPENSSL = "openssl"  # that of S/MIME
OPENPGP, SMIME = "openpgp", "smime"  # what mail becomes
CBC, GCM = "aes-256-cbc", "aes-256-gcm"  # ciphers of S/MIME
PKCS1, OAEP = "pkcs1", "oaep"  # how RSA encrypts keys of S/MIME
# Folders with mail that is still written, or will still be sent, by the last part of their names in lower case: what is
# in there is never encrypted.
UNFINISHED = ("drafts", "templates", "outbox")


class Keyrings(NamedTuple):
    """Where keys may be, as templates of `owner.expand`, each naming a GnuPG home or a file of binary certificates.

    All keys in the first of `owner` that has any are the owner's; in the first of `shared` that has any such, those
    with one of the owner's addresses, as far as GnuPG knows that they are of who owns the keyring. `certificates` are
    templates of files of S/MIME certificates, of which the first that is there counts; `prefer` says what does of an
    owner who has both.
    """

    owner: tuple[str, ...]
    shared: tuple[str, ...]
    minimum_bits: int
    certificates: tuple[str, ...] = ("%h/.cryptomail/smime.pem",)
    prefer: str = OPENPGP

    @property
    def in_files(self) -> bool:
        """Whether an owner's own keys are a file, as a Web Key Directory names them, and not in a GnuPG home."""
        return self.owner[0].endswith("%w")


class Settings(NamedTuple):
    """What the administrator decided; the defaults are those of a missing file. cryptomail.toml(5) explains each.

    `size_limit` counts octets (0: no limit), `time_limit` and `removal_delay` seconds. `register` is not in the file,
    but known to what is installed: the directory of `register`, empty where there is none. `domains` are the sections
    for domains, in lower case, and `given` the names of the settings that the file has at its top and under [on].
    """

    header_policy: str = "no_confidentiality"
    engine: str = AUTO
    compression: str = "none"
    smime_cipher: str = CBC
    smime_padding: str = PKCS1
    recipient_delimiter: str = "+"
    size_limit: int = 0
    time_limit: int = 50
    keyrings: Keyrings = Keyrings(owner=("%h/.cryptomail",), shared=("%h/.gnupg",), minimum_bits=2048)
    no_key: str = STORE_PLAIN
    unusable_key: str = REFUSE
    expired_key: str = ENCRYPT_ANYWAY
    too_large: str = REFUSE
    not_owners: tuple[str, ...] = ()
    saved_folders: tuple[str, ...] = ()
    removal_delay: int = 86_400
    aliases: Mapping[str, tuple[str, ...]] = {}  # a Mapping cannot be written to
    owners_may: tuple[str, ...] = ()
    domains: Mapping[str, Mapping[str, str]] = {}
    given: frozenset[str] = frozenset()
    register: str = ""


class Options(NamedTuple):
    """What a Sieve script may choose, as `arguments.add_options` explains it.

    None of it reaches beyond the caller's own mail and keys.
    """

    key: Sequence[str] = ()
    keydata: Sequence[str] = ()
    require: bool = False
    on_expired: str | None = None
    header_policy: str | None = None
    config: str | None = None
