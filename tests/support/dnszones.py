"""Signed zones on the loopback interface: bind's dnssec-signzone signs them, nsd serves them, unbound validates."""

import base64
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.programs import require

_ZONE = """\
$TTL 60
@ IN SOA ns hostmaster 1 3600 600 86400 60
@ IN NS ns
ns IN A 127.0.0.1
"""
_NSD = """\
server:
    ip-address: 127.0.0.1@{port}
    username: ""
    zonesdir: "{directory}"
    pidfile: "{directory}/nsd.pid"
    xfrdir: "{directory}"
    xfrdfile: "{directory}/xfrd.state"
    zonelistfile: "{directory}/zone.list"
    database: ""
remote-control:
    control-enable: no
"""
_UNBOUND = """\
server:
    interface: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    do-daemonize: no
    do-ip6: no
    do-not-query-localhost: no
    module-config: "{modules}"
remote-control:
    control-enable: no
"""


class Zones:
    """Zones that are served, and resolvers that look them up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = _free_port()
        self._names: list[str] = []
        self._insecure: list[str] = []
        (directory / "nsd.conf").write_text(_NSD.format(directory=directory, port=self._port))

    def add(self, zone: str, records: Mapping[str, bytes], signed: bool = True, forged: bytes | None = None) -> None:
        """A zone with OPENPGPKEY records, by their names; `forged` takes their place after the zone was signed."""
        file = self._directory / zone
        lines = (f"{name} IN OPENPGPKEY {_text(key)}\n" for name, key in records.items())
        file.write_text(_ZONE + "".join(lines))
        if signed:
            for flag in (("-f", "KSK"), ()):
                self._run("dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", *flag, "-K", str(self._directory), zone)
            self._run("dnssec-signzone", "-q", "-S", "-O", "full", "-K", str(self._directory), "-o", zone, str(file))
            file = file.with_name(f"{zone}.signed")
            if forged is not None:
                record = re.compile(r"(\sIN\s+OPENPGPKEY\s+).*")
                content, replaced = record.subn(lambda match: match[1] + _text(forged), file.read_text())
                assert replaced == len(records)
                file.write_text(content)
        else:
            self._insecure.append(zone)
        self._names.append(zone)
        with (self._directory / "nsd.conf").open("a") as configuration:
            configuration.write(f'zone:\n    name: "{zone}"\n    zonefile: "{file.name}"\n')

    @contextmanager
    def resolver(self, validating: bool = True) -> Iterator[str]:
        """A resolver that knows the zones, and who signs them. Its value is its address and port."""
        port = _free_port()
        modules = "validator iterator" if validating else "iterator"
        text = _UNBOUND.format(directory=self._directory, port=port, modules=modules)
        anchors = "".join(f'    trust-anchor-file: "{path}"\n' for path in self._directory.glob("K*.key"))
        insecure = "".join(f'    domain-insecure: "{zone}"\n' for zone in self._insecure)
        text = text.replace("remote-control:", f"{anchors if validating else ''}{insecure}remote-control:")
        for zone in self._names:
            text += f'stub-zone:\n    name: "{zone}"\n    stub-addr: 127.0.0.1@{self._port}\n'
        configuration = self._directory / f"unbound-{port}.conf"
        configuration.write_text(text)
        with self._daemon(port, "unbound", "-d", "-p", "-c", str(configuration)):
            yield f"127.0.0.1:{port}"

    @contextmanager
    def served(self) -> Iterator[None]:
        """The zones are served by their name server."""
        with self._daemon(self._port, "nsd", "-d", "-c", str(self._directory / "nsd.conf")):
            yield

    def _run(self, program: str, *arguments: str) -> None:
        command = [require(program), *arguments]
        subprocess.run(command, check=True, capture_output=True, cwd=self._directory)

    @contextmanager
    def _daemon(self, port: int, program: str, *arguments: str) -> Iterator[None]:
        with (self._directory / f"{program}.log").open("w+") as log:
            process = subprocess.Popen([require(program), *arguments], stdout=log, stderr=log, cwd=self._directory)
            try:
                deadline = time.monotonic() + 20
                while not _answers(port):
                    log.seek(0)
                    assert process.poll() is None, log.read()
                    assert time.monotonic() < deadline, log.read()
                    time.sleep(0.05)
                yield
            finally:
                process.terminate()
                process.wait(20)


@pytest.fixture
def zones() -> Iterator[Zones]:
    """No zone yet."""
    for program in ("dnssec-signzone", "nsd", "unbound"):
        require(program)
    with ExitStack() as stack:
        yield Zones(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zones-", dir="/tmp"))))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _text(key: bytes) -> str:
    return base64.b64encode(key).decode()
