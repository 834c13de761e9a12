"""`cryptomail filter`: what a Sieve script, procmail or a shell gets from it."""

import base64
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import keys
from lab.keys import Owner
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.mail.message import split
from sieve_filter.openpgp import encrypted as packets
from sieve_filter.openpgp.armor import dearmor
from tests.support.filtered import (
    CANARY,
    MESSAGE,
    STRANGE_MESSAGES,
    decrypt,
    fingerprint_of,
    install_gpg,
    make_rotating,
)
from tests.support.server import ALICE, Server

ARMOR = re.compile(rb"-----BEGIN.*-----END PGP MESSAGE-----", re.DOTALL)


@pytest.mark.parametrize("name", STRANGE_MESSAGES)
@pytest.mark.parametrize("policy", POLICIES)
def test_owner_gets_back_exactly_what_arrived(name: str, policy: str, enrolled: Server, alice: Owner) -> None:
    message = STRANGE_MESSAGES[name]
    done = enrolled.filter(message, "--header-policy", policy)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Content-Type: multipart/encrypted" in done.stdout
    assert decrypt(done.stdout, alice) == message


def test_ciphertext_is_of_the_kind_that_every_client_opens(enrolled: Server) -> None:
    stored = enrolled.filter(MESSAGE).stdout
    armored = stored[stored.index(b"-----BEGIN") : stored.index(b"-----END") + 25]
    encrypted = packets.encrypted_message(dearmor(armored) or b"")
    assert encrypted is not None
    assert (encrypted.container, encrypted.pkesk_versions) == ("SEIPD v1", (3,))


def test_message_is_unchanged_where_the_owner_has_no_key(server: Server) -> None:
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout, done.stderr) == (0, MESSAGE, b"")


def test_empty_keyring_is_no_key(server: Server) -> None:
    (server.home / ".cryptomail").mkdir()
    assert server.filter(MESSAGE).stdout == MESSAGE


def test_message_is_unchanged_where_it_is_encrypted_already(enrolled: Server) -> None:
    once = enrolled.filter(MESSAGE).stdout
    done = enrolled.filter(once)
    assert (done.returncode, done.stdout) == (0, once)


def test_missing_key_is_a_failure_with_require(server: Server) -> None:
    done = server.filter(MESSAGE, "--require")
    assert (done.returncode, done.stdout) == (75, b"")
    assert ALICE.encode() in done.stderr


def test_every_usable_key_of_the_owner_can_read(enrolled: Server, alice: Owner, mallory: Owner) -> None:
    enrolled.give(mallory.public("m" + ALICE))
    stored = enrolled.filter(MESSAGE).stdout
    assert decrypt(stored, alice) == decrypt(stored, mallory) == MESSAGE


def test_key_of_an_address_that_ends_like_the_owners_is_never_chosen(server: Server, mallory: Owner) -> None:
    server.give(mallory.public("m" + ALICE), ".gnupg")
    assert server.filter(MESSAGE).stdout == MESSAGE
    done = server.filter(MESSAGE, "--key", ALICE)
    assert (done.returncode, done.stdout) == (75, b"")


def test_key_is_found_by_exact_address_in_the_shared_keyring(server: Server, alice: Owner, mallory: Owner) -> None:
    server.give(mallory.public("m" + ALICE), ".gnupg")
    server.give(alice.public(ALICE), ".gnupg")
    stored = server.filter(MESSAGE).stdout
    assert decrypt(stored, alice) == MESSAGE
    assert stored.count(b"BEGIN PGP MESSAGE") == 1


def test_recipient_without_its_detail_counts_where_it_is_the_user(server: Server, alice: Owner) -> None:
    server.give(alice.public(ALICE), ".gnupg")
    mine = {"USER": "alice", "RECIPIENT": "Alice+lists@example.org"}
    assert decrypt(server.filter(MESSAGE, environment=mine).stdout, alice) == MESSAGE
    not_mine = {"USER": "bob", "RECIPIENT": ALICE}
    assert server.filter(MESSAGE, environment=not_mine).stdout == MESSAGE


