"""The matrix as a table, for the end of a run and for docs/developer/faults.md."""

import json
import os
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

LONG = "CRYPTOMAIL_FAULTS_LONG"  # in the environment of `make faults`
REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCUMENT = REPOSITORY / "docs" / "developer" / "faults.md"
KEPT = REPOSITORY / "build" / "faults.json"  # what long runs have shown: a part of them may run again

_TEXT = """\
# The fault matrix

`make faults` causes each of these faults in a private Dovecot, delivers messages over LMTP, searches everything for
what they say, and accounts for each of them. It wrote this file: {day}, {result}.

{versions}. {commits}

| column | what is in it |
| --- | --- |
| by | who encrypts: the worker; a program that is started for each message; a worker that acts for system users |
| delivered | taken by the server, and in the mailbox: encrypted, and byte for byte what was sent |
| refused | answered with 4xx or 5xx, or not at all: the sender still has them |
| leaked | of which anything but the Subject was found in clear: in mail, indexes, logs, temporary and deleted files |
| lost | taken by the server, and not in the mailbox |
| duplicated | once more in the mailbox than the sender knows |

A fault counts only where it left its line in a log, so that each of them is known to have bitten.

A duplicate is allowed where a process may die between storing a message and saying so. The Subject is allowed in the
header section of an encrypted message, and in Dovecot's cache of header sections.

A keyring that is missing is no fault by default: an owner without keys gets mail in clear. The line on it is for
servers with `no_key = "refuse"`.

{table}
"""


class Row(NamedTuple):
    """One line: what happened to the messages of one fault in one Dovecot."""

    fault: str
    by: str
    dovecot: str
    delivered: int
    refused: int
    leaked: int
    lost: int
    duplicated: int


class Result(NamedTuple):
    """A row, whether its test passed, and the commit of the program that it is about."""

    row: Row
    passed: bool
    commit: str


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    properties = [(dict(getattr(report, "user_properties", ())), bool(report.passed)) for report in reports]
    found = [(Row(*one["fault"]), passed) for one, passed in properties if "fault" in one]
    if not found:
        return
    terminalreporter.section("fault matrix")
    terminalreporter.write_line(_table([row for row, _ in found]))
    if LONG in os.environ:
        commit = _said(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude", "*"])
        results = _keep([Result(row, passed, commit) for row, passed in found])
        missing = sum(2 * len(modes) for modes in _modes().values()) - len(results)
        if missing:
            terminalreporter.write_line(f"{DOCUMENT.name} stays as it was: {missing} faults have not been caused yet")
        else:
            _write(results)


def _modes() -> dict[str, tuple[str, ...]]:
    """In what modes each fault is one; in the order of the table."""
    from tests.faults.faults import FAULTS

    return {fault.sentence: fault.modes for fault in FAULTS}


def _keep(new: Iterable[Result]) -> list[Result]:
    """All that long runs have shown, and this one, the last of each; what is no fault any more is left out."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else []
    results = [Result(Row(*row), passed, commit) for row, passed, commit in kept]
    by_case = {one.row[:3]: one for one in (*results, *new) if one.row.fault in _modes()}
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(list(by_case.values()), indent=1) + "\n")
    return list(by_case.values())


def _table(rows: Iterable[Row]) -> str:
    order = list(_modes())
    rows = sorted(rows, key=lambda row: (order.index(row.fault), row.by, row.dovecot))
    sums = [str(sum(column)) for column in zip(*(row[3:] for row in rows), strict=True)]
    lines = [Row._fields, *(tuple(map(str, row)) for row in rows), ("all of them", "", "", *sums)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join(f" {'-' * width} " for width in widths) + "|")
    return "\n".join(text)


def _write(results: Sequence[Result]) -> None:
    rows = [one.row for one in results]
    versions = [f"Dovecot {' and '.join(sorted({row.dovecot for row in rows}))}"]
    versions += [_said(["gpg", "--version"]), f"Python {platform.python_version()}"]
    failed = [f"“{one.row.fault}” ({one.row.by}, {one.row.dovecot})" for one in results if not one.passed]
    result = f"{len(failed)} of these tests failed: {', '.join(failed)}" if failed else "all of these tests passed"
    DOCUMENT.write_text(
        _TEXT.format(
            day=time.strftime("%-d %B %Y"),
            versions=", ".join(versions),
            commits=_commits(results),
            table=_table(rows),
            result=result,
        )
    )


def _commits(results: Sequence[Result]) -> str:
    """Which rows are about which commit."""
    (most, _), *others = Counter(one.commit for one in results).most_common()
    if not others:
        return f"All rows are of commit {most}."
    return f"Of commit {most}, and " + ", ".join(f"{count} rows of {commit}" for commit, count in others) + "."


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\n")[0]
