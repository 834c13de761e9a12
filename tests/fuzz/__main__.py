"""`make fuzz [SECONDS=60]`: looks for bytes that break a promise, guided by coverage, from the seeds in corpus/.

What it finds lies in build/fuzz: copy it to corpus/ under a name that says what it is, and mend the program.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["sieve_filter"]):
    from tests.fuzz.properties import check

CORPUS = Path(__file__).parent / "corpus"
FOUND = Path(__file__).parent.parent.parent / "build" / "fuzz"


def main() -> None:
    grown = FOUND / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    limits = [f"-max_total_time={sys.argv[1]}", "-max_len=20000", "-timeout=10", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={FOUND}/", str(grown), str(CORPUS)], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
