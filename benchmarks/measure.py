"""Measures everything, in rounds: in each, all that is compared takes its turn, so that all meet the same machine.

Each round of deliveries begins with another: what one leaves to the next (files that the disk has yet to write, say)
is shared out.
"""

import itertools
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks import cpu, keys, messages, programs
from benchmarks.load import Burst
from benchmarks.programs import Home, Program, Sample, Worker
from benchmarks.variants import FILTER, GNUPG, PLAIN, SEQUOIA, Many, Variant, Variants, enrol

CONNECTIONS = 4
SIZE = 10_000
SIZES = (2_000, 10_000, 100_000, 1_000_000)
LARGEST = 100_000_000
USERS = (10, 1_000, 20_000)
ALL_USERS = USERS[-1]
SMALL = 1_000

GPG, PYTHON, EXECUTED, WORKER = "gpg --encrypt", "python -I -c pass", "executed filter", "worker, {}"
KNOWN, NEW = "{}, key known", "{}, key new"

Results = dict[str, Any]
Counts = dict[str, Counter[str]]
Subject = Program | Worker


class Plan(NamedTuple):
    """How long to measure: seconds of a burst, and rounds of each part; of single messages by their size."""

    burst_seconds: float
    rounds: int
    latency_seconds: float
    latency_rounds: int
    single_rounds: int
    size_rounds: Mapping[int, int]
    keys: int  # which the owners have; one key is several owners' where there are more of them
    mailboxes: int  # to which the deliveries to ALL_USERS owners go


_FULL_SIZES = {1_000: 30, 10_000: 30, 100_000: 30, 1_000_000: 15, 10_000_000: 7, LARGEST: 5}
_QUICK_SIZES = {1_000: 6, 10_000: 9, 100_000: 6, 1_000_000: 9, 10_000_000: 3, LARGEST: 3}
FULL = Plan(1.5, 5, 2.0, 8, 40, _FULL_SIZES, 2_500, 5_000)
QUICK = Plan(0.7, 3, 0.5, 3, 12, _QUICK_SIZES, 250, 2_000)


def everything(variants: Variants, plan: Plan) -> Results:
    """All measurements, as JSON has them: lists of seconds or messages a second, in the order of the rounds."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    say("checking that what is stored is encrypted")
    for variant in variants.variants:
        variant.check(messages.incompressible(SIZE))
    results: Results = {"default_engine": variants.default_engine, "keys": plan.keys, "throughput": {}}
    results["cpu"] = {variant.name: [] for variant in variants.variants}
    counts: Counts = {variant.name: Counter() for variant in variants.variants}
    for size in SIZES:
        say(f"messages a second, {size} octets")
        cost = results["cpu"] if size == SIZE else None
        results["throughput"][str(size)] = _throughput(variants, plan, messages.incompressible(size), counts, cost)
    say("latency")
    results["latency"] = _latency(variants, plan, messages.incompressible(SIZE), counts)
    with TemporaryDirectory(prefix="bench-", dir="/tmp") as name:
        say(f"{plan.keys} keys, for {ALL_USERS} owners")
        keyrings = programs.keyrings(Path(name), keys.certificates(Path(name, "certificates"), plan.keys))
        say("messages a second, each to another owner")
        results["owners"] = _owners(variants, plan, messages.incompressible(SIZE), counts, keyrings)
        results |= _alone(variants, plan, keyrings, say)
    results["refused"] = {name: dict(found) for name, found in counts.items()}
    say("done")
    return results


def _alone(variants: Variants, plan: Plan, keyrings: Sequence[Path], say: Callable[[str], None]) -> Results:
    results: Results = {}
    # In memory, where what is read often is anyway: a disk would take minutes to forget so many homes.
    with TemporaryDirectory(prefix="bench-", dir="/dev/shm") as name:
        alone = _Alone(Path(name), variants, keyrings)
        say("start of programs")
        results["start"] = alone.start(plan.single_rounds)
        say("memory")
        results["memory"] = alone.memory()
        say("cost by size")
        results["sizes"] = alone.sizes(plan.size_rounds)
        say("cost by number of users")
        results["users"] = alone.users(plan.single_rounds)
        say("memory of a worker after many owners")
        results["after"] = alone.after_all_users()
        say("compression")
        results["compression"] = alone.compression(plan.single_rounds // 2)
    return results


def _owners(
    variants: Variants, plan: Plan, message: bytes, counts: Counts, keyrings: Sequence[Path]
) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Messages a second, by variant: to as many owners as there are connections, and each message to another owner."""
    found = [variants.named(name) for name in (PLAIN, FILTER.format(variants.default_engine))]
    many = Many(ALL_USERS, plan.mailboxes)
    owners = {variant.name: itertools.cycle(enrol(variant, keyrings, many, message)) for variant in found}
    rates: dict[str, dict[str, list[float]]] = {variant.name: {"few": [], "many": []} for variant in found}
    for number in range(plan.rounds):
        for variant in _turn(found, number):
            few = variant.burst(CONNECTIONS, message, plan.burst_seconds)
            each_another = variant.to([owners[variant.name]] * CONNECTIONS, message, plan.burst_seconds)
            for name, burst in (("few", few), ("many", each_another)):
                rates[variant.name][name].append(round(_counted(burst, counts[variant.name]).rate, 2))
    return rates