def test_address_of_an_alias_counts(server: Server, alice: Owner) -> None:
    server.give(alice.public(ALICE), ".gnupg")
    server.config.write_text(f'[aliases]\nbob = ["{ALICE}"]\n')
    assert decrypt(server.filter(MESSAGE, environment={"USER": "bob"}).stdout, alice) == MESSAGE


@pytest.mark.parametrize("form", ["{}", "0x{}", "{} ", "lower", "address"])
def test_named_key_is_the_only_one_used(form: str, enrolled: Server, alice: Owner, mallory: Owner) -> None:
    enrolled.give(mallory.public("m" + ALICE), ".gnupg")
    fingerprint = fingerprint_of(mallory)
    named = {"lower": fingerprint.lower(), "address": "M" + ALICE}.get(form, form.format(fingerprint))
    stored = enrolled.filter(MESSAGE, "--key", named).stdout
    assert decrypt(stored, mallory) == MESSAGE
    with pytest.raises(AssertionError, match="gpg could not decrypt"):
        decrypt(stored, alice)


def test_named_keys_may_lie_in_different_keyrings(enrolled: Server, alice: Owner, mallory: Owner) -> None:
    enrolled.give(mallory.public("m" + ALICE), ".gnupg")
    stored = enrolled.filter(MESSAGE, "--key", ALICE, "--key", "m" + ALICE).stdout
    assert decrypt(stored, alice) == decrypt(stored, mallory) == MESSAGE


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--key", "DEADBEEF"], b"neither a full fingerprint"),
        (["--key", "example.org"], b"neither a full fingerprint"),
        (["--key"], b"expected one argument"),
        (["--header-policy", "loud"], b"invalid choice"),
        (["--require=yes"], b"ignored explicit argument"),
        (["--req"], b"unrecognized arguments"),
        (["--frobnicate"], b"unrecognized arguments"),
        (["file.eml"], b"unrecognized arguments"),
    ],
)
def test_wrong_options_get_one_clear_line(options: list[str], complaint: bytes, enrolled: Server) -> None:
    done = enrolled.filter(MESSAGE, *options)
    assert (done.returncode, done.stdout) == (64, b"")
    assert complaint in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"USER": ""},
        {"USER": "../bob"},
        {"USER": "alice\nbob"},
        {"USER": "a" * 1_000},
        {"HOME": ""},
        {"HOME": "relative"},
        {"HOME": "/home/alice/../bob"},
        {"RECIPIENT": "a" * 100_000},
        {"SENDER": "a\x1bb@example.org"},
    ],
    ids=repr,
)
def test_environment_that_dovecot_could_not_have_set_is_refused(environment: dict[str, str], enrolled: Server) -> None:
    done = enrolled.filter(MESSAGE, environment=environment)
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.count(b"\n") == 1


def test_options_override_the_environment(enrolled: Server, alice: Owner) -> None:
    wrong = {"USER": "nobody", "HOME": "/nonexistent"}
    stored = enrolled.filter(MESSAGE, "--user", ALICE, "--home", str(enrolled.home), environment=wrong).stdout
    assert decrypt(stored, alice) == MESSAGE


@pytest.fixture(scope="module")
def expired() -> "Iterator[Owner]":
    """Somebody whose key expired years ago."""
    with keys.owner() as owner:
        owner.make_key(ALICE, made_at="20200101T000000!", expires="1y")
        yield owner


@pytest.fixture(scope="module")
def bad_keys(expired: Owner) -> "dict[str, bytes]":
    """Public keys with which something is wrong, by what that is."""
    made = {"expired on 2020-12-31": expired.public(ALICE)}
    with keys.owner() as owner:
        owner.revoke(owner.make_key(ALICE))
        made["was revoked"] = owner.public(ALICE)
    with keys.owner() as owner:
        owner.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never")
        made["cannot encrypt"] = owner.public(ALICE)
    with keys.owner() as owner:
        owner.gpg("--quick-gen-key", f"<{ALICE}>", "ed25519", "sign", "never")
        owner.gpg("--quick-add-key", fingerprint_of(owner), "rsa1024", "encr", "never")
        made["has 1024 bits"] = owner.public(ALICE)
    return made


