"""Looks up keys where their owners have published them. Never during a delivery."""

from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.discovery import answer, dane, https
from sieve_filter.discovery.dane import Resolver
from sieve_filter.errors import NoSuchHostError, StoppedError, TimedOutError, known
from sieve_filter.system.signals import at_most


class Answer(NamedTuple):
    """What is published for an address: octets that nobody has looked at, None for nothing; or why that is unknown."""

    address: str
    data: bytes | None
    error: str


def look_up(address: str, resolver: Resolver | None) -> Answer:
    """What is published for `address`: in the DNS where a resolver is given, else in Web Key Directories."""
    try:
        with at_most(limits.FETCH_SECONDS):
            data = from_wkd(address) if resolver is None else from_dane(address, resolver)
    except TimedOutError:
        return Answer(address, None, f"no answer for {address} within {limits.FETCH_SECONDS} seconds")
    except StoppedError:
        raise
    except Exception as error:  # whatever a stranger's server does is nobody else's trouble
        return Answer(address, None, str(known(error)))
    return Answer(address, data, "")


def from_wkd(address: str) -> bytes | None:
    """What a Web Key Directory has (draft-koch-openpgp-webkey-service, section 3.1). Raises ServiceError.

    The direct method serves where the advanced method's host does not exist, and in no other case: the domain's owner
    chose between the two.
    """
    place = answer.wkd_place(address)
    try:
        return https.get(place.advanced)
    except NoSuchHostError:
        return https.get(place.direct)


def from_dane(address: str, resolver: Resolver) -> bytes | None:
    """What the DNS has (RFC 7929). Raises ServiceError."""
    return dane.openpgpkeys(answer.dane_name(address), resolver)
