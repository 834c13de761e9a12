"""One message for one owner: from options, environment and settings to what may be stored."""

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from sieve_filter.delivery.encrypt import Decide, Delivery, encrypt_message, unchanged
from sieve_filter.delivery.engines import Engines, UnverifiedError
from sieve_filter.delivery.incoming import Incoming, receive
from sieve_filter.errors import ConfigError, TooLargeError, UsageError
from sieve_filter.keys import choices, find
from sieve_filter.keys.decision import Encrypt, Left, Rules, StoreClear, Wait, decide, settled
from sieve_filter.keys.recipients import Found
from sieve_filter.limits import SMALL_OCTETS
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.mail.message import Message, split
from sieve_filter.owners import owner, register
from sieve_filter.owners.owner import Owner
from sieve_filter.policy import config_file, levels
from sieve_filter.policy.levels import Effective
from sieve_filter.policy.settings import STORE_PLAIN, Options, Settings
from sieve_filter.system.spool import MemoryFile, Spool

# What of a Message-ID goes into a log line: what RFC 5322 section 3.6.4 allows, and no more than a line takes.
_MESSAGE_ID = rb"<[!-;=?-~]{1,200}>"  # compiled where it is used: where something is logged


_BEGINNING = 65536


class Beginning:
    """The first octets of a message, as it comes in: they have its Message-ID, whatever becomes of the rest."""

    def __init__(self) -> None:
        self._octets = b""

    def passing(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if len(self._octets) < _BEGINNING:
                self._octets += piece[:_BEGINNING]
            yield piece

    @property
    def message_id(self) -> str:
        """See the function of that name."""
        return message_id(split(self._octets))


def settings(
    named: str | None, installed: str, trusted_owners: frozenset[int] | None = None, register_directory: str = ""
) -> Settings:
    """The settings in the file `named`, else in the `installed` one, else the defaults. Raises ConfigError."""
    try:
        return config_file.load(named or installed, trusted_owners)._replace(register=register_directory)
    except FileNotFoundError:
        if named:
            raise ConfigError(f"there is no file {named}") from None
        return Settings(register=register_directory)


def for_owner(whose: Owner, settings: Settings, warn: Callable[[str], object]) -> Effective:
    """What counts for `whose`. Runs as the user who owns the mail."""
    chosen: Mapping[str, str] | None = {}
    if settings.owners_may and (file := choices.path(whose, settings.keyrings)):
        chosen = choices.read(file)
        if chosen is None:
            warn(f"what {whose.user} has chosen cannot be read, so the safest counts: mend or remove {file}")
    return levels.for_owner(settings, whose.user, chosen)


def receive_message(pieces: Iterator[bytes], settings: Settings) -> Incoming:
    """Take the message in; as much of it at least as it takes to know whether it is larger than size_limit."""
    keeps_large = settings.size_limit and settings.too_large == STORE_PLAIN
    return receive(pieces, max(SMALL_OCTETS, settings.size_limit) if keeps_large else SMALL_OCTETS)


def encrypt_for_owner(
    incoming: Incoming,
    options: Options,
    environment: Mapping[str, str],
    settings: Settings,
    engines: Engines,
) -> Delivery:
    """Encrypt the message to the owner whom `environment` names. Raises CryptomailError."""
    if options.key and options.keydata:
        raise UsageError("--key and --keydata exclude each other")
    wanted = [find.parse_wanted(one) for one in options.key]
    whose = owner.identify(environment, settings.aliases)
    settings = for_owner(whose, settings, engines.warn).settings

    def decided(listed: bool) -> Encrypt | StoreClear:
        if options.keydata:
            found = _find_in_script(options.keydata, listed)
        else:
            found = find_keys(whose, settings, wanted, listed=listed)
        decision = decide(found, rules(settings, options), int(time.time()))
        if not settled(decision, found):
            return decided(listed=True)
        if found.lost:
            register.note(settings.register, whose.user)
        if isinstance(decision, Wait):
            raise decision.error
        if isinstance(decision, StoreClear) and found.holdings:
            engines.warn(f"stored in clear: {decision.reason}")
        if isinstance(decision, Encrypt) and (moment := decision.recipients.expired_after) is not None:
            day = time.strftime("%Y-%m-%d", time.gmtime(moment + 1))
            engines.warn(f"encrypted to a key that expired on {day}: renew it")
        if isinstance(decision, Encrypt) and not found.named:
            register.note(settings.register, whose.user)
        return decision

    if settings.size_limit:
        if len(incoming.message.raw) > settings.size_limit:
            if settings.too_large == STORE_PLAIN and not options.require:
                return unchanged(incoming, "it is larger than size_limit", Left.TOO_LARGE)
            raise _too_large(settings.size_limit)
        incoming = incoming._replace(rest=_limited(incoming, settings.size_limit))
    policy = options.header_policy or settings.header_policy
    if incoming.whole:  # it can be read twice
        try:
            return _encrypt(incoming, policy, lambda: decided(listed=False), settings, engines)
        except UnverifiedError:
            pass
    return _encrypt(incoming, policy, lambda: decided(listed=True), settings, engines)


def encrypt_to(message: bytes, found: Found, settings: Settings, engines: Engines) -> Delivery:
    """Encrypt a message of the server's own to the keys `found`, which are named. Raises CryptomailError."""
    return encrypt_incoming_to(Incoming(split(message), True, ()), found, settings, engines)


def encrypt_incoming_to(incoming: Incoming, found: Found, settings: Settings, engines: Engines) -> Delivery:
    """Encrypt a message to the keys `found`, which are named. Raises CryptomailError."""
    decision = decide(found, rules(settings, Options()), int(time.time()))
    if isinstance(decision, Wait):
        raise decision.error
    return _encrypt(incoming, settings.header_policy, lambda: decision, settings, engines)


def _encrypt(incoming: Incoming, policy: str, decided: Decide, settings: Settings, engines: Engines) -> Delivery:
    boundary = b"_cryptomail_" + os.urandom(16).hex().encode("ascii")
    encrypt = engines.choose(settings, large=not incoming.whole)
    cipher = settings.smime_cipher
    return encrypt_message(incoming, POLICIES[policy], decided, encrypt, boundary, Spool(), MemoryFile, cipher)


def find_keys(
    whose: Owner, settings: Settings, wanted: Sequence[str] = (), *, signatures: bool = False, listed: bool = True
) -> Found:
    """As `find.find`; where there is no key, it is known whether there was one. Raises RegisterError too."""
    found = find.find(whose, settings.keyrings, wanted, signatures=signatures, listed=listed)
    if found.holdings:
        return found
    served = bool(found.strangers) and find.unchanged_since(found.strangers, register.upgraded(settings.register))
    return found._replace(lost=served or register.has(settings.register, whose.user))


def rules(settings: Settings, options: Options) -> Rules:
    """What `decision.decide` goes by."""
    return Rules(
        minimum_bits=settings.keyrings.minimum_bits,
        no_key=settings.no_key,
        unusable_key=settings.unusable_key,
        expired_key=options.on_expired or settings.expired_key,
        required=options.require,
    )


def _find_in_script(pieces: Sequence[str], listed: bool) -> Found:
    from sieve_filter.keys import script_key  # others do not pay for its imports

    return find.find_in_file(script_key.keyring(pieces), listed=listed)


def message_id(message: Message) -> str:
    """The Message-ID, as far as it may be in a log; empty where there is none."""
    found = [match for field in message.named(b"message-id") if (match := re.search(_MESSAGE_ID, field.value))]
    return found[0][0].decode("ascii") if found else ""


def _limited(incoming: Incoming, limit: int) -> Iterator[bytes]:
    """The pieces that follow; TooLargeError where the message has more octets than `limit`."""
    size = len(incoming.message.raw)
    for piece in chain([b""], incoming.rest):
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        yield piece


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"it has more octets than size_limit, {limit}")
