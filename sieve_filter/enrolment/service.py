"""Does what becomes of a mailbox owner's keys: sets them up or takes one away, and tells the owner of it.

Runs with the rights of the user whose mail files they are, and for nobody but the owner whom Dovecot names.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.delivery import inventory, pipeline
from sieve_filter.delivery.engines import Engines
from sieve_filter.enrolment import request, waiting
from sieve_filter.errors import CryptomailError, DeliveryError, UsageError
from sieve_filter.gpg import colons, runner, temporary_home
from sieve_filter.keys import beside, changes, find, status, x509, x509_changes
from sieve_filter.keys.changes import Order, Verdicts
from sieve_filter.keys.decision import Wait
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.keys.recipients import Found
from sieve_filter.keys.status import OwnerState
from sieve_filter.notify import notices, post, proofs
from sieve_filter.notify.notices import KeyFacts, Words
from sieve_filter.notify.post import Post, deliver
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.owners import owner, register
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import SMIME, Settings
from sieve_filter.smime import certificate as smime
from sieve_filter.smime.certificate import X509

_WARN_DAYS = 30
_IDLE = "it does not count while there are OpenPGP keys, unless keyrings.prefer says so"


class Desk(NamedTuple):
    """What an enrolment works with: the settings, the ways to deliver, and who is told of what goes wrong."""

    settings: Settings
    post: Post
    warn: Callable[[str], object]


class Standing(NamedTuple):
    """What a delivery finds of an owner's keys, their state, and those that mail is encrypted to.

    `used` is None where mail waits, because there is no key that it may be encrypted to.
    """

    found: Found
    state: OwnerState
    used: tuple[KeyFacts, ...] | None


def place(settings: Settings, whose: Owner) -> str:
    """The GnuPG home that keys of `whose` are put into. Raises UsageError where it would be others' too."""
    return _own_place("keyrings.owner", settings.keyrings.owner, whose)


def certificate_place(settings: Settings, whose: Owner) -> str:
    """The file that S/MIME certificates of `whose` are put into. Raises UsageError where it would be others' too."""
    return _own_place("keyrings.certificates", settings.keyrings.certificates, whose)


def _own_place(setting: str, templates: Sequence[str], whose: Owner) -> str:
    if not templates:
        raise UsageError(f"{setting} is empty in the configuration: there is no place for an owner's key")
    template = templates[0]
    if not any(variable in template for variable in ("%h", "%u", "%n", "%w")):
        raise UsageError(f"{setting} begins with {template}, which is the same place for everybody")
    return owner.expand(template, whose)


def requests(whose: Owner, settings: Settings) -> Path:
    """The file in which requests of `whose` wait: see `waiting`. Raises UsageError as `place` does."""
    if not settings.keyrings.owner:
        return beside.path(certificate_place(settings, whose), whose.home, waiting.FILE, as_file=True)
    return beside.path(place(settings, whose), whose.home, waiting.FILE, settings.keyrings.in_files)


def is_own(state: OwnerState, whose: Owner, settings: Settings) -> bool:
    """Whether the keys that count are in a place of the owner's own, where they can be changed."""
    return (bool(settings.keyrings.owner) and state.home == place(settings, whose)) or (
        bool(settings.keyrings.certificates) and state.home == certificate_place(settings, whose)
    )


def fingerprints(whose: Owner, before: Standing, settings: Settings) -> list[str]:
    """Those of the keys that count, and of S/MIME certificates that do not. Raises KeyringError."""
    idle = find.find_certificates(whose, settings.keyrings)
    found = [one.fingerprint for holding in (idle.holdings if idle else ()) for one in holding.keys]
    return list(dict.fromkeys([*(one.fingerprint for one in before.state.keys), *found]))


def order(
    whose: Owner, certificates: tuple[Certificate, ...], settings: Settings, named: bool, foreign: bool = False
) -> Order:
    """What sets those certificates up for `whose`; see Order. Raises UsageError as `place` does."""
    keyring_home = place(settings, whose)
    return Order(whose.user, keyring_home, certificates, whose.addresses, named, settings.keyrings.in_files, foreign)


