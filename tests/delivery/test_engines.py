"""GnuPG and Sequoia do the same job: what either encrypts, every reader opens, whatever kind of key it is for."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import gnupg
import pytest
from pysequoia import Profile, Tsk

import sieve_filter
from lab import debian13, keys
from lab.keys import Owner
from sieve_filter.mail import protection
from sieve_filter.openpgp import encrypted as packets
from sieve_filter.openpgp.armor import dearmor
from tests.support.filtered import MESSAGE, STRANGE_MESSAGES, armor_in, decrypt, fingerprint_of, install_gpg
from tests.support.programs import require
from tests.support.server import ALICE, Server
from tests.support.workers import Worker, running

ENGINES = {
    "gnupg": 'engine = "gnupg"\n',
    "gnupg-zlib": 'engine = "gnupg"\ncompression = "zlib"\n',
    "sequoia": 'engine = "sequoia"\n',
}
# What `gpg --quick-add-key` calls them.
ALGORITHMS = {
    "RSA 2048": "rsa2048",
    "RSA 3072": "rsa3072",
    "RSA 4096": "rsa4096",
    "Curve25519": "cv25519",
    "NIST P-256": "nistp256",
    "NIST P-384": "nistp384",
    "NIST P-521": "nistp521",
    "Brainpool P-256": "brainpoolP256r1",
    "Brainpool P-384": "brainpoolP384r1",
    "Brainpool P-512": "brainpoolP512r1",
}
# Keys whose owners' programs would like newer packets than all mail clients open: made by
# `gpg --compliance gnupg --faked-system-time 20240101T000000! --quick-gen-key`, of 2.4.7; and by Sequoia 2.
MODERN = ["GnuPG 2.4", "Sequoia 2"]
KINDS = [*ALGORITHMS, *MODERN]
READERS = ["gpg", "gpg 2.4", "sq", "rnp"]
# Debian 12's sq knows no Brainpool curves.
CANNOT_READ = {("sq", kind) for kind in ALGORITHMS if "Brainpool" in kind}


class Keys(NamedTuple):
    """One owner with a key of each kind; `homes` have the public one each, `files` the secret one."""

    owner: Owner
    homes: dict[str, Path]
    files: dict[str, Path]


def make(owner: Owner, kind: str) -> str:
    """A key of that kind. Returns its fingerprint."""
    before = fingerprints(owner)
    if kind == "GnuPG 2.4":
        file = Path(__file__).parents[1] / "support" / "keys" / "gnupg-2.4-aead.asc"
        owner.gpg("--import", data=file.read_bytes())
    elif kind == "Sequoia 2":
        owner.gpg("--import", data=bytes(Tsk.generate("<sequoia@example.org>", profile=Profile.RFC4880)))
    else:
        owner.gpg("--quick-gen-key", f"<{ALGORITHMS[kind]}@example.org>", "ed25519", "cert", "never")
        (made,) = fingerprints(owner) - before
        owner.gpg("--quick-add-key", made, ALGORITHMS[kind], "encr", "never")
    (made,) = fingerprints(owner) - before
    return made


def fingerprints(owner: Owner) -> set[str]:
    lines = owner.gpg("--with-colons", "--list-keys").decode().splitlines()
    return {line.split(":")[9] for before, line in zip(["", *lines], lines, strict=False) if before.startswith("pub:")}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    directory = tmp_path_factory.mktemp("keys")
    with keys.owner() as owner:
        homes = {kind: directory / kind for kind in KINDS}
        files = {kind: directory / f"{kind}.pgp" for kind in KINDS}
        for kind in KINDS:
            fingerprint = make(owner, kind)
            homes[kind].mkdir()
            Server(homes[kind]).give(owner.gpg("--export", fingerprint))
            files[kind].write_bytes(owner.gpg("--export-secret-keys", fingerprint))
        yield Keys(owner, homes, files)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker that can do either, each with a configuration of its own."""
    directory = tmp_path_factory.mktemp("worker")
    for engine, settings in ENGINES.items():
        (directory / f"{engine}.toml").write_text(settings)
    with running(Server(directory), directory, processes=1) as started:
        yield started


def encrypted(worker: Worker, engine: str, home: Path, message: bytes = MESSAGE) -> bytes:
    """What is stored where that engine is set."""
    output = worker.filter(message, "--config", f"{worker.server.home}/{engine}.toml", HOME=str(home))
    assert output.endswith(b"+\n"), worker.log[-1]
    return output[:-2]


