"""Turns the measurements into tables, plots, and a verdict on each goal. Pure: what `measure` found in, text out."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks import cpu, plot
from benchmarks.measure import ALL_USERS, CONNECTIONS, EXECUTED, GPG, KNOWN, LARGEST, NEW, SIZE, SIZES, USERS, WORKER
from benchmarks.variants import (
    EXECUTED_FILTER,
    EXECUTED_SEALED,
    FILTER,
    GNUPG,
    GPGIT,
    KEEP,
    LIMIT_FILTER,
    LIMIT_SEALED,
    PLAIN,
    SEALED,
    SEQUOIA,
    SHELL,
)

Results = Mapping[str, Any]

_NOT_OURS = (PLAIN, KEEP, LIMIT_FILTER, LIMIT_SEALED, SHELL, GPGIT)
_LIMITS = {FILTER: LIMIT_FILTER, SEALED: LIMIT_SEALED}
_ROUNDS = 5  # into so many are single messages put together
_MEGABYTE = 1_000_000
_SAME = 1.1  # two costs within a tenth of each other pass for the same


class Spread(NamedTuple):
    """The median of a few rounds, and the least and the most that one of them had."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


class Goal(NamedTuple):
    """What was to be reached, and what was; None where it could not be measured."""

    text: str
    at_least: bool
    target: float
    measured: float | None
    unit: str = " x"
    spread: str = ""

    @classmethod
    def of(cls, text: str, at_least: bool, target: float, found: Spread | None) -> "Goal":
        return cls(text, at_least, target, found and found.median, spread=str(found) if found else "")

    @property
    def hit(self) -> bool:
        return self.measured is not None and (
            self.measured >= self.target if self.at_least else self.measured <= self.target
        )

    @property
    def row(self) -> tuple[str, str, str, str]:
        sign = "at least" if self.at_least else "at most"
        target = f"{sign} {self.target:g}{self.unit}"
        if self.measured is None:
            return self.text, target, "not measured", ""
        away = abs(self.measured / self.target - 1) * 100
        verdict = f"hit, by {away:.0f} %" if self.hit else f"**missed by {away:.0f} %**"
        spread = f" ({self.spread})" if self.spread else ""
        return self.text, target, f"{self.measured:.3g}{self.unit}{spread}", verdict


def goals(results: Results) -> list[Goal]:
    """The project's goals, in the order in which it names them."""
    default = results["default_engine"]
    at_10, at_1000 = results["throughput"][str(SIZE)], results["throughput"][str(SIZES[-1])]
    filtered, sealed = FILTER.format(default), SEALED.format(default)
    largest, of_1000 = results["sizes"][str(LARGEST)], results["sizes"][str(SIZES[-1])]
    all_users = results["users"][str(ALL_USERS)]
    worker = WORKER.format(default)
    owners = results["owners"][filtered]
    peaks = results["memory"][str(LARGEST)]
    tails = [
        percentile(found, 99) / statistics.median(found)
        for name, found in results["latency"].items()
        if name not in _NOT_OURS
    ]
    slowest = max((name for name in largest if name != GPG), key=lambda name: statistics.median(largest[name]))
    few, many = _medians(results["users"][str(USERS[0])]), _medians(all_users)
    at = f"10 KB, {CONNECTIONS} connections"
    return [
        Goal.of(f"filter as installed, {at}, of plain delivery", True, 0.62, ratio(at_10, filtered, PLAIN)),
        Goal.of("the same, of its stand-in's limit", True, 0.9, ratio(at_10, filtered, LIMIT_FILTER)),
        Goal.of(f"sealed as installed, {at}, of plain delivery", True, 0.5, ratio(at_10, sealed, PLAIN)),
        Goal.of("the same, of its stand-in's limit", True, 0.9, ratio(at_10, sealed, LIMIT_SEALED)),
        Goal.of("filter as installed, 1 MB, of plain delivery", True, 0.6, ratio(at_1000, filtered, PLAIN)),
        Goal.of(
            "worker with Sequoia, one message of 1 MB, to bare gpg",
            False,
            0.6,
            ratio(of_1000, WORKER.format(SEQUOIA), GPG),
        ),
        Goal.of(
            "worker as installed, owner not cached, to cached",
            False,
            1.3,
            ratio(all_users, NEW.format(worker), KNOWN.format(worker)),
        ),
        Goal.of("executed filter to bare gpg, one message of 10 KB", False, 6, ratio(results["start"], EXECUTED, GPG)),
        Goal.of("time for 100 MB to bare gpg, the worst of ours", False, 1.15, ratio(largest, slowest, GPG)),
        Goal.of(
            f"{ALL_USERS:,} owners, each message for another one, messages a second to {CONNECTIONS} owners'",
            True,
            0.95,
            ratio(owners, "many", "few"),
        ),
        Goal(
            f"memory of a worker as installed after {ALL_USERS:,} owners",
            False,
            60,
            results["after"]["octets"] / _MEGABYTE,
            " MB",
        ),
        Goal.of(
            f"worker with GnuPG, filter, to the shell script, {at}",
            True,
            1,
            ratio(at_10, FILTER.format(GNUPG), SHELL),
        ),
        Goal.of(f"worker with Sequoia, filter, to gpgit, {at}", True, 20, ratio(at_10, FILTER.format(SEQUOIA), GPGIT)),
        Goal("p99 to median of one connection at 10 KB, the worst of ours", False, 10, max(tails)),
        Goal(
            f"one message with {ALL_USERS:,} owners enrolled to one with {USERS[0]}, the worst (the same: within 10 %)",
            False,
            _SAME,
            max(many[name] / few[name] for name in few),
        ),
        Goal(
            "memory for 100 MB, its gpg included, the worst of ours",
            False,
            80,
            max((peak["own"] + peak["child"]) / _MEGABYTE for name, peak in peaks.items() if name != GPG),
            " MB",
        ),
    ]


