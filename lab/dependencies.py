"""What `make install` needs of others, fetched once for all labs: pip takes longer than all the rest of it."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from lab.server import REPOSITORY


def fetched(parent: Path, environment: Mapping[str, str] | None = None) -> Path:
    """A directory in `parent` that `make dependencies` has filled, in that environment, made unless it is there."""
    setup = (REPOSITORY / "setup.cfg").read_bytes()
    directory = parent / f"dependencies-{sha256(setup).hexdigest()[:8]}"
    parent.mkdir(exist_ok=True)
    with (parent / "dependencies.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side need it at the same time
        if not directory.exists():
            unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=parent))
            unfinished.chmod(0o755)
            command = ["make", "--silent", "dependencies", f"DEPENDENCIES={unfinished}"]
            try:
                subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **(environment or {})}, check=True)
                unfinished.rename(directory)
            except BaseException:
                shutil.rmtree(unfinished)
                raise
    return directory
