"""The actions `fetch` and `refresh` of `cryptomail keys`: set up what owners have published."""

import argparse
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sieve_filter import limits
from sieve_filter.cli import keys, keys_import, terminal
from sieve_filter.cli.site import Failure, Rest, Site, as_owner, finish, in_chunks, names, owners
from sieve_filter.delivery import inventory
from sieve_filter.discovery import answer as published
from sieve_filter.discovery import dane, lookup, refresh
from sieve_filter.discovery.lookup import Answer
from sieve_filter.enrolment import service
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import CryptomailError, RefusedKeyError, ServiceError, UsageError
from sieve_filter.keys import changes
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.notify import post
from sieve_filter.notify.post import Post
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.owners.owner import Owner
from sieve_filter.system import pool
from sieve_filter.system.pool import Identity


def add_to(actions: Any, defaults: Post) -> None:
    """Add these actions to those of `keys.add_to`; `defaults` are the ways to deliver notices."""
    action = keys.add_action(actions, "fetch", "set up the keys that an owner has published", _fetch, everybody=False)
    _add_source(action)
    post.add_choice(action, defaults)
    action = keys.add_action(
        actions, "refresh", "fetch the keys of owners who have one again, and renew them", _refresh
    )
    _add_source(action)
    action.add_argument("--replace", action="store_true", help="where another key is published, take it instead")
    post.add_choice(action, defaults)


def _add_source(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--from", dest="source", required=True, choices=("wkd", "dane"), help="a Web Key Directory, or DNSSEC"
    )
    action.add_argument("--resolver", metavar="ADDRESS[:PORT]", help="with dane: the validating resolver on this host")


def _fetch(options: argparse.Namespace, site: Site) -> int:
    resolver = _resolver(options)
    whose = site.owner(options.user)
    address = _address(whose)
    identity = pool.identity_of(whose.home, whose.uid)
    (answer,) = _look_up([(identity, address)], resolver).values()
    if answer.error:
        raise ServiceError(answer.error)
    if answer.data is None:
        raise RefusedKeyError(f"no key is published for {address}")
    found = published.judge(answer.data, address)
    outcomes = [Outcome(whose.user, "", "", Status.REFUSED, problem) for problem in found.problems]
    orders = [(whose._replace(addresses=frozenset({address})), found.certificates)]
    keys_import.enrol_orders(orders, site, options, outcomes, lambda _: None, named=False)
    return keys_import.tell_outcomes(outcomes, options.json)


def _refresh(options: argparse.Namespace, site: Site) -> int:
    resolver = _resolver(options)
    outcomes: list[Outcome] = []
    owners = _enrolled(options, site, outcomes)
    with terminal.progress(len(owners), options.json) as advance:
        answers = _look_up(((identity, _address(whose)) for identity, whose, _ in owners), resolver, advance)
    orders: list[tuple[Owner, tuple[Certificate, ...]]] = []
    drops: dict[str, tuple[Owner, tuple[str, ...]]] = {}
    for _, whose, enrolled in owners:
        address = _address(whose)
        plan = refresh.plan(whose.user, enrolled, answers[address], options.replace)
        outcomes += plan.outcomes
        if plan.take:
            orders.append((whose._replace(addresses=frozenset({address})), plan.take))
        if plan.drop:
            drops[whose.user] = whose, plan.drop
    keys_import.enrol_orders(orders, site, options, outcomes, lambda _: None, named=False)
    desk = keys_import.desk_of(options, site)
    # An old key goes only when all that is to take its place is there.
    lacking = {one.user for one in outcomes if one.status in (Status.REFUSED, Status.REVOKED)}
    for user, (whose, fingerprints) in drops.items():
        if user not in lacking:
            outcomes += [_drop(whose, site.keyring(whose), one, desk) for one in fingerprints]
    return keys_import.tell_outcomes(sorted(outcomes), options.json)


def _resolver(options: argparse.Namespace) -> dane.Resolver | None:
    if (options.source == "dane") != (options.resolver is not None):
        raise UsageError("--from dane needs --resolver ADDRESS, a validating resolver on this host; wkd needs none")
    return dane.resolver(options.resolver) if options.resolver is not None else None


def _address(whose: Owner) -> str:
    """The address whose key is looked up. Raises UsageError where the owner has none, or several and no chosen one."""
    if "@" in whose.user:
        return whose.user.lower()
    if len(whose.addresses) != 1:
        raise UsageError(f"{whose.user} is not an address, and has not one in [aliases] of the configuration")
    return next(iter(whose.addresses))


def _look_up(
    wanted: Iterable[tuple[Identity, str]],
    resolver: dane.Resolver | None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Answer]:
    """What is published, by address; asked for with the rights of whom it is for."""
    work = functools.partial(lookup.look_up, resolver=resolver)
    answers: dict[str, Answer] = {}
    each_one = ((identity, [address]) for identity, address in wanted)
    for address, found in pool.each(each_one, work, at_once=limits.FETCHES_AT_ONCE):
        answers[address] = Answer(address, None, str(found)) if isinstance(found, CryptomailError) else found
        advance(1)
    return answers


def _enrolled(
    options: argparse.Namespace, site: Site, outcomes: list[Outcome]
) -> list[tuple[Identity, Owner, frozenset[str]]]:
    """The owners who have keys in the place for them, and these; what is wrong with others goes into `outcomes`."""
    rest = Rest()
    asked = names(options, site)
    identities: dict[str, Identity] = {}

    def identified() -> Iterator[tuple[Identity, Owner]]:
        for identity, whose in owners(asked, options, site, rest):
            try:
                _address(whose)
            except UsageError as error:
                rest.failures.append(Failure(whose.user, error))
            else:
                identities[whose.user] = identity
                yield identity, whose

    enrolled: list[tuple[Identity, Owner, frozenset[str]]] = []
    keyrings = site.settings.keyrings
    work = functools.partial(inventory.enrolled, keyrings=keyrings._replace(owner=keyrings.owner[:1]))
    for whose, found in pool.each(in_chunks(identified(), lambda _: 1), work):
        if isinstance(found, CryptomailError):
            rest.failures.append(Failure(whose.user, found))
        elif found:
            enrolled.append((identities[whose.user], whose, found))
        elif options.user:
            raise RefusedKeyError(f"{whose.user} has no key in {site.keyring(whose)}: use keys fetch")
    if options.user:
        finish(rest.failures)
    outcomes += [Outcome(one.user, "", "", Status.FAILED, str(one.error)) for one in rest.failures]
    return enrolled


def _drop(whose: Owner, keyring: str, fingerprint: str, desk: Desk | None) -> Outcome:
    plain = functools.partial(changes.remove, keyring, fingerprint)
    try:
        as_owner(whose, functools.partial(service.remove, fingerprint, whose, desk) if desk else plain)
    except CryptomailError as error:
        return Outcome(whose.user, keyring, fingerprint, Status.REFUSED, f"it is not removed: {error}")
    return Outcome(whose.user, keyring, fingerprint, Status.REMOVED, "another key is published instead")
