"""Measures Dovecot 2.4, too: everything runs in the Debian 13 tree that the tests use."""

import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab import debian13
from lab.server import REPOSITORY

# Processor time and memory are read from /proc, which is mounted for this command alone, and gone with it.
_ENTER = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'


def measured(options: list[str]) -> dict[str, Any]:
    """What `python -m benchmarks` finds with these options in the tree. Needs root."""
    debian13.build()
    (debian13.TREE / "dev/shm").chmod(0o1777)
    with TemporaryDirectory(prefix="bench-", dir=debian13.TREE / "tmp") as outside:
        work = Path(outside)
        work.chmod(0o755)
        inside = f"/tmp/{work.name}"  # noqa: S108  # the tree's own, which only root enters
        shutil.copytree(REPOSITORY, work / "repository", ignore=debian13.NOT_COPIED)
        command = ["unshare", "--mount", "sh", "-c", _ENTER, str(debian13.TREE)]
        command += ["env", f"--chdir={inside}/repository", "python3", "-m", "benchmarks", *options]
        subprocess.run([*command, "--numbers", f"{inside}/numbers.json"], check=True, env=debian13.environment())
        found: dict[str, Any] = json.loads((work / "numbers.json").read_text())
        return found