EXPIRED, REVOKED = "expired on 2020-12-31", "was revoked"
UNUSABLE = [REVOKED, "cannot encrypt", "has 1024 bits"]


@pytest.mark.parametrize("fault", UNUSABLE)
@pytest.mark.parametrize("keyring", [".cryptomail", ".gnupg"])
def test_owner_with_no_usable_key_gets_a_temporary_failure(
    fault: str, keyring: str, server: Server, bad_keys: dict[str, bytes]
) -> None:
    server.give(bad_keys[fault], keyring)
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert fault.encode() in done.stderr
    assert b"<1@example.com>" in done.stderr


@pytest.mark.parametrize("engine", ["gnupg", "sequoia"])
@pytest.mark.parametrize("keyring", [".cryptomail", ".gnupg"])
def test_expired_key_is_encrypted_to_all_the_same_with_a_warning(
    engine: str, keyring: str, server: Server, bad_keys: dict[str, bytes], expired: Owner
) -> None:
    server.config.write_text(f'engine = "{engine}"\n')
    server.give(bad_keys[EXPIRED], keyring)
    done = server.filter(MESSAGE, "--require")
    assert decrypt(done.stdout, expired) == MESSAGE
    assert done.stderr.count(b"\n") == 1
    assert b"expired on 2020-12-31" in done.stderr


def test_mail_waits_where_a_subkey_expired_whose_key_lives_on(server: Server, new_owner: Callable[[], Owner]) -> None:
    """Its owner may have destroyed the secret: nobody could ever read that mail."""
    server.give(make_rotating(new_owner(), "90d"))
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"has no usable encryption subkey: " in done.stderr
    assert b"expired on 2020-04-01" in done.stderr
    server.config.write_text('[on]\nunusable_key = "store-plain"\n')
    assert server.filter(MESSAGE).stdout == MESSAGE


def test_expired_subkey_does_not_serve_beside_a_key_that_expired_as_a_whole(
    server: Server, new_owner: Callable[[], Owner], expired: Owner
) -> None:
    server.give(make_rotating(new_owner(), "3y") + expired.public(ALICE))
    done = server.filter(MESSAGE)
    assert decrypt(done.stdout, expired) == MESSAGE
    armored = done.stdout[done.stdout.index(b"-----BEGIN") : done.stdout.index(b"-----END") + 25]
    encrypted = packets.encrypted_message(dearmor(armored) or b"")
    assert encrypted is not None
    assert len(encrypted.key_ids) == 1


@pytest.mark.parametrize(
    ("fault", "setting", "options", "code", "plain"),
    [
        (EXPIRED, 'expired_key = "refuse"', (), 75, False),
        (EXPIRED, 'expired_key = "store-plain"', (), 0, True),
        (EXPIRED, 'expired_key = "store-plain"', ("--require",), 75, False),
        (EXPIRED, "", ("--on-expired", "refuse"), 75, False),
        (EXPIRED, "", ("--on-expired", "store-plain"), 0, True),
        (EXPIRED, 'unusable_key = "store-plain"\nexpired_key = "refuse"', (), 75, False),
        (REVOKED, 'expired_key = "store-plain"', (), 75, False),
        (REVOKED, 'unusable_key = "store-plain"', (), 0, True),
        (REVOKED, 'unusable_key = "store-plain"', ("--require",), 75, False),
        ("cannot encrypt", 'unusable_key = "store-plain"', (), 0, True),
    ],
)
def test_what_happens_without_a_good_key_can_be_chosen(
    fault: str,
    setting: str,
    options: tuple[str, ...],
    code: int,
    plain: bool,
    server: Server,
    bad_keys: dict[str, bytes],
) -> None:
    server.config.write_text(f"[on]\n{setting}\n")
    server.give(bad_keys[fault])
    done = server.filter(MESSAGE, *options)
    assert (done.returncode, done.stdout) == (code, MESSAGE if plain else b"")
    assert fault.encode() in done.stderr