def standing(whose: Owner, settings: Settings) -> Standing:
    """How it is with the keys of `whose`. Raises CryptomailError where they cannot be read."""
    found, decision, state = inventory.survey(whose, settings, _WARN_DAYS)
    if isinstance(decision, Wait):
        return Standing(found, state, None)
    now = int(time.time())
    names = {key.fingerprint: tuple(sorted(key.addresses)) for one in found.holdings for key in one.keys}
    names |= {name: ids for holding in found.holdings for name, ids in colons.user_ids(holding.listing).items()}
    return Standing(
        found,
        state,
        tuple(
            KeyFacts(
                one.fingerprint,
                names.get(one.fingerprint, ()),
                one.expires,
                one.problem if one.expires is not None and one.expires <= now else "",
                one.smime,
            )
            for one in state.keys
            if one.used
        ),
    )


def set_up(vetted: tuple[Owner, Order, Verdicts], desk: Desk) -> list[Outcome]:
    """Do the order for that owner, and tell the owner of it: see `tell`. Returns what became of all certificates."""
    whose, wanted, verdicts = vetted
    before: list[Standing] = []

    def look(_: Order) -> None:
        if not before:
            before.append(_before(whose, desk.settings))

    outcomes = changes.put([(wanted, verdicts)], desk.settings.keyrings.minimum_bits, look)
    note_enrolled(outcomes, desk.settings, desk.warn)
    for then in before:
        try:
            tell(whose, then, outcomes, desk)
        except CryptomailError as error:
            desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
    return outcomes


def certificate_order(
    whose: Owner, certificates: tuple[X509, ...], settings: Settings, foreign: bool = False
) -> x509_changes.Order:
    """What sets those S/MIME certificates up for `whose`. Raises UsageError as `place` does."""
    file = certificate_place(settings, whose)
    return x509_changes.Order(whose, file, certificates, foreign)


def set_up_certificates(
    whose: Owner, order: x509_changes.Order, verdicts: tuple[str, ...], desk: Desk, telling: bool
) -> list[Outcome]:
    """Do the order for that owner, and tell the owner of it if so asked: see `tell`. Returns what became of all."""
    before: list[Standing] = []
    outcomes = x509_changes.put(order, verdicts, lambda: before.append(_before(whose, desk.settings)))
    note_enrolled(outcomes, desk.settings, desk.warn)
    try:
        if before and telling:
            tell(whose, before[0], outcomes, desk)
        found = standing(whose, desk.settings).found
    except CryptomailError as error:
        desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
        return outcomes
    counting = {key.fingerprint for holding in found.holdings for key in holding.keys}
    return [one if not one.status.in_place or one.fingerprint in counting else _idle(one) for one in outcomes]


def _idle(outcome: Outcome) -> Outcome:
    """What became of a certificate that mail is not encrypted to, because its owner has OpenPGP keys."""
    notes = [note for note in (outcome.note.removeprefix("warning: "), _IDLE) if note]
    return outcome._replace(note=f"warning: {'; '.join(notes)}")


def note_enrolled(outcomes: Sequence[Outcome], settings: Settings, warn: Callable[[str], object]) -> None:
    """Note outside their homes for whom keys were set up: see `register`."""
    for user in {one.user for one in outcomes if one.status.in_place}:
        try:
            register.note(settings.register, user)
        except CryptomailError as error:  # the first delivery tries again
            warn(str(error))


def tell(whose: Owner, before: Standing, outcomes: Sequence[Outcome], desk: Desk) -> tuple[Standing, str]:
    """Tell `whose` what became of their keys, where it was `before` that.

    Where keys are new or renewed, a test message is delivered like other mail; a notice of new ones goes to the keys
    that were there; one of a revocation to those that still work, or in clear where there is none. Returns how
    the keys are now, and why there is no test message, empty where there is one. Raises CryptomailError.
    """
    after = standing(whose, desk.settings)
    statuses = {one.fingerprint: one.status for one in outcomes}
    notes = {one.fingerprint: one.note.removeprefix("warning: ") for one in outcomes}
    there = before.used or ()
    gone = [one.fingerprint for one in there if statuses.get(one.fingerprint) == Status.REVOKED]
    if gone:
        working = [one.fingerprint for one in after.used or ()]
        _post(notices.revocation_notice(gone, after.used), after.found.naming(working), whose, desk)
    keys = [
        one._replace(note=notes[one.fingerprint])
        for one in after.used or ()
        if one.fingerprint in statuses and statuses[one.fingerprint].in_place
    ]
    new = [one for one in keys if statuses[one.fingerprint] == Status.IMPORTED]
    old = [one.fingerprint for one in there if statuses.get(one.fingerprint) in (None, Status.REFUSED)]
    if new and old:
        instead = not any(one.fingerprint in old for one in after.used or ())
        _post(notices.addition_notice(new, instead), before.found.naming(old), whose, desk)
    posted = ""
    if any(statuses[one.fingerprint] != Status.UNCHANGED for one in keys):
        try:
            _send_trial(keys, after, whose, desk)
        except CryptomailError as error:
            desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
            posted = str(error)
    return after, posted


