"""Compares the keys that an owner has with those that are published, and decides what is to be done. Pure."""

from typing import NamedTuple

from sieve_filter.discovery import answer as published
from sieve_filter.discovery.lookup import Answer
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.openpgp.certificate import Certificate


class Plan(NamedTuple):
    """What is to be set up, which of the owner's keys go once that is done (by fingerprint), and what to tell now."""

    take: tuple[Certificate, ...]
    drop: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def plan(user: str, enrolled: frozenset[str], answer: Answer, replace: bool) -> Plan:
    """The plan for an owner with the keys `enrolled` (fingerprints).

    A newer copy of one of these is taken. A key that is not published stays. Another key is only told of, unless
    `replace`: whoever can change what is published could otherwise have mail encrypted to a key of theirs.
    """

    def outcome(status: Status, note: str, fingerprint: str = "") -> Outcome:
        return Outcome(user, "", fingerprint, status, note)

    if answer.error:
        return Plan((), (), (outcome(Status.FAILED, answer.error),))
    if answer.data is None:
        note = f"no key is published for {answer.address} any more; this one stays"
        return Plan((), (), tuple(outcome(Status.KEPT, note, one) for one in sorted(enrolled)))
    found = published.judge(answer.data, answer.address)
    outcomes = [outcome(Status.REFUSED, problem) for problem in found.problems]
    if not found.certificates:
        return Plan((), (), tuple(outcomes))
    absent = sorted(enrolled - {one.fingerprint for one in found.certificates})
    if replace:
        return Plan(found.certificates, tuple(absent), tuple(outcomes))
    known = tuple(one for one in found.certificates if one.fingerprint in enrolled)
    outcomes += [outcome(Status.KEPT, f"it is not published for {answer.address}; it stays", one) for one in absent]
    note = f"another key is published for {answer.address}: ask its owner, and then take it with --replace"
    strangers = dict.fromkeys(one.fingerprint for one in found.certificates if one not in known)
    outcomes += [outcome(Status.DIFFERENT, note, one) for one in strangers]
    return Plan(known, (), tuple(outcomes))
