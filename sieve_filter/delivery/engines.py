"""Chooses what encrypts a message: GnuPG, which can do everything, or Sequoia, which is faster for many small ones.

What becomes S/MIME goes through OpenSSL.
"""

from collections.abc import Callable, Iterable

from sieve_filter.delivery.encrypt import Engine, Sink
from sieve_filter.errors import ConfigError, EncryptionError
from sieve_filter.gpg import runner
from sieve_filter.keys.recipients import Recipients
from sieve_filter.policy.settings import AUTO, GNUPG, OPENSSL, SEQUOIA, Settings

Warn = Callable[[str], object]


class UnverifiedError(Exception):
    """What this process read of a keyring is not so: GnuPG does not encrypt to these keys."""


class Engines:
    """The engines of one process. `warn` is told what the log should say of a message; once of each key that Sequoia
    cannot use.

    `lasting` processes take Sequoia where it is installed and nobody chose; for others, starting gpg once is cheaper.
    """

    def __init__(self, warn: Warn, *, lasting: bool) -> None:
        self.warn = warn
        self._lasting = lasting
        self._unsuitable: set[Recipients] = set()

    def choose(self, settings: Settings, *, large: bool) -> Engine:
        """What encrypts the next message: to keys as `_choose` says, to certificates OpenSSL.

        Raises as `_choose` does.
        """
        openpgp = self._choose(settings, large)

        def either(source: Iterable[bytes], sink: Sink, recipients: Recipients) -> str:
            if recipients.certificates:
                from sieve_filter.delivery import smime  # most owners have none

                smime.by_openssl(source, sink, recipients, settings)
                return OPENSSL
            return openpgp(source, sink, recipients)

        return either

    def _choose(self, settings: Settings, large: bool) -> Engine:
        """What encrypts to OpenPGP keys; a `large` message goes through GnuPG, which does not hold it in memory.

        To keys that GnuPG cannot read, Sequoia encrypts, whatever was chosen.

        The engine verifies what this process read of a keyring; else it raises UnverifiedError, after it may have taken
        some of what it was to encrypt. Raises ConfigError where Sequoia is asked for and not installed.
        """

        def by_gnupg(source: Iterable[bytes], sink: Sink, recipients: Recipients) -> str:
            if recipients.newer:
                return _by_sequoia_alone(source, sink, recipients, large)
            try:
                runner.encrypt(
                    source,
                    sink,
                    recipients.homes,
                    recipients.fingerprints,
                    settings.compression,
                    recipients.expired_after,
                )
            except EncryptionError as error:
                if recipients.unverified:
                    raise UnverifiedError from error
                raise
            return GNUPG

        if large or not self._wants_sequoia(settings):
            return by_gnupg
        from sieve_filter.delivery import sequoia  # an executed filter starts gpg, and need not load it
        from sieve_filter.sequoia import engine

        if not engine.installed():
            if settings.engine == SEQUOIA:
                raise ConfigError('engine is "sequoia", but it is not installed: make install SEQUOIA=yes')
            return by_gnupg

        def by_sequoia(source: Iterable[bytes], sink: Sink, recipients: Recipients) -> str:
            able = recipients.expired_after is None and not recipients.newer
            if able and recipients not in self._unsuitable:
                plain = b"".join(source)
                source = [plain]
                try:
                    sink(sequoia.encrypt(plain, recipients))
                    return SEQUOIA
                except engine.UnsuitableError as error:
                    self._unsuitable.add(recipients)
                    keys = ", ".join(recipients.fingerprints)
                    self.warn(f"Sequoia cannot encrypt to {keys}: {error}; GnuPG does it")
            return by_gnupg(source, sink, recipients)

        return by_sequoia

    def _wants_sequoia(self, settings: Settings) -> bool:
        """Whether Sequoia is to encrypt, if it is installed."""
        able = self._lasting and settings.compression == "none"
        return settings.engine == SEQUOIA or (settings.engine == AUTO and able)


def _by_sequoia_alone(source: Iterable[bytes], sink: Sink, recipients: Recipients, large: bool) -> str:
    """Encrypt to keys of which GnuPG cannot read some. Returns the engine. Raises UnverifiedError, EncryptionError."""
    from sieve_filter.delivery import sequoia  # hardly any owner has such keys
    from sieve_filter.sequoia.engine import UnsuitableError

    try:
        if large:
            sequoia.encrypt_large(source, sink, recipients)
        else:
            sink(sequoia.encrypt(b"".join(source), recipients))
    except UnsuitableError as error:
        if recipients.unverified:
            raise UnverifiedError from error
        keys = ", ".join(recipients.fingerprints)
        raise EncryptionError(f"Sequoia fails to encrypt to {keys}: {error}; GnuPG cannot read them") from error
    return SEQUOIA
