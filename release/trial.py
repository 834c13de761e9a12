"""Tries packages out on clean machines: installs, delivers, upgrades under load, removes and purges.

    python -m release.trial 12 13

What it says, it has seen in a tree of that release in which nothing but the package and what it needs was installed.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from lab.server import REPOSITORY
from release import deb, trees

INSIDE = Path(__file__).with_name("inside.py")


def main(releases: list[str]) -> None:
    for release in releases:
        with trees.tree(release) as tree:
            trial = tree.written / "trial"
            trial.mkdir()
            first = deb.build(release, trial)
            shutil.move(first, trial / "1.deb")
            second = deb.build(release, trial, later="+1")
            shutil.move(second, trial / "2.deb")
            for file in (INSIDE, REPOSITORY / "debian/tests/deliver"):
                shutil.copy(file, trial)
            started = time.monotonic()
            tree.run(
                "apt-get update -qq; apt-get -qq install -y python3 > /dev/null; cd /trial; exec python3 inside.py"
            )
            print(f"Debian {release}: {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    try:
        main(sys.argv[1:] or list(trees.SUITES))
    except subprocess.CalledProcessError as error:
        sys.exit(f"make deb-test: failed with {error.returncode}")