@pytest.fixture(scope="module")
def debian13_home(made: Keys) -> Iterator[Path]:
    """A GnuPG home in a tree of Debian 13, for its gpg 2.4, with all the secret keys."""
    debian13.build()
    home = Path(tempfile.mkdtemp(dir=debian13.TREE / "tmp"))
    try:
        for file in made.files.values():
            gpg_of_debian13(home, "--import", data=file.read_bytes())
        yield home
    finally:
        command = ["chroot", str(debian13.TREE), "gpgconf", "--homedir", f"/tmp/{home.name}", "--kill", "all"]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


def gpg_of_debian13(home: Path, *arguments: str, data: bytes) -> bytes:
    command = ["chroot", str(debian13.TREE), "gpg", "--homedir", f"/tmp/{home.name}", "--batch", *arguments]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def program(name: str, *arguments: str, data: bytes = b"") -> bytes:
    """What a program prints that is a Debian package of the same name."""
    return subprocess.run([require(name), *arguments], input=data, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def read(
    made: Keys, debian13_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, bytes], bytes]:
    """Decrypts for a key of some kind, by some program."""
    empty = tmp_path_factory.mktemp("rnp")

    def decrypted(reader: str, kind: str, armored: bytes) -> bytes:
        key = made.files[kind]
        if reader == "gpg":
            return made.owner.gpg("--decrypt", data=armored)
        if reader == "gpg 2.4":
            return gpg_of_debian13(debian13_home, "--decrypt", data=armored)
        if reader == "sq":
            return program("sq", "decrypt", "--recipient-key", str(key), data=armored)
        arguments = ["--homedir", f"{empty}", "--keyfile", f"{key}", "--password", "", "--notty", "--output", "-"]
        return program("rnp", *arguments, "--decrypt", data=armored)

    return decrypted


@pytest.mark.parametrize(("reader", "kind"), [pair for pair in product(READERS, KINDS) if pair not in CANNOT_READ])
@pytest.mark.parametrize("engine", ENGINES)
def test_every_reader_opens_it(
    engine: str, kind: str, reader: str, worker: Worker, made: Keys, read: Callable[[str, str, bytes], bytes]
) -> None:
    stored = encrypted(worker, engine, made.homes[kind])
    armored = armor_in(stored)
    message = packets.encrypted_message(dearmor(armored) or b"")
    assert message is not None
    assert (message.container, message.pkesk_versions) == ("SEIPD v1", (3,))
    assert protection.restore(read(reader, kind, armored)) == MESSAGE


@pytest.mark.parametrize("name", STRANGE_MESSAGES)
@pytest.mark.parametrize("engine", ENGINES)
def test_owner_gets_back_exactly_what_arrived(engine: str, name: str, worker: Worker, made: Keys) -> None:
    stored = encrypted(worker, engine, made.homes["Curve25519"], STRANGE_MESSAGES[name])
    assert protection.restore(made.owner.gpg("--decrypt", data=armor_in(stored))) == STRANGE_MESSAGES[name]