def _before(whose: Owner, settings: Settings) -> Standing:
    try:
        return standing(whose, settings)
    except CryptomailError as error:  # what was used cannot be told then
        return Standing(Found(whose.user, ()), status.unreadable(whose.user, str(error)), ())


def encrypted(message: bytes, found: Found, settings: Settings) -> bytes:
    """`message`, encrypted to exactly those keys. Raises CryptomailError."""
    engines = Engines(lambda _: None, lasting=False)
    return b"".join(pipeline.encrypt_to(message, found, settings, engines).pieces)


def _encrypted_to(packets: bytes, message: bytes, settings: Settings) -> bytes:
    """`message`, encrypted to one certificate that is in no keyring any more. Raises CryptomailError."""
    with temporary_home.made() as home:
        keyring = home / "pubring.gpg"
        keyring.write_bytes(packets)
        return encrypted(message, find.find_in_file(str(keyring)), settings)


class Brought(NamedTuple):
    """What a message brings for its owner: keys, or S/MIME certificates (`cards`); and the address of an Autocrypt
    header field that is not theirs, if it has one.
    """

    certificates: tuple[Certificate, ...] = ()
    cards: tuple[X509, ...] = ()
    stranger: str = ""

    @property
    def number(self) -> int:
        return len(self.certificates) + len(self.cards)

    @property
    def fingerprints(self) -> frozenset[str]:
        return frozenset([*(one.fingerprint for one in self.certificates), *(one.fingerprint for one in self.cards)])


def meant(wishes: request.KeyMail, whose: Owner, before: Standing) -> Brought:
    """What of that message is the owner's."""
    cards = wishes.smime or _signer(wishes.signers, whose)
    if wishes.autocrypt is None or (cards and has_cards(before)):
        return Brought(wishes.certificates, cards)
    # Almost every message has such a field, also one from somebody else that ended here by mistake.
    if whose.has(wishes.autocrypt.address):
        return Brought(wishes.autocrypt.certificates)
    return Brought(cards=cards, stranger=wishes.autocrypt.address)


def bring(wishes: request.KeyMail, whose: Owner, before: Standing, desk: Desk, proven: bool = False) -> Words:
    """Set up the keys that a message brings, where it was `before` that; the answer says what became of them.

    `proven` says that their owner could read what was encrypted to them.
    """
    brought = meant(wishes, whose, before)
    if brought.certificates and brought.cards:
        both = "it brings OpenPGP keys and S/MIME certificates: mail for you becomes one of them, so send one message"
        return notices.refused([both], before.used)
    if not brought.number and wishes.encrypted:
        return notices.encrypted(before.used, desk.post.folder)
    if not brought.number:
        return notices.no_key(brought.stranger, before.used, desk.post.folder)
    if brought.number > limits.KEY_MAIL_KEYS:
        return notices.refused([f"it brings more than {limits.KEY_MAIL_KEYS} keys"], before.used)
    file, now = requests(whose, desk.settings), int(time.time())
    waiting.keep(file, now, brought.fingerprints)  # who saves a key wants it, also where it was to be removed before
    if brought.cards:
        words = _enrol_cards(brought.cards, whose, before, desk)
    else:
        words = _enrol(brought.certificates, whose, before, desk)
    if not proven:
        there = {one.fingerprint for one in standing(whose, desk.settings).state.keys}
        waiting.note_new(file, brought.fingerprints & there - {one.fingerprint for one in before.state.keys}, now)
    return words


def _signer(certificates: tuple[X509, ...], whose: Owner) -> tuple[X509, ...]:
    """Those of a signed message that are the owner's, and of these, if there are such, the ones for encryption.

    Almost any message may be signed, also one from somebody else that ended here by mistake.
    """
    theirs = tuple(one for one in certificates if any(map(whose.has, one.addresses)))
    return tuple(one for one in theirs if one.encrypts) or theirs


