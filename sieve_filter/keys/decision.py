"""Decides what becomes of mail: it is encrypted, stored in clear, or has to wait. Pure.

Deliveries, `keys check`, `keys test` and the notices to owners ask `decide` alone, so that they cannot differ.
"""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from sieve_filter.errors import ExpiredKeyError, LostKeyringError, NoKeyError, RefusedError, UnusableKeyError
from sieve_filter.gpg.colons import Key
from sieve_filter.keys import usable
from sieve_filter.keys.recipients import Found, Holding, Recipients
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, STORE_PLAIN


class Rules(NamedTuple):
    """What the administrator's settings and the Sieve script's options say, as far as it matters here.

    `no_key`, `unusable_key` and `expired_key` are as in cryptomail.toml(5); `required` says that nothing may be stored
    in clear, whatever these say.
    """

    minimum_bits: int
    no_key: str
    unusable_key: str
    expired_key: str
    required: bool = False


class Encrypt(NamedTuple):
    """Mail is encrypted to these."""

    recipients: Recipients


class Left(Enum):
    """Why a message is left as it came. The values are what logs and counts call it."""

    ENCRYPTED_ALREADY = "encrypted-already"
    NO_KEY = "no-key"
    UNUSABLE_KEY = "unusable-key"
    EXPIRED_KEY = "expired-key"
    TOO_LARGE = "too-large"


class StoreClear(NamedTuple):
    """Mail is stored as it came, for that `reason` in words; `why` is its kind."""

    reason: str
    why: Left


class Wait(NamedTuple):
    """Mail is refused for now, with that error."""

    error: RefusedError


Decision = Encrypt | StoreClear | Wait


def decide(found: Found, rules: Rules, now: int) -> Decision:
    """What becomes of mail where these keys are found; `now` is in seconds since 1970."""
    if found.lost:
        why = "; ".join(found.doubts) or (
            f"{found.user} had a key, and there is none in {found.place} any more: is the home there?"
        )
        return Wait(
            LostKeyringError(f"{why}; to store mail in clear from now on: cryptomail keys off --user {found.user}")
        )
    if not found.holdings:
        if rules.required or rules.no_key != STORE_PLAIN:
            return Wait(NoKeyError(f"{found.user} has no key; set one up in {found.place}"))
        return StoreClear("; ".join(("its owner has no key set up", *found.doubts)), Left.NO_KEY)
    chosen: list[Recipients] = []
    for holding in found.holdings:
        choice = _usable(holding, rules, now)
        if not isinstance(choice, Recipients):
            expired = isinstance(choice, ExpiredKeyError)
            setting = rules.expired_key if expired else rules.unusable_key
            clear = setting == STORE_PLAIN and not (rules.required or found.named)
            return (
                StoreClear(str(choice), Left.EXPIRED_KEY if expired else Left.UNUSABLE_KEY) if clear else Wait(choice)
            )
        chosen.append(choice)
    return Encrypt(
        Recipients(
            tuple(dict.fromkeys(home for one in chosen for home in one.homes)),
            tuple(dict.fromkeys(fingerprint for one in chosen for fingerprint in one.fingerprints)),
            tuple(dict.fromkeys(version for one in chosen for version in one.versions)),
            min((one.expired_after for one in chosen if one.expired_after is not None), default=None),
            tuple(dict.fromkeys(proofs for one in chosen for proofs in one.proofs)),
            tuple(dict.fromkeys(fingerprint for one in chosen for fingerprint in one.newer)),
            tuple(dict.fromkeys(certificate for one in chosen for certificate in one.certificates)),
        )
    )


def settled(decision: Decision, found: Found) -> bool:
    """Whether what was decided is sure once mail is encrypted.

    Where this process read the keyring, nobody has verified what it says, and only what mail is encrypted to will be.
    """
    read = [holding for holding in found.holdings if holding.proofs is not None]
    if not read:
        return True
    return (
        isinstance(decision, Encrypt)
        and decision.recipients.expired_after is None
        and len(decision.recipients.fingerprints) == sum(len(holding.keys) for holding in found.holdings)
    )


def _usable(holding: Holding, rules: Rules, now: int) -> Recipients | UnusableKeyError:
    """The keys of a keyring that may be encrypted to, or why there is none."""
    home, keys = holding.home, holding.keys
    if fingerprints := _chosen(keys, rules.minimum_bits, now):
        return holding.of(fingerprints)
    reasons = "; ".join(f"key {key.fingerprint} {usable.choose(key, rules.minimum_bits, now)}" for key in keys)
    error = f"no usable key in {home.path}: {reasons}; renew or replace it"
    moments = {key: moment for key in keys if (moment := usable.last_good(key, now)) is not None}
    moment = max(moments.values(), default=now)
    # No others, even if they were good at that moment: of those, owners may have destroyed the secret.
    past = _chosen(list(moments), rules.minimum_bits, moment)
    if not past:
        return UnusableKeyError(error)
    if rules.expired_key != ENCRYPT_ANYWAY:
        return ExpiredKeyError(error)
    return holding.of(past)._replace(expired_after=moment)


def _chosen(keys: Sequence[Key], minimum_bits: int, now: int) -> tuple[str, ...]:
    """The fingerprint of the subkey to encrypt to, of each key that has one at that time."""
    choices = (usable.choose(key, minimum_bits, now) for key in keys)
    return tuple(choice.fingerprint for choice in choices if not isinstance(choice, str))