def test_unusable_key_beside_a_usable_one_does_no_harm(
    enrolled: Server, alice: Owner, bad_keys: dict[str, bytes]
) -> None:
    for public in bad_keys.values():
        enrolled.give(public)
    assert decrypt(enrolled.filter(MESSAGE).stdout, alice) == MESSAGE


def test_disabled_key_is_not_used(enrolled: Server) -> None:
    home = str(enrolled.home / ".cryptomail")
    edit = ["gpg", "--homedir", home, "--batch", "--no-autostart", "--command-fd", "0", "--edit-key", ALICE]
    subprocess.run(edit, input=b"disable\nsave\n", check=True, capture_output=True)
    done = enrolled.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"is disabled" in done.stderr


def test_administrator_may_let_problems_pass(server: Server, bad_keys: dict[str, bytes]) -> None:
    server.config.write_text('size_limit = 100\n[on]\nunusable_key = "store-plain"\ntoo_large = "store-plain"\n')
    server.give(bad_keys["was revoked"])
    assert server.filter(MESSAGE).stdout == MESSAGE
    assert server.filter(MESSAGE * 100).stdout == MESSAGE * 100


def test_administrator_may_refuse_what_has_no_key_and_what_is_too_large(server: Server, alice: Owner) -> None:
    server.config.write_text('size_limit = 100\n[on]\nno_key = "refuse"\n')
    assert server.filter(MESSAGE).returncode == 75
    server.give(alice.public(ALICE))
    done = server.filter(MESSAGE * 100)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"size_limit" in done.stderr


def test_what_a_script_requires_an_administrator_cannot_wave_through(
    server: Server, bad_keys: dict[str, bytes]
) -> None:
    server.config.write_text('[on]\nunusable_key = "store-plain"\nexpired_key = "store-plain"\n')
    server.give(bad_keys["was revoked"])
    assert server.filter(MESSAGE, "--require").returncode == 75


@pytest.mark.parametrize("content", [b"not toml", b"unknown = 1\n", b"\xff", b'header_policy = "loud"\n'])
def test_wrong_configuration_stops_the_filter(content: bytes, enrolled: Server) -> None:
    enrolled.config.write_bytes(content)
    done = enrolled.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (78, b"")
    assert b"config.toml" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_configuration_that_is_named_must_exist(enrolled: Server) -> None:
    assert enrolled.filter(MESSAGE, "--config", "/nonexistent.toml").returncode == 78


def test_corrupt_keyring_is_a_failure_and_not_a_missing_key(enrolled: Server) -> None:
    (enrolled.home / ".cryptomail" / "pubring.kbx").write_bytes(b"garbage " * 100)
    done = enrolled.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:32] + bytes(100), lambda data: b""]
)
def test_keyring_in_which_gpg_finds_nothing_any_more_is_damaged(
    damage: Callable[[bytes], bytes], enrolled: Server
) -> None:
    keyring = enrolled.home / ".cryptomail/pubring.kbx"
    keyring.write_bytes(damage(keyring.read_bytes()))
    done = enrolled.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:32] + bytes(100),
        lambda data: data[:32] + bytes(len(data) - 32),
        lambda data: data.replace(ALICE.encode(), b"?" * len(ALICE)),
        lambda data: b"",
    ],
    ids=["cut short", "cut short, with zeros", "zeros", "another address", "emptied"],
)
def test_shared_keyring_that_is_damaged_is_a_failure_and_not_a_missing_key(
    damage: Callable[[bytes], bytes], server: Server, alice: Owner, mallory: Owner
) -> None:
    server.config.write_text(f'[keyrings]\nowner = []\nshared = ["{server.home}/shared"]\n')
    server.give(mallory.public("m" + ALICE), "shared")
    server.give(alice.public(ALICE), "shared")
    assert server.filter(MESSAGE, "--user", "bob@example.org").stdout == MESSAGE
    keyring = server.home / "shared/pubring.kbx"
    keyring.write_bytes(damage(keyring.read_bytes()))
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.count(b"\n") == 1


