"""`cryptomail sieve-script`: the script that it writes."""

import base64
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.keys import Owner
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.programs import require
from tests.support.server import ALICE, Command, run
from tests.support.tls import Authority, authority

__all__ = ["authority"]

CONFIG = Path(__file__).parents[2] / "dovecot/sievec/2.3.conf"


def script_for(public: bytes, *options: str) -> "subprocess.CompletedProcess[bytes]":
    return run("sieve-script", "--key", "-", *options, data=public, environment={"PATH": "/usr/bin:/bin"})


def arguments(script: bytes) -> list[str]:
    """Those of the filter, in their order."""
    filters = re.findall(rb'filter "cryptomail" \[(.*?)\]', script, re.DOTALL)
    assert len(filters) == 1
    return re.findall(r'"(.*?)"', filters[0].decode())


def certificate_in(script: bytes) -> bytes:
    found = arguments(script)
    return base64.b64decode("".join(found[found.index("--keydata") + 1 :]), validate=True)


def compile_script(script: bytes, directory: Path) -> None:
    source = directory / "x.sieve"
    source.write_bytes(script)
    done = subprocess.run(
        [require("sievec"), "-c", CONFIG, source, directory / "x.svbin"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "options",
    [(), ("--exclude-lists",), ("--exclude-spam",), ("--exclude-lists", "--exclude-spam", "--header-policy", "shy")],
)
def test_script_compiles_and_its_key_serves(options: tuple[str, ...], alice: Owner, tmp_path: Path) -> None:
    done = script_for(alice.gpg("--armor", "--export", ALICE), *options)
    assert done.returncode == 0, done.stderr
    compile_script(done.stdout, tmp_path)
    assert (b"List-Id" in done.stdout, b"X-Spam-Flag" in done.stdout) == (
        "--exclude-lists" in options,
        "--exclude-spam" in options,
    )
    certificate = tmp_path / "key.pgp"
    certificate.write_bytes(certificate_in(done.stdout))
    command = ["gpg", "--homedir", str(tmp_path), "--batch", "--recipient-file", str(certificate), "--encrypt"]
    encrypted = subprocess.run(command, input=b"hello", capture_output=True, check=True).stdout
    assert alice.gpg("--decrypt", data=encrypted) == b"hello"


def test_filter_takes_the_arguments_that_the_script_has(alice: Owner, tmp_path: Path) -> None:
    script = script_for(alice.public(ALICE)).stdout
    environment = {"USER": ALICE, "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = run("filter", *arguments(script), data=MESSAGE, environment=environment)
    assert done.returncode == 0, done.stderr
    assert decrypt(done.stdout, alice) == MESSAGE


def test_key_has_one_user_id_no_old_subkey_and_no_picture(new_owner: Callable[[], Owner], tmp_path: Path) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    owner.gpg("--quick-add-uid", fingerprint, "Other <other@example.org>")
    owner.gpg("--quick-add-key", fingerprint, "cv25519", "encr", "1d")
    owner.gpg("--quick-add-key", fingerprint, "ed25519", "sign", "never")
    certificate = certificate_in(script_for(owner.public("other@example.org")).stdout)
    shown = owner.gpg("--with-colons", "--show-keys", data=certificate).decode()
    assert shown.count("\nuid:") == 1
    assert f":{fingerprint}:" in shown
    assert [line.split(":")[11] for line in shown.splitlines() if line.startswith("sub:")] == ["e", "e"]
    assert b"gpg" not in certificate  # trust packets are gpg's own


def test_large_rsa_key_fits(new_owner: Callable[[], Owner], tmp_path: Path) -> None:
    owner = new_owner()
    owner.gpg("--quick-gen-key", f"<{ALICE}>", "rsa4096", "cert", "never")
    owner.gpg("--quick-add-key", fingerprint_of(owner), "rsa4096", "encr", "never")
    done = script_for(owner.public(ALICE))
    assert done.returncode == 0
    compile_script(done.stdout, tmp_path)
    assert len(arguments(done.stdout)) == 2 + 3


def test_key_that_nobody_could_use_is_refused_with_the_reason(new_owner: Callable[[], Owner], alice: Owner) -> None:
    revoked = new_owner()
    revoked.revoke(revoked.make_key(ALICE))
    secret = alice.gpg("--export-secret-keys", ALICE)
    for data, line in (
        (revoked.public(ALICE), "was revoked"),
        (secret, "SECRET key"),
        (b"hello", "no OpenPGP certificate"),
        (alice.public(ALICE) * 2, "it has 2 keys: give one"),
    ):
        done = script_for(data)
        assert (done.returncode, done.stdout) == (65, b"")
        assert done.stderr.count(b"\n") == 1
        assert line in done.stderr.decode()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "name your public key"),
        (("--key", "x", "--user", "a"), "--user goes with --upload"),
        (("--key", "x", "--dry-run"), "--dry-run goes with --upload"),
        (("--key", "x", "--upload", "host"), "--upload needs --user"),
        (("--key", "x", "--remove", "--upload", "host", "--user", "a"), "--remove needs no --key"),
        (("--remove", "--upload", "a b", "--user", "a"), "is not HOST or HOST:PORT"),
        (("--remove", "--upload", "host:99999", "--user", "a"), "is not HOST or HOST:PORT"),
    ],
)
def test_wrong_command_line_is_one_line(options: tuple[str, ...], line: str, command: Command) -> None:
    done = command("sieve-script", *options)
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.count(b"\n") == 1
    assert line in done.stderr.decode()


