"""A certificate authority, made by openssl, and certificates of its for servers on the loopback interface."""

import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.programs import require


class Authority:
    """A certificate authority; `file` is its own certificate."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "ca.pem"
        self._key = directory / "ca.key"
        self._openssl("req", "-x509", *_NEW, "-keyout", self._key, "-out", self.file, "-subj", "/CN=test authority")

    def issue(self, *names: str) -> tuple[Path, Path]:
        """A certificate for these host names or IP addresses. Returns its file, and that of its key."""
        certificate, key, request, extensions = (
            self.directory / f"{names[0]}.{kind}" for kind in ("pem", "key", "csr", "ext")
        )
        kinds = ("IP" if name.replace(".", "").isdecimal() else "DNS" for name in names)
        alternatives = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
        extensions.write_text(f"subjectAltName={alternatives}\n")
        self._openssl("req", *_NEW, "-keyout", key, "-out", request, "-subj", "/CN=test server")
        signing = ("-req", "-in", request, "-CA", self.file, "-CAkey", self._key, "-CAcreateserial")
        self._openssl("x509", *signing, "-extfile", extensions, "-days", "2", "-out", certificate)
        return certificate, key

    def server_context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(*names))
        return context

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)


_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """An authority that only who names it trusts."""
    require("openssl")
    with TemporaryDirectory(prefix="authority-") as directory:
        Path(directory).chmod(0o711)  # the certificate is for everybody; openssl keeps its keys to itself
        yield Authority(Path(directory))