def ratio(found: Mapping[str, Sequence[float]], name: str, base: str) -> Spread | None:
    """One to the other: of their medians, and the least and the most of the rounds; None where one was not measured."""
    if name not in found or base not in found:
        return None
    rounds = [one / other for one, other in zip(_by_round(found[name]), _by_round(found[base]), strict=True)]
    return Spread(statistics.median(found[name]) / statistics.median(found[base]), min(rounds), max(rounds))


def _spread(values: Sequence[float]) -> Spread:
    rounds = _by_round(values)
    return Spread(statistics.median(values), min(rounds), max(rounds))


def _by_round(values: Sequence[float]) -> Sequence[float]:
    """The values, or, of many single messages, the medians of _ROUNDS parts in the order in which they were taken."""
    if len(values) < 2 * _ROUNDS:
        return values
    bounds = [len(values) * number // _ROUNDS for number in range(_ROUNDS + 1)]
    return [statistics.median(values[start:end]) for start, end in pairwise(bounds)]


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, -int(-len(ordered) * percent // 100) - 1)]


def plots(results: Results) -> dict[str, str]:
    """The plots as SVG, by the names of their files."""
    panels = {
        _size(int(size)): {
            name: (value, f"{value:.0f}/s, {value / medians[PLAIN]:.2f}") for name, value in medians.items()
        }
        for size, rates in results["throughput"].items()
        for medians in [_medians(rates)]
    }
    latency = [
        plot.Span(name, statistics.median(found), percentile(found, 99)) for name, found in results["latency"].items()
    ]
    return {
        "throughput": plot.bars(f"Messages a second over {CONNECTIONS} connections, and ratio to no filter", panels),
        "latency": plot.spans(
            "Time for one message of 10 KB: median (large dot) to p99 (small dot)", latency, _seconds
        ),
        "sizes": plot.lines(
            "Time for one message by its size, without Dovecot", _turned(results["sizes"]), _size, _seconds
        ),
        "users": plot.lines(
            "Time for one message of 10 KB by the number of owners with keys",
            _turned(results["users"]),
            lambda count: f"{count:,.0f}",
            _seconds,
        ),
    }


def document(results: Results, plot_directory: str) -> str:
    """All of it in Markdown; the plots lie in `plot_directory`, as seen from the document."""
    quick = " It was a quick run: take its numbers as a sketch." if results["quick"] else ""
    missing = "".join(f" {name} is left out: {why}." for name, why in results["missing"].items())
    parts = [
        "# Benchmarks",
        f"Written by `{results['command']}` on {results['date']}, in one run.{quick} Everything that is compared takes"
        f" turns, round by round; what is given is the median, with the least and the most of the rounds (of single"
        f" messages: of {_ROUNDS} parts of them). Behind it is its ratio to the baseline of the same run.{missing} All"
        " numbers: `build/benchmarks.json`.",
        _table(("", ""), [(name, value) for name, value in results["machine"].items()]),
        "Messages have a body of random base64, which does not compress, and go to owners with an ed25519/cv25519 key."
        " No program compresses, gpg included, except under Compression.",
        f"If nothing is configured, messages are sealed, and {results['default_engine']} encrypts in the worker: the"
        f' rows "{row(SEALED.format(results["default_engine"]), results)}". With `SEALING=no` it is'
        f" `{FILTER.format(results['default_engine'])}`. An executed program serves where the worker was taken away,"
        " and uses GnuPG if nothing is configured.",
        "The stand-in is a worker that answers at once, with a message that was encrypted before: what Dovecot allows"
        " at most.",
        *_goals(results),
        *_delivery(results, plot_directory),
        *_single(results, plot_directory),
        *_compression(results),
    ]
    if other := results.get("other"):
        parts += [
            f"# Dovecot {other['machine']['Dovecot']}",
            "The same, after it, in a Debian 13 tree on the same machine; all that is compared is of this Dovecot."
            f" Measured on {other['date']}.",
            _table(("", ""), [(name, value) for name, value in other["machine"].items()]),
            *_goals(other),
            *_delivery(other, None),
        ]
    return "\n\n".join(parts) + "\n"


def _goals(results: Results) -> list[str]:
    found = goals(results)
    return [
        f"## Goals: {sum(goal.hit for goal in found)} of {len(found)} hit",
        _table(("goal", "target", "measured (least to most)", ""), [goal.row for goal in found]),
    ]


def row(name: str, results: Results) -> str:
    """The name of a row, and whether it is what happens if nothing is configured."""
    default = results["default_engine"]
    as_installed = (SEALED.format(default), WORKER.format(default), f"{default}, none")
    if name in (*as_installed, KNOWN.format(WORKER.format(default)), NEW.format(WORKER.format(default))):
        return f"**{name}** (default)"
    return f"{name} (default with `SEALING=no`)" if name == FILTER.format(default) else name


def _delivery(results: Results, plot_directory: str | None) -> list[str]:
    throughput = results["throughput"]
    names = list(results["latency"])
    rates = [(row(name, results), *(_rate(found, name, PLAIN) for found in throughput.values())) for name in names]
    limits = [
        (
            f"{row(template.format(engine), results)}, of {limit}",
            *(_of(ratio(found, template.format(engine), limit)) for found in throughput.values()),
        )
        for template, limit in _LIMITS.items()
        for engine in (GNUPG, SEQUOIA)
        if template.format(engine) in names
    ]
    plain = statistics.median(results["latency"][PLAIN])
    times = []
    for name, found in results["latency"].items():
        median, high = statistics.median(found), percentile(found, 99)
        mark = row(name, results)
        times.append(
            (mark, f"{_seconds(median)} ({median / plain:.2f})", _seconds(high), f"{high / median:.1f}", len(found))
        )
    sizes = [_size(int(size)) for size in throughput]
    return [
        "## Delivery",
        f"A private Dovecot takes messages over LMTP, on {CONNECTIONS} connections with an owner each, for messages"
        " a second; the load comes from the same machine. In brackets: to no filter; the least and the most.",
        *_image("Messages a second", plot_directory, "throughput"),
        _table(("", *sizes), rates),
        "Of what Dovecot allows at most:",
        _table(("", *sizes), limits),
        _refused(results["refused"]),
        *_processors(results["cpu"], results),
        f"With {ALL_USERS:,} owners who have keys ({results['keys']:,} different ones), each message for another"
        f" owner, who has a mailbox, and for {CONNECTIONS} owners; messages of 10 KB a second. Dovecot opens another"
        " mailbox for each, which costs plain delivery something, too.",
        _table(
            ("", f"{CONNECTIONS} owners", "each another owner", "to few owners"),
            [
                (row(name, results), *(_rate(found, which) for which in found), _of(ratio(found, "many", "few")))
                for name, found in results["owners"].items()
            ],
        ),
        "On one connection, for one message of 10 KB, from MAIL to the last reply:",
        *_image("Latency", plot_directory, "latency"),
        _table(("", "median (to no filter)", "p99", "p99 to median", "messages"), times),
        f"`{SHELL}` stores the bare armored text; it is here for what a delivery costs that starts gpg and nothing"
        f" else. `{EXECUTED_FILTER}` and `{EXECUTED_SEALED}` are what serves without the worker. `{KEEP}` is what"
        " Dovecot alone needs as soon as there is a global script at all.",
    ]


def _rate(found: Mapping[str, Sequence[float]], name: str, base: str = "") -> str:
    one = _spread(found[name])
    ratio = f"{one.median / statistics.median(found[base]):.2f}; " if base else ""
    return f"{one.median:.0f}/s ({ratio}{one.low:.0f}-{one.high:.0f})"


def _of(found: Spread | None) -> str:
    return f"{found.median:.2f} ({found.low:.2f}-{found.high:.2f})" if found else ""


def _processors(found: Mapping[str, Sequence[Mapping[str, float]]], results: Results) -> list[str]:
    """Who used the processors."""
    medians = {
        name: _medians({kind: [each[kind] for each in rounds] for kind in cpu.KINDS}) for name, rounds in found.items()
    }
    rows = [
        (row(name, results), *(f"{each[kind]:.2f}" for kind in cpu.KINDS), f"{sum(each.values()):.2f}")
        for name, each in medians.items()
    ]
    return [
        "Where the time goes: milliseconds of the processors for each message of 10 KB, by who used them.",
        _table(("", *cpu.KINDS, "in all"), rows),
    ]


def _refused(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What was answered with 451: the sending server keeps such a message and tries again."""
    found = [f"{name}: {one['refused']} of {sum(one.values())}" for name, one in counts.items() if one["refused"]]
    return "Refused for now, and not counted: " + ("; ".join(found) if found else "nothing") + "."


def _single(results: Results, plot_directory: str) -> list[str]:
    memory = results["memory"]
    after = results["after"]
    peaks = [
        (
            row(name, results),
            *(
                _peak(peaks[name]["own"]) + (f" + {_peak(peaks[name]['child'])}" if name != GPG else "")
                for peaks in memory.values()
            ),
        )
        for name in next(iter(memory.values()))
    ]
    return [
        "## Single messages, without Dovecot",
        f"The start of programs, with a message of 10 KB; in brackets: to `{GPG}`.",
        _against(results, {"": results["start"]}, GPG, lambda _: "time"),
        f"By size. The worker has one process here, and takes messages above 2 MB to GnuPG with either engine;"
        f" in brackets: to `{GPG}`.",
        *_image("Time by size", plot_directory, "sizes"),
        _against(results, results["sizes"], GPG, lambda size: _size(int(size))),
        "The most memory that was resident: of the process, and of the gpg that it runs (?: too short to see).",
        _table(("", *(_size(int(size)) for size in memory)), peaks),
        f"After a message of 1 KB for each of {ALL_USERS:,} owners, a worker as installed has"
        f" {_peak(after['octets'])} in memory; each message took {_seconds(statistics.median(after['seconds']))}.",
        "By the number of owners that have keys, one keyring each. A worker remembers the keys of the last 2,000"
        f' owners; "new" are those that it does not. In brackets: to {USERS[0]} owners.',
        *_image("Time by the number of owners", plot_directory, "users"),
        _by_users(results),
    ]


def _compression(results: Results) -> list[str]:
    rows = []
    for content, found in results["compression"].items():
        medians = _medians(found["seconds"])
        base = medians[f"{GNUPG}, none"]
        for name, seconds in medians.items():
            stored = found["stored"][name]
            rows.append(
                (
                    content,
                    row(name, results),
                    f"{_seconds(seconds)} ({seconds / base:.2f})",
                    f"{stored:,} ({stored / found['octets']:.2f})",
                )
            )
    return [
        "## Compression",
        "Before encryption, by the worker. The text is licences', the HTML a newsletter's, the attachment random as"
        " archives and pictures are. In brackets: time to GnuPG's without compression, stored octets to the message's.",
        _table(("content", "engine, compression", "time", "stored octets"), rows),
    ]


def _against(
    results: Results, columns: Mapping[str, Mapping[str, Sequence[float]]], base: str, write: Callable[[str], str]
) -> str:
    rows = [
        (row(name, results), *(_time(found[name], found[base]) for found in columns.values()))
        for name in next(iter(columns.values()))
    ]
    return _table(("", *(write(column) for column in columns)), rows)


def _by_users(results: Results) -> str:
    users = results["users"]
    few = next(iter(users.values()))
    rows = [(row(name, results), *(_time(found[name], few[name]) for found in users.values())) for name in few]
    return _table(("", *(f"{int(count):,} owners" for count in users)), rows)


def _time(found: Sequence[float], base: Sequence[float]) -> str:
    one = _spread(found)
    return f"{_seconds(one.median)} ({one.median / statistics.median(base):.2f}; {_range(one)})"


def _range(one: Spread) -> str:
    """The least and the most, in the unit of the former."""
    if one.low >= 1:
        return f"{one.low:.3g}-{one.high:.3g} s"
    return f"{one.low * 1000:.3g}-{one.high * 1000:.3g} ms"


def _medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def _turned(columns: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[float, float]]:
    """Lines for a plot: by name, then by column."""
    names = list(next(iter(columns.values())))
    return {name: {float(x): statistics.median(found[name]) for x, found in columns.items()} for name in names}


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _image(text: str, directory: str | None, name: str) -> list[str]:
    return [f"![{text}]({directory}/{name}.svg)"] if directory else []


def _peak(octets: int) -> str:
    """A process that was seen once, or never, has ended too soon for a peak."""
    return f"{octets / _MEGABYTE:.0f} MB" if octets > 2 * _MEGABYTE else "?"


def _size(octets: float) -> str:
    return f"{octets / _MEGABYTE:g} MB" if octets >= _MEGABYTE else f"{octets / 1000:g} KB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
