"""The matrix as a table, for the end of a run and for docs/developer/faults.md."""

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

LONG = "CRYPTOMAIL_FAULTS_LONG"  # in the environment of `make faults`
DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs" / "developer" / "faults.md"

_TEXT = """\
# The fault matrix

`make faults` causes each of these faults in a private Dovecot, delivers messages over LMTP, searches everything for
what they say, and accounts for each of them. It wrote this file: {day}, {result}.

{versions}.

| column | what is in it |
| --- | --- |
| by | who encrypts: the worker, or a program that is started for each message |
| delivered | taken by the server, and in the mailbox: encrypted, and byte for byte what was sent |
| refused | answered with 4xx or 5xx, or not at all: the sender still has them |
| leaked | of which anything but the Subject was found in clear: in mail, indexes, logs, temporary and deleted files |
| lost | taken by the server, and not in the mailbox |
| duplicated | once more in the mailbox than the sender knows |

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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for name in ("passed", "failed") for report in terminalreporter.stats.get(name, ())]
    properties = [dict(getattr(report, "user_properties", ())) for report in reports]
    rows = [Row(*one["fault"]) for one in properties if "fault" in one]
    if not rows:
        return
    terminalreporter.section("fault matrix")
    table = _table(rows)
    terminalreporter.write_line(table)
    if LONG in os.environ and len({row.dovecot for row in rows}) == 2:
        _write(rows, table, sum(report.failed for report in reports))


def _table(rows: Iterable[Row]) -> str:
    from tests.faults.faults import FAULTS

    order = {fault.sentence: place for place, fault in enumerate(FAULTS)}
    rows = sorted(rows, key=lambda row: (order[row.fault], row.by, row.dovecot))
    sums = [str(sum(column)) for column in zip(*(row[3:] for row in rows), strict=True)]
    lines = [Row._fields, *(tuple(map(str, row)) for row in rows), ("all of them", "", "", *sums)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join(f" {'-' * width} " for width in widths) + "|")
    return "\n".join(text)


def _write(rows: Iterable[Row], table: str, failed: int) -> None:
    versions = [f"Dovecot {' and '.join(sorted({row.dovecot for row in rows}))}"]
    versions.append(
        subprocess.run(["gpg", "--version"], check=True, capture_output=True, text=True).stdout.split("\n")[0]
    )
    versions.append(f"Python {platform.python_version()}")
    DOCUMENT.parent.mkdir(exist_ok=True)
    day = time.strftime("%-d %B %Y")
    result = f"{failed} of these tests failed" if failed else "all of these tests passed"
    DOCUMENT.write_text(_TEXT.format(day=day, versions=", ".join(versions), table=table, result=result))
