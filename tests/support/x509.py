"""S/MIME certificates and their secret keys, made by openssl."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.server import ALICE, run

RSA = ("-newkey", "rsa:2048")
USAGE = "digitalSignature,keyEncipherment,keyAgreement"


class Card:
    """The certificate of somebody who reads mail, in PEM, and the secret key, which is nowhere on the server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = directory / "key.pem"
        self.pem = (directory / "cert.pem").read_bytes()

    @property
    def fingerprint(self) -> str:
        said = openssl("x509", "-noout", "-fingerprint", "-sha256", data=self.pem)
        return said.decode().partition("=")[2].strip().replace(":", "")

    def signed(self, *options: str, text: bytes = b"hello\r\n") -> bytes:
        """A message that its owner signed with it."""
        signer = ("-signer", str(self.directory / "cert.pem"), "-inkey", str(self.key))
        return openssl("cms", "-sign", "-text", "-subject", "my key", *signer, *options, data=text)

    def decrypt(self, stored: bytes) -> bytes:
        """What `cryptomail decrypt` gives back of a stored message."""
        done = run("decrypt", "--smime-key", str(self.key), data=stored, environment={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 0, done.stderr
        return done.stdout


class Maker:
    """Makes certificates, each in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made = 0

    def make(
        self,
        *kind: str,
        address: str = ALICE,
        days: int = 30,
        usage: str = USAGE,
        mail: bool = True,
        name: str = "Alice",
        issuer: Card | None = None,
    ) -> Card:
        """A certificate for that address, with an RSA key of 2048 bits unless `kind` says otherwise."""
        self._made += 1
        directory = self._directory / str(self._made)
        directory.mkdir()
        more = [f"subjectAltName=email:{address}"] if address else []
        more += [f"keyUsage={usage}"] if usage else []
        more += [f"extendedKeyUsage={'emailProtection' if mail else 'serverAuth'}"]
        options = [part for one in more for part in ("-addext", one)]
        options += ["-CA", str(issuer.directory / "cert.pem"), "-CAkey", str(issuer.key)] if issuer else []
        files = ("-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem"))
        openssl(
            "req",
            "-x509",
            *(kind or RSA),
            "-nodes",
            "-days",
            str(max(days, 1)),
            "-subj",
            f"/CN={name}",
            *options,
            *files,
        )
        if days <= 0:
            _make_old(directory / "cert.pem")
        return Card(directory)


def _make_old(certificate: Path) -> None:
    """Have it expire in 2020; its signature, which nobody asks for, is not good any more."""
    data = openssl("x509", "-outform", "DER", data=certificate.read_bytes())
    old = iter((b"200101000000Z", b"201231000000Z"))
    data = re.sub(rb"(?<=\x17\x0d)[0-9]{12}Z", lambda _: next(old), data, count=2)
    certificate.write_bytes(openssl("x509", "-inform", "DER", data=data))


def ec(curve: str) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}")


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=data, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def maker() -> Iterator[Maker]:
    with TemporaryDirectory(prefix="cards-", dir="/tmp") as directory:
        yield Maker(Path(directory))


@pytest.fixture(scope="module")
def card(maker: Maker) -> Card:
    return maker.make()