def _throughput(
    variants: Variants, plan: Plan, message: bytes, counts: Counts, cost: dict[str, list[Any]] | None
) -> Mapping[str, Sequence[float]]:
    """Messages a second; and into `cost` the processors' milliseconds for each message, by who used them."""
    rates: dict[str, list[float]] = {variant.name: [] for variant in variants.variants}
    for number in range(plan.rounds):
        for variant in _turn(variants.variants, number):
            with cpu.measured(variant.lab.directory / "run") as used:
                burst = _counted(variant.burst(CONNECTIONS, message, plan.burst_seconds), counts[variant.name])
            rates[variant.name].append(round(burst.rate, 2))
            if cost is not None:
                each = {kind: round(1000 * used[kind] / len(burst.seconds), 4) for kind in cpu.KINDS}
                cost[variant.name].append(each)
    return rates


def _turn(variants: Sequence[Variant], number: int) -> Sequence[Variant]:
    first = number % len(variants)
    return [*variants[first:], *variants[:first]]


def _latency(variants: Variants, plan: Plan, message: bytes, counts: Counts) -> Mapping[str, Sequence[float]]:
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants.variants}
    for number in range(plan.latency_rounds):
        for variant in _turn(variants.variants, number):
            burst = _counted(variant.burst(1, message, plan.latency_seconds), counts[variant.name])
            seconds[variant.name] += [round(one, 6) for one in burst.seconds]
    return seconds


def _counted(burst: Burst, counts: Counter[str]) -> Burst:
    counts.update(taken=len(burst.seconds), refused=burst.refused)
    return burst


