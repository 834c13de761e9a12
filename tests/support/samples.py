"""Builders for OpenPGP packets, armor and messages, and fixtures with what the real gpg and openssl write."""

import base64
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

KEY_ID = "0123456789ABCDEF"


def packet(tag: int, body: bytes) -> bytes:
    """A packet of the new format, its length in five octets."""
    return bytes([0xC0 | tag, 0xFF]) + len(body).to_bytes(4) + body


def old_packet(tag: int, body: bytes) -> bytes:
    """A packet of the old format, its length in two octets."""
    return bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2) + body


def partial_packet(tag: int, *bodies: bytes) -> bytes:
    """A packet whose chunks all but the last have partial lengths; those must be powers of two."""
    head = bytes([0xC0 | tag])
    for body in bodies[:-1]:
        head += bytes([0xE0 | len(body).bit_length() - 1]) + body
    return head + b"\xff" + len(bodies[-1]).to_bytes(4) + bodies[-1]


def noise(octets: int, seed: int = 1) -> bytes:
    """Octets that look random, as ciphertext and keys do, and are the same each time."""
    return random.Random(seed).randbytes(octets)  # noqa: S311


def mpi(octets: int) -> bytes:
    return (octets * 8).to_bytes(2) + b"\xa5" + noise(octets - 1)


def pkesk(key_id: str = KEY_ID, algorithm: int = 1, material: bytes | None = None, version: int = 3) -> bytes:
    """The body of a version 3 public-key session key packet; RSA 2048 unless told."""
    material = mpi(256) if material is None else material
    return bytes([version]) + bytes.fromhex(key_id) + bytes([algorithm]) + material


PKESK = packet(1, pkesk())
SEIPD = packet(18, b"\x01" + noise(80))
CIPHERTEXT = PKESK + SEIPD
LITERAL = packet(11, b"b\x00\x00\x00\x00\x00" + b"Meet me at noon.")


def crc24(data: bytes) -> bytes:
    """The checksum, by the plain algorithm of RFC 9580 section 6.1.1."""
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc.to_bytes(3)


def armor(data: bytes, *headers: bytes, eol: bytes = b"\n", checksum: bool = True) -> bytes:
    encoded = base64.b64encode(data)
    lines = [b"-----BEGIN PGP MESSAGE-----", *headers, b""]
    lines += [encoded[start : start + 64] for start in range(0, len(encoded), 64)]
    if checksum:
        lines.append(b"=" + base64.b64encode(crc24(data)))
    return eol.join([*lines, b"-----END PGP MESSAGE-----", b""])


ARMORED = armor(CIPHERTEXT)
CONTROL = b"Content-Type: application/pgp-encrypted\n\nVersion: 1\n"


def part(content_type: bytes, body: bytes, *fields: bytes) -> bytes:
    """A part or a whole message: the Content-Type, further fields, the body."""
    return b"\n".join([b"Content-Type: " + content_type, *fields, b"", body])


def multipart(content_type: bytes, *parts: bytes, preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    """A message with that multipart type; the boundary is "frontier"."""
    body = preamble + b"".join(b"\n--frontier\n" + part for part in parts) + b"\n--frontier--\n" + epilogue
    head = b"From: alice@example.org\nSubject: hello\nMIME-Version: 1.0\n"
    return head + part(content_type + b'; boundary="frontier"', body)


def pgp_mime(payload: bytes = ARMORED, preamble: bytes = b"", epilogue: bytes = b"", control: bytes = CONTROL) -> bytes:
    """A PGP/MIME message (RFC 3156 section 4)."""
    payload_part = part(b"application/octet-stream; name=encrypted.asc", payload)
    media_type = b'multipart/encrypted; protocol="application/pgp-encrypted"'
    return multipart(media_type, control, payload_part, preamble=preamble, epilogue=epilogue)


class Home(NamedTuple):
    """A GnuPG home with a secret key."""

    path: str

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.path, "--batch", "--quiet", "--passphrase", "secret"]
        command += ["--pinentry-mode", "loopback", "--trust-model", "always", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """A GnuPG home with the keys elliptic@example.org and rsa@example.org. Its path is short for gpg-agent."""
    path = tempfile.mkdtemp(prefix="gpg")
    try:
        made = Home(path)
        made.gpg("--quick-generate-key", "elliptic@example.org", "future-default", "default")
        made.gpg("--quick-generate-key", "rsa@example.org", "rsa2048", "cert,sign,encrypt")
        yield made
    finally:
        subprocess.run(["gpgconf", "--homedir", path, "--kill", "all"], check=True, capture_output=True)
        shutil.rmtree(path, ignore_errors=True)


def encryption_key_ids(home: Home, user_id: str) -> set[str]:
    """The key IDs of the subkeys that encrypt to that user."""
    records = home.gpg("--with-colons", "--list-keys", user_id).decode().splitlines()
    fields = [record.split(":") for record in records if record.startswith(("pub:", "sub:"))]
    return {field[4] for field in fields if "e" in field[11]}


class Smime(NamedTuple):
    """A certificate, and what `openssl cms` makes with it."""

    directory: Path

    def cms(self, *arguments: str, data: bytes = b"Meet me at noon.\r\n") -> bytes:
        command = ["openssl", "cms", *arguments]
        return subprocess.run(command, input=data, check=True, capture_output=True, cwd=self.directory).stdout

    def encrypted(self, *arguments: str, form: str = "DER", data: bytes = b"Meet me at noon.\r\n") -> bytes:
        return self.cms("-encrypt", *arguments, "-outform", form, "cert.pem", data=data)

    def signed(self, *arguments: str, form: str = "DER") -> bytes:
        signer = ("-signer", "cert.pem", "-inkey", "key.pem")
        return self.cms("-sign", *arguments, "-outform", form, *signer)


@pytest.fixture(scope="session")
def smime(tmp_path_factory: pytest.TempPathFactory) -> Smime:
    directory = tmp_path_factory.mktemp("smime")
    request = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=alice"
    subprocess.run(request.split(), check=True, capture_output=True, cwd=directory)
    return Smime(directory)