def test_file_that_is_not_there_is_one_line(command: Command) -> None:
    done = command("sieve-script", "--key", "/nonexistent")
    assert done.returncode == 74
    assert b"cannot read /nonexistent" in done.stderr


@pytest.mark.parametrize(
    "greeting",
    [b"", b"hello\r\n", b"\xff\xfe\r\nOK\r\n", b"OK\r\n", b" \r\nOK\r\n", b"{999}\r\nx", b"BYE\r\n", b"NO {1\r\n"],
)
def test_server_that_does_not_speak_managesieve_is_one_line(greeting: bytes, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(greeting)

    thread = threading.Thread(target=serve)
    thread.start()
    password = tmp_path / "password"
    password.write_text("secret\n")
    server = f"127.0.0.1:{listener.getsockname()[1]}"
    done = run("sieve-script", "--remove", "--upload", server, "--user", "a", "--password-file", str(password))
    thread.join()
    listener.close()
    assert done.returncode == 69, done.stderr
    assert done.stderr.startswith(b"cryptomail: the ManageSieve server 127.0.0.1")
    assert done.stderr.count(b"\n") == 1


def test_authority_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    named = ("--user", "a", "--password-file", str(password), "--ca-file", "/nonexistent")
    done = run("sieve-script", "--remove", "--upload", "localhost:1", *named)
    assert done.returncode == 74
    assert b"cannot read /nonexistent" in done.stderr


def test_what_was_said_before_tls_is_never_taken_for_an_answer(authority: Authority, tmp_path: Path) -> None:
    """Somebody on the way adds answers of their own behind the one to STARTTLS, in the same packet."""
    context = authority.server_context("localhost")
    listener = socket.create_server(("127.0.0.1", 0))
    received: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b'"STARTTLS"\r\n"SIEVE" "fileinto"\r\nOK\r\n')
            connection.recv(100)
            connection.sendall(b'OK\r\n"SASL" "PLAIN"\r\nOK\r\nOK\r\n"x" ACTIVE\r\nOK\r\n')
            try:
                with context.wrap_socket(connection, server_side=True) as encrypted:
                    received.append(encrypted.recv(1000))
            except (ssl.SSLError, OSError):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    password = tmp_path / "password"
    password.write_text("secret\n")
    server = f"localhost:{listener.getsockname()[1]}"
    options = ["--remove", "--upload", server, "--user", "a", "--password-file", str(password)]
    done = run("sieve-script", *options, "--ca-file", str(authority.file), environment={"PATH": "/usr/bin:/bin"})
    thread.join()
    listener.close()
    assert done.returncode == 69
    assert received in ([], [b""])