def test_an_empty_keyring_of_gnupg_s_own_making_is_no_key(server: Server, alice: Owner) -> None:
    """A keybox has a header; GnuPG 2.0 made a file without an octet, and leaves one where it deleted the last key."""
    server.give(alice.public(ALICE))
    home = server.home / ".cryptomail"
    command = ["gpg", "--homedir", str(home), "--batch", "--yes", "--delete-keys", fingerprint_of(alice)]
    subprocess.run(command, check=True, capture_output=True)
    assert (home / "pubring.kbx").stat().st_size > 0
    assert server.filter(MESSAGE).stdout == MESSAGE
    (home / "pubring.kbx").unlink()
    (home / "pubring.gpg").touch()
    assert server.filter(MESSAGE).stdout == MESSAGE


@pytest.mark.parametrize("octets", [0, 40, 200, -40, -200])
def test_shared_file_of_certificates_that_is_cut_short_is_a_failure_and_not_a_missing_key(
    octets: int, server: Server, alice: Owner, mallory: Owner
) -> None:
    file = server.home / "shared.pgp"
    server.config.write_text(f'[keyrings]\nowner = []\nshared = ["{file}"]\n')
    whole = mallory.public("m" + ALICE) + alice.public(ALICE)
    file.write_bytes(whole)
    assert server.filter(MESSAGE, "--user", "bob@example.org").stdout == MESSAGE
    file.write_bytes(whole[:octets])
    done = server.filter(MESSAGE)
    assert (done.returncode, done.stdout) == (75, b"")
    assert done.stderr.count(b"\n") == 1


def test_nothing_is_written_into_the_keyring(enrolled: Server) -> None:
    keyring = enrolled.home / ".cryptomail"
    before = {path.name: path.stat().st_mtime_ns for path in keyring.iterdir()}
    assert enrolled.filter(MESSAGE).returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in keyring.iterdir()} == before


def test_owners_gpg_conf_cannot_turn_anything_on(enrolled: Server, alice: Owner) -> None:
    (enrolled.home / ".cryptomail" / "gpg.conf").write_text("no-such-option\n")
    assert decrypt(enrolled.filter(MESSAGE).stdout, alice) == MESSAGE


FAKE_GPG = {
    "is missing": None,
    "crashes": "kill -SEGV $$",
    "fails": "cat > /dev/null; exit 2",
    "prints nothing": "cat > /dev/null",
    "prints the message": "printf '[GNUPG:] BEGIN_ENCRYPTION\\n[GNUPG:] END_ENCRYPTION\\n' >&2; cat",
    "prints garbage": "cat > /dev/null; printf '[GNUPG:] END_ENCRYPTION\\n' >&2; head -c 1000 /dev/zero",
    "hangs": "sleep 60",
}


@pytest.mark.parametrize("fault", FAKE_GPG)
def test_gpg_that_misbehaves_is_never_believed(fault: str, enrolled: Server, tmp_path: Path) -> None:
    """Listing works, so that the encryption is what fails."""
    script = FAKE_GPG[fault]
    programs = tmp_path if script is None else install_gpg(tmp_path, script)
    enrolled.config.write_text("time_limit = 2\n")
    started = time.monotonic()
    done = enrolled.filter(b"Subject: s\r\n\r\n" + CANARY, environment={"PATH": str(programs)})
    assert (done.returncode, done.stdout) == (75, b"")
    assert CANARY not in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert time.monotonic() - started < 10