class _Alone:
    """Measures what needs no Dovecot, with the installation of one lab."""

    def __init__(self, directory: Path, variants: Variants, keyrings: Sequence[Path]) -> None:
        self._directory = directory
        self._lab = variants.complete
        self._engines = variants.engines
        self._keyrings = keyrings
        self._enrolled: dict[int, list[Home]] = {}
        self._home = Home.make(directory / "home", "bench@example.org", variants.public)

    def start(self, rounds: int) -> Any:
        message = self._message(SIZE)
        subjects: dict[str, Subject] = {
            GPG: programs.gpg(),
            PYTHON: programs.python(self._lab),
            EXECUTED: programs.executed(self._lab),
        }
        return _seconds(_rounds(subjects, rounds, message, self._home))

    def memory(self) -> Any:
        peaks = {}
        for size in (SIZE, LARGEST):
            message = self._message(size)
            found = {
                GPG: programs.peak_of_program(programs.gpg(), message, self._home),
                EXECUTED: programs.peak_of_program(programs.executed(self._lab), message, self._home),
            }
            for engine in self._engines:
                with programs.worker(self._lab, self._directory) as worker:
                    subject = worker.using(self._lab, _engine(engine))
                    found[WORKER.format(engine)] = programs.peak_of_worker(subject, message, self._home)
            peaks[str(size)] = programs.as_json(found)
        return peaks

    def sizes(self, rounds: Mapping[int, int]) -> Any:
        seconds: Results = {}
        with programs.worker(self._lab, self._directory) as worker:
            subjects: dict[str, Subject] = {GPG: programs.gpg(), EXECUTED: programs.executed(self._lab)}
            subjects |= self._workers(worker)
            for size, count in rounds.items():
                seconds[str(size)] = _seconds(_rounds(subjects, count, self._message(size), self._home))
        return seconds

    def users(self, rounds: int) -> Any:
        """The cost of one message, to an owner whose key the worker has seen, and to one whose key it has not."""
        message = self._message(SIZE)
        enrolled = {n: programs.homes(self._directory / f"enrolled{n}", self._keyrings, n) for n in USERS}
        self._enrolled = enrolled
        chance = random.Random(1)  # noqa: S311  # which owner is next
        seconds: Results = {str(n): {} for n in USERS}
        with programs.worker(self._lab, self._directory) as worker:
            workers = self._workers(worker)
            for _ in range(rounds + 1):
                for n, owners in enrolled.items():
                    new = chance.choice(owners[1:])
                    os.utime(new.keyring / "pubring.kbx")  # a changed keyring is one that the worker has not seen
                    samples = {EXECUTED: programs.executed(self._lab).run(message, new)}
                    samples |= {KNOWN.format(name): one.run(message, owners[0]) for name, one in workers.items()}
                    for name, one in workers.items():
                        os.utime(new.keyring / "pubring.kbx")
                        samples[NEW.format(name)] = one.run(message, new)
                    for name, sample in samples.items():
                        seconds[str(n)].setdefault(name, []).append(round(sample.seconds, 6))
        return {n: {name: found[1:] for name, found in all_found.items()} for n, all_found in seconds.items()}

    def after_all_users(self) -> Any:
        """What a worker as it is installed has in memory after a message for each of ALL_USERS owners, and the seconds
        of each message.
        """
        message = self._message(SMALL)
        with programs.worker(self._lab, self._directory) as worker:
            subject = worker.using(self._lab, "")
            seconds = [round(subject.run(message, home).seconds, 6) for home in self._enrolled[ALL_USERS]]
            return {"seconds": seconds, "octets": programs.resident(worker.process)}

    def compression(self, rounds: int) -> Any:
        settings = {f"{GNUPG}, {name}": f'{_engine(GNUPG)}compression = "{name}"\n' for name in ("none", "zlib")}
        if SEQUOIA in self._engines:
            settings[f"{SEQUOIA}, none"] = _engine(SEQUOIA)
        found: Results = {}
        with programs.worker(self._lab, self._directory) as worker:
            subjects = {name: worker.using(self._lab, text) for name, text in settings.items()}
            for name, content in messages.samples().items():
                message = self._directory / "sample"
                message.write_bytes(content)
                samples = _rounds(subjects, rounds, message, self._home)
                found[name] = {
                    "octets": len(content),
                    "stored": {subject: all_of_it[-1].octets for subject, all_of_it in samples.items()},
                    "seconds": _seconds(samples),
                }
        return found

    def _workers(self, worker: Worker) -> dict[str, Worker]:
        return {WORKER.format(engine): worker.using(self._lab, _engine(engine)) for engine in self._engines}

    def _message(self, size: int) -> Path:
        path = self._directory / f"message{size}"
        if not path.exists():
            messages.write(path, size)
        return path


def _engine(name: str) -> str:
    return f'engine = "{name.lower()}"\n'


def _rounds(subjects: Mapping[str, Subject], rounds: int, message: Path, home: Home) -> dict[str, list[Sample]]:
    """So many rounds, after one that does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, subject in subjects.items():
            samples[name].append(subject.run(message, home))
    return {name: taken[1:] for name, taken in samples.items()}


def _seconds(samples: Mapping[str, Iterable[Sample]]) -> dict[str, list[float]]:
    return {name: [round(sample.seconds, 6) for sample in taken] for name, taken in samples.items()}
