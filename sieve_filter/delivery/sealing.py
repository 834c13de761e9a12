"""Seals a message: delivers what was encrypted over a private LMTP service, so that the clear text can be dropped."""

import re
import select
import smtplib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

from sieve_filter.deadline import Deadline
from sieve_filter.delivery.again import Attempt
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.dovecot import lmtp
from sieve_filter.errors import DeliveryError, UncertainError

GONE = "Dovecot's delivery process has gone"


def seal(
    delivery: Delivery,
    connected: Callable[[], smtplib.LMTP],
    environment: Mapping[str, str],
    check: Callable[[], None],
    answer_by: Deadline,
    attempt: Attempt,
) -> Iterator[bytes]:
    """Deliver what was encrypted, with the envelope in `environment`. Returns `sealed`, or `pass` where nothing was.

    Not delivered is what an earlier `attempt` is seen to have stored. `connected` gives a fresh connection; `check`,
    `answer_by` and what is raised: see `lmtp.send`.
    """
    if delivery.encrypted:
        if not attempt.is_stored(answer_by):
            delivery = attempt.handing_over(delivery)
            pieces = chain([without_trace(delivery.header)], delivery.body)
            try:
                lmtp.send(connected, lmtp.envelope(environment), pieces, check, answer_by)
            except UncertainError:
                attempt.note()
                raise
        yield b"sealed"
    else:
        for _ in delivery.body:  # Dovecot wants to be rid of the whole message
            pass
        yield b"pass"


def check_caller(descriptor: int) -> None:
    """Raise DeliveryError where nobody reads from this pipe or socket any more.

    The caller was killed, or gave up: the sender was told of a failure, and will send the message again.
    """
    poll = select.poll()
    poll.register(descriptor, 0)
    if poll.poll(0):
        raise DeliveryError(GONE)


def without_trace(header: bytes) -> bytes:
    """The `header` section without the Return-Path and Delivered-To on top (RFC 5321 section 4.4).

    Each delivery puts them there: without this the second would double them.
    """
    on_top = re.compile(rb"(?:(?:Return-Path|Delivered-To):[^\n]*\n(?:[ \t][^\n]*\n)*+)*+", re.IGNORECASE)
    return header[on_top.match(header).end() :]  # type: ignore[union-attr]  # it matches the empty string too
