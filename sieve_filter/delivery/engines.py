"""Chooses what encrypts a message: GnuPG, which can do everything, or Sequoia, which is faster for many small ones."""

from collections.abc import Callable, Iterable

from sieve_filter.delivery.encrypt import Engine, Sink
from sieve_filter.errors import ConfigError, EncryptionError
from sieve_filter.gpg import runner
from sieve_filter.keys.recipients import Recipients
from sieve_filter.policy.settings import AUTO, GNUPG, SEQUOIA, Settings

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
        """What encrypts the next message; a `large` one goes through GnuPG, which does not hold it in memory.

        The engine verifies what this process read of a keyring; else it raises UnverifiedError, after it may have taken
        some of what it was to encrypt. Raises ConfigError where Sequoia is asked for and not installed.
        """

        def by_gnupg(source: Iterable[bytes], sink: Sink, recipients: Recipients) -> str:
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
                if recipients.proofs:
                    raise UnverifiedError from error
                raise
            return GNUPG

        if large or not self._wants_sequoia(settings):
            return by_gnupg
        from sieve_filter.delivery import sequoia  # an executed filter starts gpg, and need not load it

        if not sequoia.installed():
            if settings.engine == SEQUOIA:
                raise ConfigError('engine is "sequoia", but it is not installed: make install SEQUOIA=yes')
            return by_gnupg

        def by_sequoia(source: Iterable[bytes], sink: Sink, recipients: Recipients) -> str:
            if recipients not in self._unsuitable and recipients.expired_after is None:
                plain = b"".join(source)
                source = [plain]
                try:
                    sink(sequoia.encrypt(plain, recipients))
                    return SEQUOIA
                except sequoia.UnsuitableError as error:
                    self._unsuitable.add(recipients)
                    keys = ", ".join(recipients.fingerprints)
                    self.warn(f"Sequoia cannot encrypt to {keys}: {error}; GnuPG does it")
            return by_gnupg(source, sink, recipients)

        return by_sequoia

    def _wants_sequoia(self, settings: Settings) -> bool:
        """Whether Sequoia is to encrypt, if it is installed."""
        able = self._lasting and settings.compression == "none"
        return settings.engine == SEQUOIA or (settings.engine == AUTO and able)
