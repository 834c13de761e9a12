"""The seeds of `make fuzz`."""

from pathlib import Path

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())
