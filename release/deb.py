"""Builds the Debian packages in clean trees, twice, and compares them; has lintian look at them.

    python -m release.deb 12 13

The packages come into build/deb/out, with their SHA256SUMS. DEBEMAIL is the address of who publishes them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from lab.server import REPOSITORY
from release import completion, contents, trees

OUT = trees.DIRECTORY / "out"
# What differs from one builder to the next.
_BUILDERS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("/build/cryptomail", {"TZ": "UTC"}),
    ("/srv/somewhere/else/cryptomail", {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "HOME": "/nonexistent"}),
)
_BUILD = """\
umask {umask}
cd {place}
dpkg-buildpackage --build=binary --no-sign --jobs=1 > ../build.log 2>&1 || { tail -n 60 ../build.log; exit 1; }
"""
_LINTIAN = """\
cd {place}/..
lintian --allow-root --fail-on error,warning --display-info --tag-display-limit 0 {options} *.changes
"""


# The address of who publishes the packages is theirs to give.
_OF_NOBODY = "bogus-mail-host,bogus-mail-host-in-debian-changelog"


def version(release: str, later: str = "") -> str:
    """Of the package for that release; `later` makes it a later one."""
    [ours] = re.findall(r"^cryptomail \((\S+)\)", (REPOSITORY / "debian/changelog").read_text().splitlines()[0])
    return f"{ours}+deb{release}{later}"


def build(release: str, out: Path, builder: int = 0, later: str = "", lint: bool = False) -> Path:
    """Build the package in a clean tree, and put what comes out into `out`. Returns the package."""
    place, environment = _BUILDERS[builder]
    with trees.tree(release, builds=True) as tree:
        source = tree.written / place.lstrip("/")
        _export(source)
        _adapt(source, release, version(release, later))
        tree.run(_BUILD.replace("{place}", place).replace("{umask}", "022" if builder == 0 else "002"), environment)
        if lint:
            options = "" if "DEBEMAIL" in os.environ else f"--suppress-tags {_OF_NOBODY}"
            tree.run(_LINTIAN.replace("{place}", place).replace("{options}", options))
        out.mkdir(parents=True, exist_ok=True)
        [made] = source.parent.glob("cryptomail_*.deb")
        return Path(shutil.copy(made, out))


def _export(directory: Path) -> None:
    """What is committed, and nothing else."""
    directory.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)


def _adapt(source: Path, release: str, number: str) -> None:
    """The package of one release: its number, what it carries, and the list of that."""
    changelog = source / "debian/changelog"
    rest = changelog.read_text().partition("\n")[2]
    changelog.write_text(f"cryptomail ({number}) {trees.SUITES[release]}; urgency=medium\n{rest}")
    if address := os.environ.get("DEBEMAIL"):
        for file in (changelog, source / "debian/control"):
            file.write_text(file.read_text().replace("cryptomail@localhost", address))
    carried = source / "debian/carried"
    wheels = source / "debian" / release / "wheels.txt"
    fetch(release, wheels, carried)
    listed = contents.listing(number, contents.pins(wheels.read_text()), carried)
    (source / "debian/contents.cdx.json").write_text(listed)
    completion.write(source, source / "debian/completion")


def fetch(release: str, wheels: Path, directory: Path) -> None:
    """Unpack the wheels that are pinned, after a look at their hashes."""
    python = {"12": "3.11", "13": "3.13"}[release]
    platforms = [f"--platform=manylinux_2_{glibc}_{os.uname().machine}" for glibc in (17, 28, 34)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary", ":all:", f"--python-version={python}", *platforms]
    subprocess.run([*command, "--target", str(directory), "--requirement", str(wheels)], check=True)


def main(releases: list[str]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for release in releases:
        package = build(release, OUT, lint=True)
        with tempfile.TemporaryDirectory(dir=trees.DIRECTORY) as again:
            second = build(release, Path(again), builder=1)
            if package.read_bytes() != second.read_bytes():
                kept = shutil.copy(second, OUT / f"{second.name}.second")
                sys.exit(f"make deb: {package} was built twice, and is not the same: {kept}")
        print(f"{package}: built twice, the same octets; lintian finds no error and has no warning")
    packages = sorted(OUT.glob("cryptomail_*.deb"))
    sums = "".join(f"{sha256(one.read_bytes()).hexdigest()}  {one.name}\n" for one in packages)
    (OUT / "SHA256SUMS").write_text(sums)


if __name__ == "__main__":
    main(sys.argv[1:] or list(trees.SUITES))
