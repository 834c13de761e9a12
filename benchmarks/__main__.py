"""`make bench`: measures, and writes build/benchmarks.json, docs/developer/benchmarks.md and its plots."""

import argparse
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, measure, report, tree, variants

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build"
NUMBERS = BUILD / "benchmarks.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under eight minutes; the document goes to build/ too")
    parser.add_argument("--both", action="store_true", help="then measure Dovecot 2.4 in its Debian 13 tree, as root")
    parser.add_argument("--write", action="store_true", help="measure nothing: write the document of the last run anew")
    parser.add_argument("--numbers", type=Path, metavar="FILE", help="write what is measured there, and no document")
    options = parser.parse_args()
    if options.numbers:
        options.numbers.write_text(json.dumps(_measure(options.quick)) + "\n")
        return
    if not options.write:
        results = _measure(options.quick)
        if options.both:
            results["command"] += " BOTH=1"
            results["other"] = tree.measured(["--quick"] if options.quick else [])
            results["other"]["machine"]["cryptomail"] = results["machine"]["cryptomail"]  # there is no git in there
        BUILD.mkdir(exist_ok=True)
        NUMBERS.write_text(json.dumps(results, indent=1) + "\n")
    results = json.loads(NUMBERS.read_text())
    written = _write(results, BUILD if results["quick"] else REPOSITORY / "docs" / "developer")
    for one in filter(None, (results, results.get("other"))):
        print(f"Dovecot {one['machine']['Dovecot']}")
        for goal in report.goals(one):
            print("; ".join(cell for cell in goal.row if cell))
    print(f"written: {NUMBERS}, {written}")


def _measure(quick: bool) -> dict[str, Any]:
    load, _, _ = os.getloadavg()
    with variants.running() as found:
        return {
            "command": "make bench" + (" QUICK=1" if quick else ""),
            "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "quick": quick,
            "machine": machine.describe(found.complete, load),
            "missing": dict(found.missing),
            **measure.everything(found, measure.QUICK if quick else measure.FULL),
        }


def _write(results: Mapping[str, Any], directory: Path) -> Path:
    plots = directory / "benchmarks"
    plots.mkdir(exist_ok=True)
    for name, svg in report.plots(results).items():
        (plots / f"{name}.svg").write_text(svg)
    document = directory / "benchmarks.md"
    document.write_text(report.document(results, plots.name))
    return document


if __name__ == "__main__":
    main()
