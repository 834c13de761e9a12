"""`cryptomail metrics`: what the workers have done so far, in numbers, for Prometheus."""

import argparse
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from sieve_filter.errors import ServiceError
from sieve_filter.programs import counts
from sieve_filter.programs.counts import Shown
from sieve_filter.system import stdio, transfer

_SECONDS = 10
_PIECE = 65536


def add_to(command: argparse.ArgumentParser, default: str) -> None:
    """The options; `default` is the socket at which the supervisor that is installed shows its counts."""
    command.add_argument("--socket", default=default, metavar="PATH", help="where the workers show their counts")
    command.add_argument("--prometheus", action="store_true", help="write Prometheus' text format")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace, _config_file: str) -> int:
    try:
        shown = _ask(options.socket)
    except ServiceError:
        stdio.write(text(None, prometheus=options.prometheus))
        raise
    stdio.write(text(shown, prometheus=options.prometheus))
    return os.EX_OK


def _ask(path: str) -> Shown:
    """What the supervisor at that socket has counted. Raises ServiceError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(path)
            frame = b"".join(iter(lambda: connection.recv(_PIECE), b""))
    except OSError as error:
        reason = error.strerror or error
        raise ServiceError(
            f"cannot ask the workers at {path}: {reason}; does Dovecot run, with that socket?"
        ) from error
    with suppress(Exception):  # whatever is wrong with it
        shown = transfer.unpack(frame, Shown)
        if isinstance(shown, Shown):
            return shown
    raise ServiceError(f"the workers at {path} are of another version: doveadm reload")


def text(shown: Shown | None, *, prometheus: bool) -> bytes:
    """The counts in OpenMetrics' text format, or in Prometheus' own; None where nobody could be asked."""
    registry = CollectorRegistry()
    registry.register(_Families(shown))
    return exposition.generate_latest(registry) if prometheus else openmetrics.generate_latest(registry)


class _Families(Collector):
    def __init__(self, shown: Shown | None) -> None:
        self._shown = shown

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily("cryptomail_up", "Whether the workers could be asked.", int(self._shown is not None))
        if self._shown is not None:
            yield from _families(self._shown)


class _Family(NamedTuple):
    """Messages with one outcome, by what is behind it."""

    outcome: str
    name: str
    label: str
    help: str


_MESSAGES = (
    _Family(counts.ENCRYPTED, "cryptomail_encrypted_messages", "engine", "Messages that were encrypted."),
    _Family(counts.LEFT, "cryptomail_left_alone_messages", "reason", "Messages that were left as they came."),
    _Family(counts.REFUSED, "cryptomail_refused_messages", "reason", "Messages that were refused for now."),
)


def _families(shown: Shown) -> Iterable[Metric]:
    yield GaugeMetricFamily(
        "cryptomail_start_time_seconds", "Since when the workers have counted, in seconds since 1970.", shown.since
    )
    for one in _MESSAGES:
        family = CounterMetricFamily(one.name, one.help, labels=[one.label])
        for (outcome, detail), count in shown.outcomes.items():
            if outcome == one.outcome:
                family.add_metric([detail], count)
        yield family
    yield CounterMetricFamily("cryptomail_received_bytes", "Octets of messages that came.", shown.octets_in)
    yield CounterMetricFamily("cryptomail_returned_bytes", "Octets of what they became.", shown.octets_out)
    lookups = CounterMetricFamily(
        "cryptomail_keyring_lookups", "Searches for an owner's keys, by whether they were in memory.", labels=["cache"]
    )
    for cache, count in shown.cache.items():
        lookups.add_metric([cache], count)
    yield lookups
    bounds = [*(f"{bound / 1000:g}" for bound in shown.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(shown.times), strict=True))
    yield HistogramMetricFamily(
        "cryptomail_answer_seconds",
        "Time from a connection to the answer.",
        buckets=buckets,
        sum_value=shown.microseconds / 1_000_000,
    )