def has_cards(standing: Standing) -> bool:
    """Whether what counts of an owner are S/MIME certificates."""
    return any(one.certificates is not None for one in standing.found.holdings)


def _enrol(certificates: tuple[Certificate, ...], whose: Owner, before: Standing, desk: Desk) -> Words:
    if has_cards(before):
        # Else a thief of the password could have mail encrypted to another key alone: it cannot go to both kinds.
        reason = "mail for you becomes S/MIME: have your certificates removed first, or ask your mail administrator"
        return notices.refused([reason], before.used)
    # Of an owner whose address is not known, it cannot be said that a key is somebody else's.
    asked = order(whose, certificates, desk.settings, named=True, foreign=not whose.addresses)
    outcomes = changes.enrol([asked], desk.settings.keyrings.minimum_bits)
    note_enrolled(outcomes, desk.settings, desk.warn)
    refused = [_reason(one, before, asked.keyring) for one in outcomes if one.status == Status.REFUSED]
    gone = [one.fingerprint for one in outcomes if one.status == Status.REVOKED]
    if refused and not gone:
        return notices.refused(refused, before.used, any(" expired on " in one for one in refused))
    _keep(whose, before, desk)
    return _answer(outcomes, refused, whose, before, desk)


def _enrol_cards(cards: tuple[X509, ...], whose: Owner, before: Standing, desk: Desk) -> Words:
    if before.found.holdings and not has_cards(before) and desk.settings.keyrings.prefer == SMIME:
        # As in `_enrol`.
        reason = "mail for you becomes OpenPGP: have your keys removed first, or ask your mail administrator"
        return notices.refused([reason], before.used, smime=True)
    asked = certificate_order(whose, cards, desk.settings, foreign=not whose.addresses)
    if has_cards(before) and before.state.home != asked.file:  # as in `_keep`
        there = [one for holding in before.found.holdings for one in (holding.certificates or {}).values()]
        asked = asked._replace(kept=tuple(map(smime.parse, there)))
    verdicts = x509_changes.vet(cards, desk.settings.keyrings.minimum_bits)
    outcomes = x509_changes.put(asked, verdicts)
    note_enrolled(outcomes, desk.settings, desk.warn)
    refused = [_reason(one, before, asked.file) for one in outcomes if one.status == Status.REFUSED]
    if refused:
        return notices.refused(refused, before.used, smime=True)
    if before.found.holdings and not has_cards(before):
        return notices.kept([one.fingerprint for one in outcomes], before.used, desk.post.folder)
    return _answer(outcomes, [], whose, before, desk)


def _answer(outcomes: Sequence[Outcome], refused: Sequence[str], whose: Owner, before: Standing, desk: Desk) -> Words:
    """Tell the owner as `tell` does, and in the answer, what became of what they brought."""
    gone = [one.fingerprint for one in outcomes if one.status == Status.REVOKED]
    after, posted = tell(whose, before, outcomes, desk)
    changed = any(one.status in (Status.IMPORTED, Status.RENEWED) for one in outcomes)
    if gone and not changed:
        return notices.revoked(gone, refused, after.used)
    notes = {one.fingerprint: one.note.removeprefix("warning: ") for one in outcomes}
    keys = [one._replace(note=notes[one.fingerprint]) for one in after.used or () if one.fingerprint in notes]
    if not changed:
        return notices.unchanged(keys, desk.post.folder)
    others = [one for one in after.used or () if one.fingerprint not in notes]
    return notices.enrolled(keys, others, desk.post.folder, posted, gone)


def _keep(whose: Owner, before: Standing, desk: Desk) -> None:
    """Put the keys of a keyring that counts no more, now that the owner has one that comes first, into that one.

    Else a thief of the password could have mail encrypted to another key alone.
    """
    home, keyring_home = before.state.home, place(desk.settings, whose)
    if not home or home == keyring_home:
        return
    for key in before.state.keys:
        if key.used:
            certificates = certificate.read(runner.export(home, key.used)).certificates
            kept = order(whose, certificates, desk.settings, named=True, foreign=True)
            for one in changes.enrol([kept], desk.settings.keyrings.minimum_bits):
                if one.status == Status.REFUSED:
                    desk.warn(f"key {one.fingerprint} of {whose.user!r} is no longer used: {one.note}")