def test_filter_that_is_told_to_stop_fails_instead_of_dying_of_the_signal(enrolled: Server) -> None:
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main())"
    environment = {"USER": ALICE, "HOME": str(enrolled.home)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "filter"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(MESSAGE)
    process.stdin.flush()
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (75, b"")
    assert b"SIGTERM" in stderr


@pytest.mark.parametrize("kilobytes", [20_000, 40_000, 60_000])
def test_lack_of_memory_is_noticed_at_once(kilobytes: int, enrolled: Server) -> None:
    """A message that says it is encrypted is taken in as a whole, to see whether it is."""
    program = f"ulimit -v {kilobytes}; exec {sys.executable} -m sieve_filter filter"
    environment = {"USER": ALICE, "HOME": str(enrolled.home), "PATH": os.environ["PATH"]}
    message = b"Content-Type: multipart/encrypted; boundary=b\r\n" + MESSAGE + b"text\n" * 10_000_000
    started = time.monotonic()
    done = subprocess.run(["sh", "-c", program], input=message, capture_output=True, env=environment)
    assert (done.returncode, done.stdout) == (75, b"")
    assert b"not enough memory" in done.stderr
    assert time.monotonic() - started < 20


def test_output_that_cannot_be_written_is_a_failure(enrolled: Server) -> None:
    code = "import sys; from sieve_filter.cli.main import main; sys.exit(main())"
    environment = {"USER": ALICE, "HOME": str(enrolled.home)}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "filter"], input=MESSAGE, stdout=full, stderr=subprocess.PIPE, env=environment
        )
    assert done.returncode == 74
    assert done.stderr.count(b"\n") == 1


HOSTILE = {
    "nested multiparts": b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" * 380_000,
    "100,000 parts": b"--b\r\n\r\nx\r\n" * 100_000,
    "armor headers": b"-----BEGIN PGP MESSAGE-----\r\n" + b"Comment: x\r\n" * 85_000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["multipart/mixed", "multipart/encrypted", "text/plain", "(odd multipart/mixed"])
def test_hostile_structure_is_encrypted_within_seconds(name: str, kind: str, enrolled: Server) -> None:
    started = time.monotonic()
    done = enrolled.filter(f"Content-Type: {kind}; boundary=b\r\n\r\n".encode() + HOSTILE[name])
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"X-Cryptomail: encrypted-at-delivery" in done.stdout[:200]
    assert time.monotonic() - started < 15


def test_gpg_inherits_nothing_that_it_does_not_need(enrolled: Server, tmp_path: Path) -> None:
    """Its command line and environment can be read by others; a descriptor too many could be the message."""
    programs = install_gpg(
        tmp_path, f'{{ tr "\\0" "\\n" < /proc/$$/environ; ls /proc/$$/fd; echo "$@"; }} > {tmp_path}/seen; exit 2'
    )
    environment = {"PATH": str(programs), "SENDER": "b@example.com", "SECRET": CANARY.decode()}
    enrolled.filter(b"Subject: s\r\n\r\n" + CANARY, environment=environment)
    seen = (tmp_path / "seen").read_text()
    names = {line.partition("=")[0] for line in seen.splitlines() if "=" in line and not line.startswith("-")}
    assert names <= {"PATH", "HOME", "LC_ALL"}
    descriptors = {int(line) for line in seen.splitlines() if line.isdigit()}
    assert {number for number in descriptors if number < 10} == {0, 1, 2}  # the others are the shell's own
    assert CANARY.decode() not in seen


def test_program_that_crashes_leaves_no_core_file(enrolled: Server, tmp_path: Path) -> None:
    programs = install_gpg(tmp_path, f"ulimit -c > {tmp_path}/limit")
    enrolled.filter(MESSAGE, environment={"PATH": str(programs)})
    assert (tmp_path / "limit").read_text() == "0\n"


