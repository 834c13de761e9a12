"""Turns the measurements into tables, plots, and a verdict on each goal. Pure: what `measure` found in, text out."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import cpu, plot
from benchmarks.measure import CONNECTIONS, EXECUTED, GPG, LARGEST, SIZE, USERS
from benchmarks.variants import (
    EXECUTED_FILTER,
    EXECUTED_SEALED,
    FILTER,
    GNUPG,
    GPGIT,
    KEEP,
    PLAIN,
    SEALED,
    SEQUOIA,
    SHELL,
)

Results = Mapping[str, Any]

_NOT_OURS = (PLAIN, KEEP, SHELL, GPGIT)
_MEGABYTE = 1_000_000
_SAME = 1.1  # two costs within a tenth of each other pass for the same


class Goal(NamedTuple):
    """What was to be reached, and what was; None where it could not be measured."""

    text: str
    at_least: bool
    target: float
    measured: float | None
    unit: str = " x"

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
        return self.text, target, f"{self.measured:.3g}{self.unit}", verdict


def goals(results: Results) -> list[Goal]:
    """The project's goals, in the order in which it names them."""
    rates = _medians(results["throughput"][str(SIZE)])
    latency = results["latency"]
    largest = _medians(results["sizes"][str(LARGEST)])
    peaks = results["memory"][str(LARGEST)]

    def rate(name: str, base: str) -> float | None:
        return rates[name] / rates[base] if name in rates and base in rates else None

    ours = [
        percentile(found, 99) / statistics.median(found) for name, found in latency.items() if name not in _NOT_OURS
    ]
    start = _medians(results["start"])
    few, many = _medians(results["users"][str(USERS[0])]), _medians(results["users"][str(USERS[-1])])
    of_largest = [name for name in largest if name != GPG]
    at_10 = f"at 10 KB and {CONNECTIONS} connections"
    return [
        Goal(
            f"worker with Sequoia, filter, to plain delivery {at_10}", True, 0.85, rate(FILTER.format(SEQUOIA), PLAIN)
        ),
        Goal(
            f"worker with Sequoia, sealed, to plain delivery {at_10}", True, 0.45, rate(SEALED.format(SEQUOIA), PLAIN)
        ),
        Goal(f"worker with GnuPG, filter, to the shell script {at_10}", True, 1, rate(FILTER.format(GNUPG), SHELL)),
        Goal(f"worker with Sequoia, filter, to gpgit {at_10}", True, 20, rate(FILTER.format(SEQUOIA), GPGIT)),
        Goal("p99 to median of one connection at 10 KB, the worst of ours", False, 10, max(ours)),
        Goal("executed filter to bare gpg, one message of 10 KB", False, 10, start[EXECUTED] / start[GPG]),
        Goal(
            f"one message with {USERS[-1]:,} owners enrolled to one with {USERS[0]}, the worst (the same: within 10 %)",
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
        Goal(
            "time for 100 MB to bare gpg, the worst of ours",
            False,
            1.3,
            max(largest[n] / largest[GPG] for n in of_largest),
        ),
    ]


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
    verdicts = [goal.row for goal in goals(results)]
    hits = sum(goal.hit for goal in goals(results))
    missing = "".join(f" {name} is left out: {why}." for name, why in results["missing"].items())
    parts = [
        "# Benchmarks",
        f"Written by `{results['command']}` on {results['date']}, in one run.{quick} Everything that is compared takes"
        " turns, round by round; what is given is the median. Behind each number is its ratio to the baseline of"
        f" the same run.{missing} All numbers: `build/benchmarks.json`.",
        _table(("", ""), [(name, value) for name, value in results["machine"].items()]),
        "Messages have a body of random base64, which does not compress, and go to owners with an ed25519/cv25519 key."
        " No program compresses, gpg included, except under Compression.",
        f"## Goals: {hits} of {len(verdicts)} hit",
        _table(("goal", "target", "measured", ""), verdicts),
        *_delivery(results, plot_directory),
        *_single(results, plot_directory),
        *_compression(results),
    ]
    return "\n\n".join(parts) + "\n"


def _delivery(results: Results, plot_directory: str) -> list[str]:
    throughput = {size: _medians(rates) for size, rates in results["throughput"].items()}
    names = list(results["latency"])
    rates = [
        (name, *(f"{rates[name]:.0f}/s ({rates[name] / rates[PLAIN]:.2f})" for rates in throughput.values()))
        for name in names
    ]
    plain = statistics.median(results["latency"][PLAIN])
    times = []
    for name, found in results["latency"].items():
        median, high = statistics.median(found), percentile(found, 99)
        times.append(
            (name, f"{_seconds(median)} ({median / plain:.2f})", _seconds(high), f"{high / median:.1f}", len(found))
        )
    return [
        "## Delivery",
        f"A private Dovecot 2.3 takes messages over LMTP, on {CONNECTIONS} connections with an owner each, for messages"
        " a second; the load comes from the same machine. In brackets: to no filter.",
        _image("Messages a second", plot_directory, "throughput"),
        _table(("", *(_size(int(size)) for size in throughput)), rates),
        _refused(results["refused"]),
        *_processors(results["cpu"]),
        "On one connection, for one message of 10 KB, from MAIL to the last reply:",
        _image("Latency", plot_directory, "latency"),
        _table(("", "median (to no filter)", "p99", "p99 to median", "messages"), times),
        f"`{SHELL}` stores the bare armored text; it is here for what a delivery costs that starts gpg and nothing"
        f" else. `{EXECUTED_FILTER}` and `{EXECUTED_SEALED}` are what serves without the worker. `{KEEP}` is what"
        " Dovecot alone needs as soon as there is a global script at all.",
    ]


def _processors(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[str]:
    """Who used the processors, and how fast it would be if our part of it took no time."""
    medians = {
        name: _medians({kind: [each[kind] for each in rounds] for kind in cpu.KINDS}) for name, rounds in found.items()
    }
    rows = [
        (name, *(f"{each[kind]:.2f}" for kind in cpu.KINDS), f"{sum(each.values()):.2f}")
        for name, each in medians.items()
    ]
    plain = sum(medians[PLAIN].values())
    best = next(name for name in (FILTER.format(SEQUOIA), FILTER.format(GNUPG)) if name in found)
    without_us = sum(medians[best][kind] for kind in ("lmtp", cpu.OTHERS))
    return [
        "Where the time goes: milliseconds of the processors for each message of 10 KB, by who used them.",
        _table(("", *cpu.KINDS, "in all"), rows),
        f"What Dovecot's own processes need for `{best}` is {without_us / plain:.2f} times what they need for"
        f" `{PLAIN}`: as long as the processors are what limits it, a worker that took no time at all would reach"
        f" {plain / without_us:.2f} of plain delivery.",
    ]


def _refused(counts: Mapping[str, Mapping[str, int]]) -> str:
    """What was answered with 451: the sending server keeps such a message and tries again."""
    found = [f"{name}: {one['refused']} of {sum(one.values())}" for name, one in counts.items() if one["refused"]]
    return "Refused for now, and not counted: " + ("; ".join(found) if found else "nothing") + "."


def _single(results: Results, plot_directory: str) -> list[str]:
    memory = results["memory"]
    peaks = [
        (
            name,
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
        _against({"": results["start"]}, GPG, lambda _: "time"),
        f"By size. The worker has one process here, and takes messages above 2 MB to GnuPG with either engine;"
        f" in brackets: to `{GPG}`.",
        _image("Time by size", plot_directory, "sizes"),
        _against(results["sizes"], GPG, lambda size: _size(int(size))),
        "The most memory that was resident: of the process, and of the gpg that it runs (?: too short to see).",
        _table(("", *(_size(int(size)) for size in memory)), peaks),
        "By the number of owners that have keys, one keyring each. A worker remembers the keys of the last 2,000"
        f' owners; "new" are those that it does not. In brackets: to {USERS[0]} owners.',
        _image("Time by the number of owners", plot_directory, "users"),
        _by_users(results["users"]),
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
                    name,
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


def _against(columns: Mapping[str, Mapping[str, Sequence[float]]], base: str, write: Callable[[str], str]) -> str:
    medians = {column: _medians(found) for column, found in columns.items()}
    rows = [
        (name, *(f"{_seconds(found[name])} ({found[name] / found[base]:.2f})" for found in medians.values()))
        for name in next(iter(medians.values()))
    ]
    return _table(("", *(write(column) for column in columns)), rows)


def _by_users(users: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    medians = {count: _medians(found) for count, found in users.items()}
    few = next(iter(medians.values()))
    rows = [
        (name, *(f"{_seconds(found[name])} ({found[name] / few[name]:.2f})" for found in medians.values()))
        for name in few
    ]
    return _table(("", *(f"{int(count):,} owners" for count in users)), rows)


def _medians(found: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in found.items()}


def _turned(columns: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, dict[float, float]]:
    """Lines for a plot: by name, then by column."""
    names = list(next(iter(columns.values())))
    return {name: {float(x): statistics.median(found[name]) for x, found in columns.items()} for name in names}


def _table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _image(text: str, directory: str, name: str) -> str:
    return f"![{text}]({directory}/{name}.svg)"


def _peak(octets: int) -> str:
    """A process that was seen once, or never, has ended too soon for a peak."""
    return f"{octets / _MEGABYTE:.0f} MB" if octets > 2 * _MEGABYTE else "?"


def _size(octets: float) -> str:
    return f"{octets / _MEGABYTE:g} MB" if octets >= _MEGABYTE else f"{octets / 1000:g} KB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
