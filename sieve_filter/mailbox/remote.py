"""Owners' own way to their mailbox: IMAP over TLS, by a URL (RFC 5092) and a password."""

import base64
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from sieve_filter import limits
from sieve_filter.dovecot.imap import Session
from sieve_filter.errors import FileError, ImapRefusalError, LoginError, ServiceError, UsageError

_PORTS = {"imap": 143, "imaps": 993}
_SECONDS = 60  # for each answer


class Server(NamedTuple):
    """Where a mailbox is, and whose; `tls` says that the connection begins with it."""

    user: str
    host: str
    port: int
    tls: bool


def parse(url: str) -> Server:
    """The server that a URL names. Raises UsageError unless it is imaps://USER@HOST[:PORT], or imap://."""
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname, parts.port, unquote(parts.username or "", errors="strict")
    except ValueError:
        host, port, user = None, None, ""
    if not host or not user or parts.scheme not in _PORTS or parts.path.strip("/") or parts.query or parts.fragment:
        raise UsageError("--imap needs a URL as imaps://ann%40example.org@mail.example.org")
    if parts.password is not None:
        raise UsageError("--imap takes no password in the URL, where others could see it: use --password-file")
    if "\0" in user:
        raise UsageError("--imap has a user name that cannot be")
    return Server(user.partition(";")[0], host, port or _PORTS[parts.scheme], parts.scheme == "imaps")


@contextmanager
def login(server: Server, password: str, ca_file: str | None) -> Iterator[Session]:
    """A session there, until the block ends. `ca_file` (PEM) is trusted in place of the system's authorities.

    Raises ServiceError where there is no such server, it has no TLS, or it cannot show by its certificate that it is
    `server.host`; LoginError where it does not take user and password; FileError.
    """
    name = f"the IMAP server {server.host}"
    context = _context(ca_file)
    try:
        with socket.create_connection((server.host, server.port), _SECONDS) as connection:
            if server.tls:
                greeting: bytes | None = b"OK"
            elif _start_tls(connection, name):
                greeting = None
            elif _is_loopback(connection):
                yield from _session(connection, server, password, None, name)
                return
            else:
                raise ServiceError(f"{name} has no TLS: nothing was sent to it")
            with context.wrap_socket(connection, server_hostname=server.host) as secured:
                yield from _session(secured, server, password, greeting, name)
    except ssl.SSLCertVerificationError as error:
        raise ServiceError(f"{name} cannot prove who it is: {error.verify_message}; --ca-file?") from error
    except OSError as error:
        raise ServiceError(f"{name}: {error.strerror or error}") from error


def _session(
    connection: socket.socket, server: Server, password: str, greeting: bytes | None, name: str
) -> Iterator[Session]:
    with connection.makefile("rb") as responses, connection.makefile("wb") as commands:
        session = Session(responses, commands, limits.IMAP_LITERAL_OCTETS, greeting)
        secret = f"\0{server.user}\0{password}".encode()
        try:
            list(session.ask(b"AUTHENTICATE PLAIN", [base64.b64encode(secret)]))  # RFC 4616
        except ImapRefusalError as error:
            raise LoginError(f"{name} does not let {server.user} in: {error}") from error
        yield session


def _start_tls(connection: socket.socket, name: str) -> bool:
    """Have the server begin TLS, if it can. Nothing is read ahead: what came before it must not pass for an answer."""
    with connection.makefile("rb", buffering=0) as responses, connection.makefile("wb") as commands:
        session = Session(responses, commands, limits.IMAP_LITERAL_OCTETS, b"OK")  # type: ignore[arg-type]
        if b"STARTTLS" not in session.capabilities():
            return False
        session.run(b"STARTTLS")
        return True


def _is_loopback(connection: socket.socket) -> bool:
    return ipaddress.ip_address(connection.getpeername()[0].partition("%")[0]).is_loopback


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise FileError(f"cannot read {ca_file}: {error.strerror or 'no certificate is in it'}") from error
