"""Clean trees of Debian's releases, made once with debootstrap; what is done in one is thrown away afterwards."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lab import debian13
from lab.server import REPOSITORY, LabError

DIRECTORY = REPOSITORY / "build" / "deb"
SUITES = {"12": "bookworm", "13": "trixie"}
# For building, besides what debian/control says.
_TO_BUILD = (
    "build-essential",
    "debhelper",
    "dh-python",
    "gnupg",
    "lintian",
    "python3-dnspython",
    "python3-gnupg",
    "python3-prometheus-client",
    "python3-rich",
    "python3-typing-extensions",
)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Everything that runs in there ends with it, Dovecot too, and so do the mounts.
_ENTER = """\
set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
mount -t sysfs -o ro sysfs "$2/root/sys"
mount -t tmpfs -o mode=1777 shm "$2/root/dev/shm"
exec chroot "$2/root" sh -ec "$3"
"""


class Tree(NamedTuple):
    """A tree that is one's own until the block ends: what changes is in `scratch`, over what is in `base`."""

    base: Path
    scratch: Path

    @property
    def written(self) -> Path:
        """What was written there, as a tree of its own."""
        return self.scratch / "upper"

    def run(self, script: str, environment: Mapping[str, str] | None = None) -> None:
        """Run that shell script in the tree, as root. Raises CalledProcessError."""
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "enter"]
        variables = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        variables |= environment or {}
        subprocess.run([*enter, str(self.base), str(self.scratch), script], env=variables, check=True)


@contextmanager
def tree(release: str, *, builds: bool = False) -> Iterator[Tree]:
    """A clean tree of that release, bare or with what it takes to build."""
    base = _base(release, builds)
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=DIRECTORY))
    scratch.chmod(0o755)
    for name in ("upper", "work", "root"):
        (scratch / name).mkdir()
        (scratch / name).chmod(0o755)
    try:
        yield Tree(base, scratch)
    finally:
        shutil.rmtree(scratch)


def _base(release: str, builds: bool) -> Path:
    """The tree below, made unless it is there: it takes its name only when it is complete."""
    if os.getuid() != 0:
        raise LabError("only root can build and enter trees of Debian: run this as root")
    bare, full = DIRECTORY / f"debian{release}", DIRECTORY / f"debian{release}-build"
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (DIRECTORY / f"debian{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not bare.exists():
            _make(bare, lambda tree: _debootstrap(SUITES[release], tree))
        if builds and not full.exists():
            _make(full, lambda tree: _add(bare, tree))
    return full if builds else bare


def _make(tree: Path, fill: Callable[[Path], None]) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=DIRECTORY))
    unfinished.chmod(0o755)
    try:
        fill(unfinished)
        unfinished.rename(tree)
    except BaseException:
        shutil.rmtree(unfinished)
        raise


def _debootstrap(suite: str, tree: Path) -> None:
    mirror = debian13.mirror()
    security = f"{mirror.rstrip('/').removesuffix('/debian')}/debian-security"
    # What it mounts goes with the namespace.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", "--include=ca-certificates"]
    subprocess.run([*command, suite, str(tree), mirror], check=True, stdout=subprocess.DEVNULL)
    (tree / "etc/apt/sources.list").write_text(f"deb {mirror} {suite} main\ndeb {security} {suite}-security main\n")
    (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")  # nothing is started but on purpose
    (tree / "usr/sbin/policy-rc.d").chmod(0o755)
    subprocess.run(["chroot", str(tree), "apt-get", "--quiet", "--quiet", "update"], check=True)


def _add(bare: Path, tree: Path) -> None:
    """Fill `tree` with what is in `bare`, and with what it takes to build."""
    subprocess.run(["cp", "--archive", f"{bare}/.", tree], check=True)
    install = ["apt-get", "--quiet", "--quiet", "--yes", "--no-install-recommends", "install", *_TO_BUILD]
    command = ["chroot", str(tree), "env", "DEBIAN_FRONTEND=noninteractive", *install]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