def test_no_plaintext_is_left_in_any_file(enrolled: Server, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    message = b"Subject: s\r\n\r\n" + CANARY * 100_000
    assert enrolled.filter(message, environment={"TMPDIR": str(temporary)}).returncode == 0
    assert not list(temporary.iterdir())
    files = [path for path in enrolled.home.rglob("*") if stat.S_ISREG(path.stat().st_mode)]
    assert not [path for path in files if CANARY in path.read_bytes()]


def test_header_is_what_a_mail_list_needs(enrolled: Server) -> None:
    stored = split(enrolled.filter(MESSAGE).stdout)
    assert [field.name for field in stored.fields] == [
        b"from",
        b"subject",
        b"message-id",
        b"mime-version",
        b"x-cryptomail",
        b"content-type",
    ]


def keydata(public: bytes) -> list[str]:
    """A key as a script has it: arguments of at most 1,024 octets."""
    text = base64.b64encode(public).decode()
    return ["--keydata", *(text[start : start + 1024] for start in range(0, len(text), 1024))]


@pytest.mark.parametrize("engine", ["gnupg", "sequoia"])
def test_key_may_travel_in_the_script(engine: str, server: Server, alice: Owner) -> None:
    server.config.write_text(f'engine = "{engine}"\n')
    done = server.filter(MESSAGE, *keydata(alice.public(ALICE)), "--require")
    assert done.stderr == b""
    assert decrypt(done.stdout, alice) == MESSAGE


def test_key_in_the_script_is_the_only_one_used(server: Server, alice: Owner, mallory: Owner) -> None:
    server.give(mallory.public("m" + ALICE))
    stored = server.filter(MESSAGE, *keydata(alice.public(ALICE))).stdout
    assert len(packets.encrypted_message(dearmor(ARMOR.findall(stored)[0]) or b"").key_ids) == 1  # type: ignore[union-attr]
    assert decrypt(stored, alice) == MESSAGE


@pytest.mark.parametrize("pieces", [["x"], ["AAAA"], ["", ""], ["bm90aGluZw=="], ["é"]])
def test_what_is_no_key_in_a_script_is_refused(pieces: list[str], enrolled: Server) -> None:
    done = enrolled.filter(MESSAGE, "--keydata", *pieces)
    assert (done.returncode, done.stdout) == (64, b"")
    assert done.stderr.count(b"\n") == 1


def test_secret_key_in_a_script_is_refused(server: Server, alice: Owner) -> None:
    done = server.filter(MESSAGE, *keydata(alice.gpg("--export-secret-keys", ALICE)))
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"secret" in done.stderr


@pytest.mark.parametrize("fault", ["was revoked", "cannot encrypt"])
def test_bad_key_in_a_script_is_refused(fault: str, server: Server, bad_keys: dict[str, bytes]) -> None:
    server.config.write_text('[on]\nunusable_key = "store-plain"\n')
    done = server.filter(MESSAGE, *keydata(bad_keys[fault]))
    assert (done.returncode, done.stdout) == (75, b"")
    assert fault.encode() in done.stderr


@pytest.mark.parametrize("engine", ["gnupg", "sequoia"])
def test_keys_may_be_files_as_in_a_web_key_directory(engine: str, server: Server, alice: Owner, mallory: Owner) -> None:
    directory = server.home / "openpgpkey/example.org/hu"
    directory.mkdir(parents=True)
    (directory / "kei1q4tipxxu1yj79k9kfukdhfy631xe").write_bytes(alice.public(ALICE))
    (directory / "another").write_bytes(mallory.public("m" + ALICE))
    server.config.write_text(f'engine = "{engine}"\n[keyrings]\nowner = ["{server.home}/openpgpkey/%d/hu/%w"]\n')
    done = server.filter(MESSAGE, "--require")
    assert done.stderr == b""
    assert decrypt(done.stdout, alice) == MESSAGE
    assert server.filter(MESSAGE, "--user", "bob@example.org").stdout == MESSAGE


def test_damaged_key_file_is_a_failure_and_not_a_missing_key(server: Server, alice: Owner) -> None:
    file = server.home / "key"
    server.config.write_text(f'[keyrings]\nowner = ["{file}"]\n')
    for content in (b"garbage", alice.public(ALICE)[:40], b"\n", b""):
        file.write_bytes(content)
        done = server.filter(MESSAGE)
        assert (done.returncode, done.stdout) == (75, b"")