def _reason(outcome: Outcome, before: Standing, keyring_home: str) -> str:
    """Why something was not done, for the owner."""
    if not outcome.fingerprint:
        return outcome.note
    home = before.state.home
    used = home != keyring_home and outcome.fingerprint in {one.fingerprint for one in before.used or ()}
    where = f"; the copy of it in {home} is still used, because only you can change that" if used else ""
    return f"key {outcome.fingerprint}: {outcome.note}{where}"


class Gone(NamedTuple):
    """Where a key was taken away, or with `smime` a certificate, and how many are left there."""

    place: str
    left: int
    smime: bool


def remove(fingerprint: str, whose: Owner, desk: Desk) -> Gone:
    """Take a key or a certificate of `whose` away, and tell its owner so, encrypted to it if it still works.

    Raises CryptomailError.
    """
    where, removed = _removed(fingerprint, whose, desk.settings)
    if not find.find(whose, desk.settings.keyrings, signatures=True).holdings:  # which `standing` will find again
        register.forget(desk.settings.register, whose.user)
    is_card = isinstance(removed, x509_changes.Removed)
    words = notices.removal_notice(fingerprint, standing(whose, desk.settings).used, is_card)
    message = notices.message(whose.user, words, post.stamp())
    with suppress(CryptomailError):  # it was revoked, say; then in clear, because there is no secret in it
        if isinstance(removed, changes.Removed):
            message = _encrypted_to(removed.packets, message, desk.settings)
        else:
            message = encrypted(message, x509.named([removed.certificate]), desk.settings)
    deliver_to(message, whose, desk)
    return Gone(where, removed.left, is_card)


def _removed(fingerprint: str, whose: Owner, settings: Settings) -> tuple[str, changes.Removed | x509_changes.Removed]:
    if settings.keyrings.certificates:
        file = certificate_place(settings, whose)
        if certificate_removed := x509_changes.remove(file, fingerprint):
            return file, certificate_removed
    keyring = place(settings, whose)
    return keyring, changes.remove(keyring, fingerprint)


def send_trial(whose: Owner, desk: Desk) -> None:
    """Send `whose` a message that shows whether their mail is encrypted. Raises CryptomailError."""
    now = standing(whose, desk.settings)
    _send_trial(now.used or (), now, whose, desk)


def _send_trial(keys: Sequence[KeyFacts], now: Standing, whose: Owner, desk: Desk) -> None:
    """Hand a message to `whose` in where all mail comes in, so that it is encrypted to all keys used `now`, if mail is.

    Where there is no such way, one goes encrypted to `keys`. Raises CryptomailError.
    """
    code = _reading_code(whose, desk)
    words = proofs.with_code(notices.trial(now.used or (), desk.post.folder), code, desk.post.folder)
    if not post.as_other_mail(desk.post, whose.user, notices.message(whose.user, words, post.stamp())):
        words = proofs.with_code(notices.key_trial(keys, desk.post.folder), code, desk.post.folder)
        message = notices.message(whose.user, words, post.stamp())
        found = now.found.naming([one.fingerprint for one in keys])
        deliver(desk.post, whose.user, encrypted(message, found, desk.settings))


def _reading_code(whose: Owner, desk: Desk) -> str:
    """A code with which `whose` can say that they could read a message; empty where there is none to be had."""
    now = int(time.time())
    wanted = waiting.Request(waiting.READ, "", now + limits.CODE_SECONDS)
    try:
        return waiting.add(requests(whose, desk.settings), wanted, now).code if desk.post.folder else ""
    except CryptomailError:  # without a code, a test message shows what it did all the same
        return ""


def _post(words: Words, found: Found, whose: Owner, desk: Desk) -> str:
    """Deliver a notice, encrypted to those keys if there are any. Returns why that could not be, else nothing."""
    message = notices.message(whose.user, words, post.stamp())
    try:
        if found.holdings:
            message = encrypted(message, found, desk.settings)
    except CryptomailError as error:
        desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
        return str(error)
    return deliver_to(message, whose, desk)


def deliver_to(message: bytes, whose: Owner, desk: Desk) -> str:
    """Deliver a notice. Returns why that could not be, else nothing."""
    try:
        deliver(desk.post, whose.user, message)
    except DeliveryError as error:
        desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
        return str(error)
    return ""
