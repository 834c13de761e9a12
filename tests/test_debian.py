"""The Debian package, as far as that shows without building it; `make deb` and `make deb-test` do the rest."""

import configparser
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import sieve_filter
from release import completion, contents

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = ROOT / "debian"
RELEASES = ("12", "13")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
# What is needed, with the least version and the first that is too new.
NEEDED = re.findall(
    r"^([\w.-]+) >= ([\d.]+)(?:, < ([\d.]+))?$",
    "\n".join(
        [
            SETUP["options"]["install_requires"],
            *(SETUP["options.extras_require"][name] for name in ("armor", "sequoia")),
        ]
    ),
    re.MULTILINE,
)
IN_DEBIAN = {"python-gnupg": "python3-gnupg"}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.parametrize("script", ["configure", "postinst", "postrm", "prerm"])
def test_what_dpkg_runs_is_a_shell_s_and_ends_at_the_first_error(script: str) -> None:
    text = (DEBIAN / script).read_text()
    subprocess.run(["sh", "-n", DEBIAN / script], check=True)
    assert text.startswith("#!/bin/sh\n")
    assert re.search("^set -eu?$", text, re.MULTILINE)
    assert script == "configure" or "#DEBHELPER#" in text


def test_the_package_has_the_program_s_version() -> None:
    [first, *_] = (DEBIAN / "changelog").read_text().splitlines()
    assert first == f"cryptomail ({sieve_filter.__version__}) unstable; urgency=medium"


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_has_all_that_is_needed_from_debian_or_carries_it(release: str) -> None:
    depends = dict(re.findall(r"(\S+) \(>= ([\d.]+)\)", (DEBIAN / release / "depends").read_text()))
    carried = contents.pins((DEBIAN / release / "wheels.txt").read_text())
    assert len(NEEDED) > 6
    for name, least, too_new in NEEDED:
        package = IN_DEBIAN.get(name, f"python3-{name}")
        version = carried[name][0] if name in carried else depends[package]
        assert numbers(version) >= numbers(least), name
        assert not too_new or numbers(version) < numbers(too_new), name
    assert set(carried) <= {name for name, *_ in NEEDED}


@pytest.mark.parametrize("release", RELEASES)
def test_the_licence_of_all_that_is_carried_is_told(release: str) -> None:
    told = re.findall(r"debian/carried/(\S+?)\*", (DEBIAN / "copyright").read_text())
    for name in contents.pins((DEBIAN / release / "wheels.txt").read_text()):
        assert name.replace("-", "_").startswith(tuple(told)), name


def test_the_list_of_contents_names_what_is_carried_with_its_licence(tmp_path: Path) -> None:
    metadata = tmp_path / "some_library-1.2.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: some-library\nVersion: 1.2\nLicense-Expression: Zlib\n\nText\n")
    wheels = contents.pins(
        f"# note\nsome-library==1.2 \\\n    --hash=sha256:{'a' * 64} \\\n    --hash=sha256:{'b' * 64}\n"
    )
    listed = json.loads(contents.listing("0.1.0+deb12", wheels, tmp_path))
    assert listed["metadata"]["component"]["version"] == "0.1.0+deb12"
    [library] = listed["components"]
    assert (library["name"], library["version"], library["purl"]) == (
        "some-library",
        "1.2",
        "pkg:pypi/some-library@1.2",
    )
    assert library["licenses"] == [{"expression": "Zlib"}]
    assert [one["value"][:1] for one in library["properties"]] == ["a", "b"]


def test_the_package_has_the_programs_that_make_install_has_and_nothing_of_the_machine_that_builds_it() -> None:
    arguments = ["DESTDIR=/nonexistent", "DEPENDENCIES=/nonexistent", "PREFIX=/usr", "VERSION=9"]
    made = subprocess.run(["make", "--dry-run", "package-tree", *arguments], cwd=ROOT, check=True, capture_output=True)
    said = made.stdout.decode()
    for program in ("filter-bin/cryptomail", "execute-bin/cryptomail", "imap-bin/cryptomail-enroll", "worker"):
        assert f'/venv-9/{program}"' in said
    for machine in ("mailowner.py /", "render.py 2", "sievec -c", "install.conf"):
        assert machine not in said


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cryptomail ke", ["keys"]),
        ("cryptomail keys im", ["import"]),
        ("cryptomail keys import --u", ["--user"]),
        ("cryptomail filter --k", ["--key"]),
        ("cryptomail keys import --config /etc/host", ["/etc/hostname", "/etc/hosts"]),
    ],
)
def test_bash_completes_commands_options_and_files(line: str, offered: list[str]) -> None:
    words = {
        (): ["filter", "keys", "--help"],
        ("filter",): ["--key"],
        ("keys",): ["import", "list", "--help"],
        ("keys", "import"): ["--user", "--config"],
    }
    typed = line.split(" ")
    script = completion.bash(words, {"--config"}) + (
        f"COMP_WORDS=({' '.join(typed)}) COMP_CWORD={len(typed) - 1}\n"
        '_cryptomail; [ ${#COMPREPLY[@]} = 0 ] || printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert sorted(set(done.stdout.split()) & set(offered)) == offered
    assert done.stderr == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not there")
@pytest.mark.parametrize(("unit", "most"), [("sweep", 2.0), ("saved", 2.0), ("refresh", 3.0)])
def test_units_may_do_little_besides_what_they_are_for(unit: str, most: float, tmp_path: Path) -> None:
    """What renews keys goes out to the network, and starts sendmail, which has to become a member of another group."""
    file = tmp_path / f"cryptomail-{unit}.service"
    file.write_text((ROOT / "dovecot/systemd" / file.name).read_text().replace("@PROGRAM@", "/bin/true"))
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    [exposure] = re.findall(r"Overall exposure level for \S+ ([\d.]+)", said)
    assert float(exposure) <= most
