"""Mail of owners with S/MIME certificates: it is encrypted to exactly these, and comes back byte for byte."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.keys import Owner
from sieve_filter.detection.classify import Kind
from sieve_filter.mail.message import split
from sieve_filter.mail.mime import decode
from tests.support.filtered import CANARY, MESSAGE, MOST_KILOBYTES, STRANGE_MESSAGES, filter_and_measure
from tests.support.server import ALICE, Server, run
from tests.support.workers import running
from tests.support.x509 import Card, Maker, card, ec, maker, openssl

__all__ = ["card", "maker"]

SECRET = b"Subject: s\r\n\r\n" + CANARY + b"\r\n"
KINDS = {
    "RSA 2048": ("-newkey", "rsa:2048"),
    "RSA 4096": ("-newkey", "rsa:4096"),
    "P-256": ec("P-256"),
    "P-384": ec("P-384"),
}


def give(server: Server, *cards: Card) -> None:
    (server.home / ".cryptomail").mkdir(mode=0o700, exist_ok=True)
    (server.home / ".cryptomail/smime.pem").write_bytes(b"".join(one.pem for one in cards))


def stored_by(server: Server, message: bytes = MESSAGE, complaint: bytes = b"") -> bytes:
    done = server.filter(message)
    assert (done.returncode, done.stderr) == (0, complaint)
    return done.stdout


def enveloped(stored: bytes) -> bytes:
    body = decode(split(stored).body, b"base64")
    assert body is not None
    return body


@pytest.mark.parametrize("kind", KINDS)
def test_mail_to_a_certificate_of_each_kind_comes_back_byte_for_byte(server: Server, maker: Maker, kind: str) -> None:
    card = maker.make(*KINDS[kind])
    give(server, card)
    stored = stored_by(server)
    assert b"The text." not in stored
    assert b"\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n" in stored
    assert card.decrypt(stored) == MESSAGE


@pytest.mark.parametrize("name", STRANGE_MESSAGES)
def test_a_strange_message_comes_back_byte_for_byte(server: Server, card: Card, name: str) -> None:
    give(server, card)
    assert card.decrypt(stored_by(server, STRANGE_MESSAGES[name])) == STRANGE_MESSAGES[name]


@pytest.mark.parametrize("settings", ['smime_cipher = "aes-256-gcm"', 'smime_padding = "oaep"'])
@pytest.mark.parametrize("kind", ["RSA 2048", "P-256"])
def test_cipher_and_padding_are_the_administrator_s_choice(
    server: Server, maker: Maker, kind: str, settings: str
) -> None:
    card = maker.make(*KINDS[kind])
    give(server, card)
    server.config.write_text(settings + "\n")
    stored = stored_by(server)
    shown = openssl("asn1parse", "-inform", "DER", data=enveloped(stored))
    assert (b"aes-256-gcm" in shown) == ("gcm" in settings)
    assert (b"smime-type=authEnveloped-data;" in stored) == ("gcm" in settings)
    assert (b"rsaesOaep" in shown) == ("oaep" in settings and kind.startswith("RSA"))
    assert card.decrypt(stored) == MESSAGE


def test_gpgsm_reads_it_too(server: Server, card: Card, tmp_path: Path) -> None:
    give(server, card)
    stored = stored_by(server)
    with TemporaryDirectory(prefix="gpgsm-", dir="/tmp") as home:
        files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
        old = ("-legacy", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1")
        pfx = openssl("pkcs12", "-export", *old, *files, "-passout", "pass:")
        environment = {"GNUPGHOME": home, "PATH": os.environ["PATH"], "HOME": home}
        secret, passphrase = tmp_path / "card.p12", tmp_path / "passphrase"
        secret.write_bytes(pfx)
        passphrase.write_text("\n")
        with passphrase.open() as file:
            options = ["--batch", "--pinentry-mode", "loopback", "--passphrase-fd", "0", "--import", str(secret)]
            subprocess.run(["gpgsm", *options], stdin=file, check=True, env=environment, capture_output=True)
        try:
            done = run("decrypt", data=stored, environment=environment)
            assert (done.returncode, done.stdout) == (0, MESSAGE), done.stderr
        finally:
            subprocess.run(["gpgconf", "--kill", "all"], check=True, env=environment)


def test_it_is_encrypted_to_each_certificate_that_is_good_and_to_no_other(
    server: Server, maker: Maker, card: Card
) -> None:
    another, old, signing = maker.make(*KINDS["P-256"]), maker.make(days=-1), maker.make(usage="digitalSignature")
    give(server, old, card, another, signing)
    stored = stored_by(server)
    assert card.decrypt(stored) == another.decrypt(stored) == MESSAGE
    for one in (old, signing):
        done = run("decrypt", "--smime-key", str(one.key), data=stored, environment={"PATH": "/usr/bin:/bin"})
        assert MESSAGE not in done.stdout
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("policy", "shown"), [("no_confidentiality", b"hello"), ("baseline", b"[...]")])
def test_header_fields_are_hidden_as_in_openpgp(server: Server, card: Card, policy: str, shown: bytes) -> None:
    give(server, card)
    server.config.write_text(f'header_policy = "{policy}"\n')
    stored = stored_by(server)
    assert b"\r\nSubject: " + shown + b"\r\n" in b"\r\n" + stored
    inside = openssl("cms", "-decrypt", "-binary", "-inform", "DER", "-inkey", str(card.key), data=enveloped(stored))
    assert b'Content-Type: text/plain; hp="cipher"' in inside
    assert b"HP-Outer: Subject: " + shown + b"\r\n" in inside
    assert b"\r\nSubject: hello\r\n" in inside
    assert card.decrypt(stored) == MESSAGE


def test_it_is_not_encrypted_twice(server: Server, card: Card) -> None:
    give(server, card)
    stored = stored_by(server)
    assert stored_by(server, stored) == stored
    done = run("inspect", "-", data=stored)
    assert Kind.SMIME_ENVELOPED.value.encode() in done.stdout


def test_an_owner_with_both_gets_openpgp_unless_the_administrator_prefers_smime(
    enrolled: Server, card: Card, alice: Owner
) -> None:
    give(enrolled, card)
    assert b"multipart/encrypted" in stored_by(enrolled)
    enrolled.config.write_text('[keyrings]\nprefer = "smime"\n')
    assert card.decrypt(stored_by(enrolled)) == MESSAGE


def test_expired_certificates_are_treated_as_expired_keys(server: Server, maker: Maker) -> None:
    old = maker.make(days=-1)
    give(server, old)
    done = server.filter(MESSAGE)
    assert done.returncode == 0
    assert b"encrypted to a key that expired on" in done.stderr
    assert old.decrypt(done.stdout) == MESSAGE
    server.config.write_text('[on]\nexpired_key = "refuse"\n')
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    server.config.write_text('[on]\nexpired_key = "store-plain"\n')
    assert server.filter(MESSAGE).stdout == MESSAGE


@pytest.mark.parametrize("kind", ["for signatures", "weak"])
def test_mail_waits_where_no_certificate_may_be_encrypted_to(server: Server, maker: Maker, kind: str) -> None:
    give(server, maker.make(usage="digitalSignature") if kind != "weak" else maker.make("-newkey", "rsa:1024"))
    done = server.filter(SECRET)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.count(b"\n") == 1


DAMAGED = {
    "empty": b"",
    "text": b"Hi!\n",
    "one of two cut": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
    "a secret key": b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_mail_waits_while_the_file_is_damaged(server: Server, card: Card, kind: str) -> None:
    give(server, card)
    whole = DAMAGED[kind] + (card.pem if DAMAGED[kind].startswith(b"---") else b"")
    (server.home / ".cryptomail/smime.pem").write_bytes(whole)
    done = server.filter(SECRET)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.count(b"\n") == 1
    assert CANARY not in done.stderr


def test_a_pipe_in_the_place_of_the_file_holds_nobody_up(server: Server) -> None:
    (server.home / ".cryptomail").mkdir(mode=0o700)
    os.mkfifo(server.home / ".cryptomail/smime.pem")
    done = server.filter(SECRET)
    assert (done.returncode, done.stdout) == (75, b"")


# What an openssl does that is none, and what the owner's mail must not become then. $1 is the other's certificate.
FAULTS = {
    "is killed": "kill -9 $$",
    "fails": "exit 1",
    "fails after half of it": '/usr/bin/openssl "$@" | head -c 400; exit 1',
    "ends well with half of it": '/usr/bin/openssl "$@" | head -c 400',
    "writes nothing": "cat > /dev/null",
    "writes nothing, and does not read": "exit 0",
    "writes garbage": "cat > /dev/null; head -c 5000 /dev/urandom",
    "gives back the message": "cat",
    "writes the message behind": '/usr/bin/openssl "$@"; echo CLEAR',
    "encrypts the beginning": 'head -c 100 | /usr/bin/openssl "$@"',
    "encrypts the beginning, and reads all": 'head -c 100 | /usr/bin/openssl "$@"; cat > /dev/null',
    "encrypts something else": 'cat > /dev/null; echo x | /usr/bin/openssl "$@"',
    "encrypts to another": "exec ENCRYPT -aes-256-cbc -recip OTHER",
    "encrypts to another too": 'exec /usr/bin/openssl "$@" -recip OTHER',
    "takes a weaker cipher": 'exec ENCRYPT -aes128 -recip "$9"',
    "takes the other cipher": 'exec ENCRYPT -aes-256-gcm -recip "$9"',
    "signs": "exec /usr/bin/openssl cms -sign -nodetach -binary -stream -outform DER -signer OTHER -inkey KEY",
}


@pytest.fixture
def programs() -> Iterator[Path]:
    with TemporaryDirectory(prefix="programs-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_stored_on_openssl_s_word(
    server: Server, card: Card, maker: Maker, programs: Path, fault: str
) -> None:
    give(server, card)
    other = maker.make(*KINDS["P-256"])
    script = FAULTS[fault].replace("ENCRYPT", "/usr/bin/openssl cms -encrypt -binary -stream -outform DER")
    script = script.replace("OTHER", str(other.directory / "cert.pem")).replace("KEY", str(other.key))
    (programs / "openssl").write_text(f"#!/bin/sh\n{script}\n")
    (programs / "openssl").chmod(0o755)
    for message in (SECRET, SECRET + b"0123456789abcde\n" * 200_000):
        done = server.filter(message, environment={"PATH": f"{programs}:/usr/bin:/bin", "TMPDIR": str(programs)})
        assert (done.returncode, done.stdout) == (75, b"")
        assert done.stderr.count(b"\n") == 1
        assert CANARY not in done.stderr
        assert [file.name for file in programs.iterdir()] == ["openssl"]


def test_mail_waits_where_there_is_no_openssl(server: Server, card: Card, programs: Path) -> None:
    give(server, card)
    done = server.filter(SECRET, environment={"PATH": str(programs)})
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"cannot run openssl: " in done.stderr


def test_mail_waits_where_the_certificates_are_gone(server: Server, card: Card) -> None:
    enrolled = f"{server.home}/enrolled"
    Path(enrolled, str(os.geteuid())).mkdir(parents=True, mode=0o700)
    called = f"main({str(server.config)!r}, register={enrolled!r})"
    code = f"import sys; from sieve_filter.cli.main import main; sys.exit({called})"
    command = [sys.executable, "-c", code, "filter"]

    def filtered() -> "subprocess.CompletedProcess[bytes]":
        environment = {"USER": ALICE, "HOME": str(server.home), "PATH": os.environ["PATH"]}
        return subprocess.run(command, input=SECRET, capture_output=True, env=environment)

    give(server, card)
    assert card.decrypt(filtered().stdout) == SECRET
    (server.home / ".cryptomail/smime.pem").unlink()
    assert (filtered().returncode, filtered().stdout) == (75, b"")


def test_a_large_message_is_encrypted_in_little_memory(server: Server, card: Card, tmp_path: Path) -> None:
    give(server, card)
    megabytes = 100 if os.environ.get("CRYPTOMAIL_SMIME_LONG") else 10
    large = b"Subject: s\r\n\r\n" + b"0123456789abcdef" * 65_536 * megabytes
    code, stored, complaint, kilobytes = filter_and_measure(server, large, tmp_path)
    assert (code, complaint) == (0, "")
    assert kilobytes < MOST_KILOBYTES
    assert card.decrypt(stored) == large
    assert stored_by(server, stored) == stored  # it counts as encrypted


def test_a_worker_does_it_too_and_sees_a_new_file_at_once(
    server: Server, card: Card, maker: Maker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    give(server, card)
    with running(server, tmp_path_factory.mktemp("worker"), processes=1) as worker:
        assert card.decrypt(worker.filter(MESSAGE).removesuffix(b"+\n")) == MESSAGE
        another = maker.make(*KINDS["P-256"])
        give(server, another)
        assert another.decrypt(worker.filter(MESSAGE).removesuffix(b"+\n")) == MESSAGE