@pytest.mark.parametrize("engine", ENGINES)
def test_filter_that_runs_once_can_do_either(engine: str, enrolled: Server, alice: Owner) -> None:
    enrolled.config.write_text(ENGINES[engine])
    done = enrolled.filter(MESSAGE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert decrypt(done.stdout, alice) == MESSAGE


@pytest.mark.parametrize("engine", ENGINES)
def test_every_usable_key_of_the_owner_can_read(
    engine: str, worker: Worker, enrolled: Server, alice: Owner, mallory: Owner, made: Keys
) -> None:
    enrolled.give(mallory.public("m" + ALICE))
    enrolled.give(made.owner.public("rsa2048@example.org"))
    stored = encrypted(worker, engine, enrolled.home)
    for owner in (alice, mallory, made.owner):
        assert decrypt(stored, owner) == MESSAGE


def test_only_the_newest_encryption_subkey_is_used_by_either(worker: Worker, new_owner: Callable[[], Owner]) -> None:
    owner = new_owner()
    owner.make_key(ALICE, made_at="20240101T000000!")
    owner.gpg("--faked-system-time", "20240201T000000!", "--quick-add-key", fingerprint_of(owner), "cv25519", "encr")
    with tempfile.TemporaryDirectory() as directory:
        Server(Path(directory)).give(owner.public(ALICE))
        stored = [encrypted(worker, engine, Path(directory)) for engine in ("gnupg", "sequoia")]
    recipients = [packets.encrypted_payload(armor_in(one)) for one in stored]
    newest = [
        line.split(":")[4] for line in owner.gpg("--with-colons", "--list-keys").decode().splitlines() if "sub:" in line
    ]
    for message in recipients:
        assert message is not None
        assert message.key_ids == (newest[-1],)


def test_sequoia_starts_no_gpg_to_encrypt(
    enrolled: Server, tmp_path: Path, alice: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{install_gpg(tmp_path, 'exit 2')}:{os.environ['PATH']}")
    for settings in ("", ENGINES["sequoia"]):
        enrolled.config.write_text(settings)
        with running(enrolled, tmp_path, processes=1) as worker:
            output = worker.filter(MESSAGE)
            assert output.endswith(b"+\n"), "a worker takes Sequoia by itself, too"
    enrolled.config.write_text(ENGINES["gnupg"])
    with running(enrolled, tmp_path, processes=1) as worker:
        assert worker.filter(MESSAGE) == b"-\n"
    monkeypatch.undo()
    assert decrypt(output[:-2], alice) == MESSAGE


def old_key(owner: Owner) -> None:
    """One whose signatures are by SHA-1, which Sequoia does not believe any more."""
    old = ["--faked-system-time", "20100101T000000!", "--cert-digest-algo", "SHA1"]
    owner.gpg(*old, "--quick-gen-key", f"<{ALICE}>", "rsa2048", "cert,sign,encrypt", "never")


def elgamal_key(owner: Owner) -> None:
    owner.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "cert", "never")
    owner.gpg("--quick-add-key", fingerprint_of(owner), "elg1024", "encr", "never")


@pytest.mark.parametrize("make_key", [old_key, elgamal_key])
def test_gnupg_helps_out_where_sequoia_cannot_use_a_key_and_one_warning_says_so(
    make_key: Callable[[Owner], None], server: Server, tmp_path: Path, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    make_key(owner)
    server.give(owner.public(ALICE))
    server.config.write_text(ENGINES["sequoia"] + "[keyrings]\nminimum_bits = 1024\n")
    with running(server, tmp_path, processes=1) as worker:
        for _ in range(3):
            assert decrypt(worker.filter(MESSAGE)[:-2], owner) == MESSAGE
        warnings = [line for line in worker.log if "warning" in line]
    assert len(set(warnings)) == 1  # each process says it once, and there is another where one is still busy
    assert "GnuPG does it" in warnings[0]
    assert warnings[0].isprintable()
    done = server.filter(MESSAGE)
    assert done.returncode == 0
    assert decrypt(done.stdout, owner) == MESSAGE
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_limits_are_told_as_what_they_are(engine: str, server: Server, tmp_path: Path, alice: Owner) -> None:
    server.give(alice.public(ALICE))
    server.config.write_text(ENGINES[engine] + "size_limit = 1000\n")
    with running(server, tmp_path, processes=1) as worker:
        assert worker.filter(MESSAGE * 100) == b"-\n"
        assert "it has more octets than size_limit, 1000" in worker.log[-1]


def without_sequoia(
    directory: Path, config: Path, *, message: bytes, home: Path
) -> "subprocess.CompletedProcess[bytes]":
    """Run the filter in an interpreter that has what it needs, and no Sequoia."""
    (directory / "sieve_filter").symlink_to(Path(sieve_filter.__file__).parent)
    (directory / "gnupg.py").symlink_to(gnupg.__file__)
    code = f"import sys; sys.path.insert(0, {str(directory)!r}); from sieve_filter.cli.main import main; "
    command = [str(Path(sys.executable).resolve()), "-I", "-c", code + f"sys.exit(main({str(config)!r}))", "filter"]
    environment = {"USER": ALICE, "HOME": str(home), "PATH": os.environ["PATH"]}
    return subprocess.run(command, input=message, capture_output=True, env=environment)


def test_sequoia_that_is_not_installed_is_a_configuration_error(enrolled: Server, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    enrolled.config.write_text(ENGINES["sequoia"])
    done = without_sequoia(tmp_path / "site", enrolled.config, message=MESSAGE, home=enrolled.home)
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"not installed" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_gnupg_does_it_where_sequoia_is_not_installed(enrolled: Server, tmp_path: Path, alice: Owner) -> None:
    (tmp_path / "site").mkdir()
    enrolled.config.write_text('engine = "auto"\n')
    done = without_sequoia(tmp_path / "site", enrolled.config, message=MESSAGE, home=enrolled.home)
    assert (done.returncode, done.stderr) == (0, b"")
    assert decrypt(done.stdout, alice) == MESSAGE
