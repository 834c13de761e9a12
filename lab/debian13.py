"""A lab in a tree of Debian 13, for its Dovecot 2.4: built once with debootstrap, entered with chroot."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import Lab
from lab.dependencies import fetched
from lab.server import PACKAGES, REPOSITORY, LabError

TREE = REPOSITORY / "build" / "debian13"
# What a copy of the repository does without.
NOT_COPIED = shutil.ignore_patterns("build", ".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info")


@contextmanager
def lab(mode: str = "sealed") -> Iterator[Lab]:
    """A running lab with Dovecot 2.4, until the block ends."""
    build()
    (TREE / "dev/shm").chmod(0o1777)  # as it is where a memory file system is mounted there
    with tempfile.TemporaryDirectory(prefix="lab-", dir=TREE / "tmp") as outside:
        work = Path(outside)
        work.chmod(0o755)
        inside = f"/tmp/{work.name}"  # noqa: S108  # the tree's own, which only root enters
        shutil.copytree(REPOSITORY, work / "repository", ignore=NOT_COPIED)
        chroot = ["chroot", str(TREE), "env", f"--chdir={inside}/repository", "python3", "-m", "lab"]
        start = [*chroot, "start", "--mode", mode, f"{inside}/lab"]
        subprocess.run(start, check=True, env=environment())
        try:
            yield Lab.load(work / "lab", TREE)
        finally:
            subprocess.run([*chroot, "stop", f"{inside}/lab"], check=True, env=environment())


def environment() -> dict[str, str]:
    """What a program in the tree is given. `make install` gets what it needs: the tree may have no way out."""
    version = (TREE / "usr/bin/python3").readlink().name.removeprefix("python")
    platforms = " ".join(f"manylinux_2_{glibc}_{os.uname().machine}" for glibc in (17, 28, 34))
    fetching = {"PIP_PYTHON_VERSION": version, "PIP_PLATFORM": platforms}
    packages = fetched(TREE / "var/cache/cryptomail", fetching)
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEPENDENCIES": f"/{packages.relative_to(TREE)}"}


def build(tree: Path = TREE, packages: str = PACKAGES) -> None:
    """Make the tree, unless it is there: it takes its name only when it is complete."""
    if os.getuid() != 0:
        raise LabError("only root can build and enter a Debian 13 tree, for Dovecot 2.4: run this as root")
    tree.parent.mkdir(exist_ok=True)
    with tree.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests that run side by side need it at the same time
        if not tree.exists():
            _debootstrap(tree, packages)


def _debootstrap(tree: Path, packages: str) -> None:
    if shutil.which("debootstrap") is None:
        raise LabError("debootstrap is missing: make packages")
    unfinished = Path(tempfile.mkdtemp(prefix="debian13-", dir=tree.parent))
    unfinished.chmod(0o755)
    include = packages.replace(" ", ",")
    command = ["debootstrap", "--variant=minbase", f"--include={include}", "trixie", str(unfinished), mirror()]
    try:
        subprocess.run(command, check=True)
        # debootstrap mounts it and forgets it; Dovecot does without, and who deletes the tree shall find nothing there.
        subprocess.run(["umount", unfinished / "proc"], stderr=subprocess.DEVNULL)
        unfinished.rename(tree)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def mirror() -> str:
    """The Debian mirror of this machine's own apt sources, in either of their two forms."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.suffix in (".list", ".sources") and file.exists())
    found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
    if found is None:
        raise LabError("no Debian mirror in /etc/apt: a Debian 13 tree cannot be built")
    return found[1]
