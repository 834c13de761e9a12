"""Answers what a mailbox owner saves in the folder for keys: keys, and commands in the Subject of a message.

Runs with the rights of the user whose mail files they are, and for nobody but the owner whom Dovecot names. It takes a
password and no more to save a message there. So what weakens waits, and the owner is told, encrypted to the keys that
it is about; or it takes a code that only they can read.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence

from sieve_filter import errors, limits
from sieve_filter.delivery import pipeline
from sieve_filter.enrolment import request, service, waiting
from sieve_filter.enrolment.request import CHOOSE, CONFIRM, KEEP, OFF, REMOVE, STATUS, TEST, TRY, KeyMail
from sieve_filter.enrolment.service import Brought, Desk, Standing
from sieve_filter.errors import CryptomailError, RefusedKeyError, UsageError
from sieve_filter.gpg import temporary_home
from sieve_filter.keys import beside, changes, choices, find, x509, x509_changes
from sieve_filter.keys.recipients import Found
from sieve_filter.mail.message import split
from sieve_filter.notify import notices, post, proofs
from sieve_filter.notify.notices import KeyFacts, Words
from sieve_filter.openpgp import certificate
from sieve_filter.owners.owner import Owner
from sieve_filter.policy import levels
from sieve_filter.smime import certificate as smime


def answer(raw: bytes, whose: Owner, desk: Desk) -> bytes:
    """Do what the message `raw`, which `whose` owner saved, asks for. Returns the message to keep in its place.

    Whatever happens, no secret key is in that.
    """
    wishes = request.read(raw)
    if wishes.secret:
        desk.warn(f"{whose.user!r} saved a SECRET key: it was not kept")
        return notices.message(whose.user, notices.refused_secret(), post.stamp(), None, notices.CONFIRMATION)
    if notices.is_confirmation(split(raw)):
        return raw
    try:
        remove_overdue(whose, desk)
        words = _done(wishes, whose, desk)
    except Exception as error:  # without an answer, nobody but the log would know
        reason = errors.known(error)
        desk.warn(f"{whose.user!r} saved a message with a key: {reason}")
        words = notices.failed(str(reason))
    return notices.message(whose.user, words, post.stamp(), raw, notices.CONFIRMATION)


def remove_overdue(whose: Owner, desk: Desk) -> int:
    """Take away the keys of `whose` that have waited long enough for it. Returns how many. Raises CryptomailError."""
    try:
        file = service.requests(whose, desk.settings)
    except UsageError:  # there is no place for owners' own keys
        return 0
    removed = 0
    for fingerprint in waiting.overdue(file, int(time.time())):
        try:
            service.remove(fingerprint, whose, desk)
            removed += 1
        except RefusedKeyError as error:  # the administrator has removed it meanwhile
            desk.warn(f"key {fingerprint} of {whose.user!r} was to be removed: {error}")
    return removed


def _done(wishes: KeyMail, whose: Owner, desk: Desk) -> Words:
    before = service.standing(whose, desk.settings)
    if wishes.problems:
        return notices.refused(wishes.problems, before.used)
    word, argument = wishes.command
    if word == TRY:
        return _try(wishes, whose, before, desk)
    if word and (wishes.certificates or wishes.smime):
        return notices.refused(
            [f"its Subject is “{word}”, and it brings a key: send one message for each"], before.used
        )
    if word:
        return _COMMANDS[word](argument, whose, before, desk)
    return service.bring(wishes, whose, before, desk)


def _try(wishes: KeyMail, whose: Owner, before: Standing, desk: Desk) -> Words:
    """Encrypt a code to keys that are brought, and set them up when it comes back."""
    brought = service.meant(wishes, whose, before)
    if not 0 < brought.number <= limits.KEY_MAIL_KEYS or (brought.certificates and brought.cards):
        return service.bring(wishes, whose, before, desk)  # which says what is wrong
    return (_try_cards if brought.cards else _try_keys)(brought, whose, before, desk)


def _try_keys(brought: Brought, whose: Owner, before: Standing, desk: Desk) -> Words:
    certificates = brought.certificates
    wanted = service.order(whose, certificates, desk.settings, named=True, foreign=not whose.addresses)
    with temporary_home.made() as home:
        # As it will be done, but in a keyring of no consequence; the home itself is locked.
        (home / "tried").mkdir(mode=0o700)
        keyring = str(home / "tried" / "pubring.gpg")
        outcomes = changes.enrol([wanted._replace(keyring=keyring, as_file=True)], desk.settings.keyrings.minimum_bits)
        if refused := [f"key {one.fingerprint}: {one.note}" for one in outcomes if not one.status.in_place]:
            return notices.refused(refused, before.used, any(" expired on " in one for one in refused))
        found = find.find_in_file(keyring)
        keys = [
            KeyFacts(key.fingerprint, tuple(sorted(key.addresses)), key.subkeys[0].expires)
            for key in found.holdings[0].keys
        ]
        return _send_code(b"".join(one.packets for one in certificates), keys, found, whose, before, desk)


def _try_cards(brought: Brought, whose: Owner, before: Standing, desk: Desk) -> Words:
    wanted = service.certificate_order(whose, brought.cards, desk.settings, foreign=not whose.addresses)
    refused = x509_changes.refused(wanted, x509_changes.vet(brought.cards, desk.settings.keyrings.minimum_bits))
    if refused:
        reasons = [f"key {one.fingerprint}: {one.note}" for one in refused]
        return notices.refused(reasons, before.used, smime=True)
    keys = [KeyFacts(one.fingerprint, tuple(sorted(one.addresses)), one.expires, smime=True) for one in brought.cards]
    pem = smime.pem(one.der for one in brought.cards)
    return _send_code(pem, keys, x509.named(brought.cards), whose, before, desk)


def _send_code(
    packets: bytes, keys: Sequence[KeyFacts], found: Found, whose: Owner, before: Standing, desk: Desk
) -> Words:
    """Have `packets`, which are these keys, wait for a code, and send that encrypted to them."""
    now = int(time.time())
    asked = waiting.Request(waiting.ADD, "", now + limits.CODE_SECONDS, packets=packets)
    try:
        asked = waiting.add(service.requests(whose, desk.settings), asked, now)
    except RefusedKeyError as error:
        return notices.refused([str(error)], before.used)
    words = proofs.key_code(keys, asked.code, desk.post.folder)
    message = service.encrypted(notices.message(whose.user, words, post.stamp()), found, desk.settings)
    if problem := service.deliver_to(message, whose, desk):
        return proofs.not_sent(problem, before.used)
    return proofs.tried(keys, before.used, desk.post.folder)


def _confirm(code: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    try:
        asked = waiting.confirm(service.requests(whose, desk.settings), code, int(time.time()))
    except RefusedKeyError as error:
        return notices.refused([str(error)], before.used)
    if asked.kind == waiting.REMOVE:
        return _remove_now(asked.fingerprint, whose, desk)
    if asked.kind == waiting.ADD:
        if smime.holds(asked.packets):
            keys = KeyMail(smime=smime.read(asked.packets).certificates)
        else:
            keys = KeyMail(certificates=certificate.read(asked.packets).certificates)
        return service.bring(keys, whose, before, desk, proven=True)
    if asked.kind == waiting.CHOOSE:
        beside.replace(choices.path(whose, desk.settings.keyrings), asked.packets)
        return _chosen(whose, before, desk)
    return proofs.could_read(before.used)


def _choose(choice: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    """Choose what makes mail safer now; what makes it less safe when the code comes back."""
    name, value = choice.split(" ")
    if name not in desk.settings.owners_may or value not in (*levels.CHOICES[name], levels.DEFAULT):
        return notices.refused([f"you cannot choose that: {choice}"], before.used)
    service.place(desk.settings, whose)  # which is not others' too
    file = choices.path(whose, desk.settings.keyrings)
    old = choices.read(file)
    new = {one: wish for one, wish in {**(old or {}), name: value}.items() if wish != levels.DEFAULT}
    safety = [levels.CHOICES[name].index(_value(name, chosen, whose, desk)) for chosen in (old, new)]
    if safety[1] >= safety[0] or before.used == ():
        beside.replace(file, choices.written(new))
        return _chosen(whose, before, desk)
    if before.used is None:
        return notices.refused(["none of your keys can be used now: set one up first"], before.used)
    now = int(time.time())
    asked = waiting.Request(waiting.CHOOSE, "", now + limits.CODE_SECONDS, packets=choices.written(new))
    try:
        asked = waiting.add(service.requests(whose, desk.settings), asked, now)
    except RefusedKeyError as error:
        return notices.refused([str(error)], before.used)
    message = notices.message(whose.user, proofs.choice_code(choice, asked.code, desk.post.folder), post.stamp())
    found = before.found.naming([one.fingerprint for one in before.used])
    if problem := service.deliver_to(service.encrypted(message, found, desk.settings), whose, desk):
        return proofs.not_sent(problem, before.used)
    return proofs.choice_waits(choice, before.used, desk.post.folder)


def _value(name: str, chosen: Mapping[str, str] | None, whose: Owner, desk: Desk) -> str:
    return str(getattr(levels.for_owner(desk.settings, whose.user, chosen).settings, name))


def _chosen(whose: Owner, before: Standing, desk: Desk) -> Words:
    effective = pipeline.for_owner(whose, desk.settings, desk.warn)
    rows = [(name, str(getattr(effective.settings, name)), level) for name, level in effective.levels.items()]
    return proofs.chosen(rows, before.used)


def _remove(fingerprint: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    if fingerprint not in service.fingerprints(whose, before, desk.settings):
        return notices.refused([f"you have no key with the fingerprint {fingerprint}"], before.used)
    if waits := _waiting_for_removal([fingerprint], whose, before, desk):
        return _announce(waits, whose, before, desk)
    return _remove_now(fingerprint, whose, desk)


def _off(_: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    fingerprints = service.fingerprints(whose, before, desk.settings)
    waits = _waiting_for_removal(fingerprints, whose, before, desk)
    for fingerprint in fingerprints:
        if fingerprint not in waits:
            service.remove(fingerprint, whose, desk)
    if waits:
        return _announce(waits, whose, before, desk)
    return proofs.off(service.standing(whose, desk.settings).used)


def _waiting_for_removal(fingerprints: Sequence[str], whose: Owner, before: Standing, desk: Desk) -> list[str]:
    """Those of the keys that have to wait: without them, mail may be stored in clear, and they are not new."""
    # From a keyring that is not ours to change nothing is removed, now or later: who tries at once says so.
    if not desk.settings.removal_delay or not service.is_own(before.state, whose, desk.settings):
        return []
    book = waiting.book(service.requests(whose, desk.settings), int(time.time()))
    new = {one.fingerprint for one in book.requests if one.kind == waiting.NEW}
    used = {one.fingerprint for one in (before.state.keys if before.used is None else before.used)}
    return [one for one in fingerprints if one in used - new]


def _announce(fingerprints: Sequence[str], whose: Owner, before: Standing, desk: Desk) -> Words:
    """Have keys wait for their removal, and tell their owner, encrypted to each."""
    file, now, until = service.requests(whose, desk.settings), int(time.time()), 0
    for fingerprint in fingerprints:
        asked = waiting.Request(waiting.REMOVE, "", now + desk.settings.removal_delay, fingerprint)
        try:
            asked = waiting.add(file, asked, now)
        except RefusedKeyError as error:
            return notices.refused([str(error)], before.used)
        until = max(until, asked.until)
        _tell_of_removal(asked, whose, before, desk)
    return proofs.ahead(fingerprints, until, before.used, desk.post.folder, service.has_cards(before))


def _tell_of_removal(asked: waiting.Request, whose: Owner, before: Standing, desk: Desk) -> None:
    """Encrypted to the key that is to be removed; where that cannot be, in clear, and without the code."""

    is_card = service.has_cards(before)

    def message(code: str) -> bytes:
        words = proofs.removal_code(asked.fingerprint, asked.until, code, desk.post.folder, is_card)
        return notices.message(whose.user, words, post.stamp())

    try:
        notice = service.encrypted(message(asked.code), before.found.naming([asked.fingerprint]), desk.settings)
    except CryptomailError:
        notice = message("")
    service.deliver_to(notice, whose, desk)


def _remove_now(fingerprint: str, whose: Owner, desk: Desk) -> Words:
    gone = service.remove(fingerprint, whose, desk)
    return notices.removed(fingerprint, service.standing(whose, desk.settings).used, gone.smime)


def _keep(_: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    return proofs.kept(waiting.keep(service.requests(whose, desk.settings), int(time.time())), before.used)


def _test(_: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    try:
        service.send_trial(whose, desk)
    except CryptomailError as error:
        desk.warn(f"a notice to {whose.user!r} was not sent: {error}")
        return proofs.not_sent(str(error), before.used)
    return proofs.test_sent(before.used, desk.post.folder)


def _status(_: str, whose: Owner, before: Standing, desk: Desk) -> Words:
    book = waiting.book(service.requests(whose, desk.settings), int(time.time()))
    ahead = [(one.fingerprint, one.until) for one in book.requests if one.kind == waiting.REMOVE]
    effective = pipeline.for_owner(whose, desk.settings, desk.warn)
    facts = {
        "settings": {
            name: {
                "value": getattr(effective.settings, name),
                "level": level,
                "choice": name in desk.settings.owners_may,
            }
            for name, level in effective.levels.items()
        },
        "mail": "waits" if before.used is None else "encrypted" if before.used else "clear",
        "keys": [
            {"fingerprint": one.fingerprint, "addresses": one.addresses, "expires": one.expires, "problem": one.problem}
            for one in before.state.keys
        ],
        "removals": [{"fingerprint": one, "at": until} for one, until in ahead],
        "waits_for_code": any(one.kind == waiting.ADD for one in book.requests),
        "read_at": book.read,
    }
    return proofs.state(before.used, ahead, book.read)._replace(facts=json.dumps(facts))


_COMMANDS: Mapping[str, Callable[[str, Owner, Standing, Desk], Words]] = {
    CHOOSE: _choose,
    CONFIRM: _confirm,
    KEEP: _keep,
    OFF: _off,
    REMOVE: _remove,
    STATUS: _status,
    TEST: _test,
}
