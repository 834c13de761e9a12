"""Owners' own way to their mailbox: who is asked, and that nobody else gets the password."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from sieve_filter.errors import FileError, LoginError, ServiceError, UsageError
from sieve_filter.mailbox import remote
from sieve_filter.mailbox.remote import Server
from tests.support.tls import Authority, authority

__all__ = ["authority"]

_READY = b"* OK ready\r\n"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("imaps://ann%40example.org@mail.example.org", Server("ann@example.org", "mail.example.org", 993, True)),
        ("imap://ann@localhost:1143/", Server("ann", "localhost", 1143, False)),
        ("imaps://ann;AUTH=*@[::1]:993", Server("ann", "::1", 993, True)),
    ],
)
def test_a_url_names_a_server(url: str, server: Server) -> None:
    assert remote.parse(url) == server


@pytest.mark.parametrize(
    "url",
    [
        "imaps://mail.example.org",
        "http://ann@mail.example.org",
        "mail.example.org",
        "imaps://ann@mail.example.org/INBOX",
        "imaps://ann@mail.example.org:port",
        "imaps://ann:secret@mail.example.org",
        "imaps://ann%00@mail.example.org",
        "imaps://ann%ff@mail.example.org",
        "imaps://[ann@mail.example.org",
        "",
    ],
)
def test_a_url_that_names_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        remote.parse(url)


@contextmanager
def serving(context: ssl.SSLContext | None, *before: bytes, after: bytes, tls: bool) -> Iterator[tuple[int, bytearray]]:
    """A server that says `before`, a line for each that it is told, then begins TLS and says `after`. Yields its port,
    and what it was told.
    """
    told = bytearray()

    def serve() -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            with ExitStack() as stack:
                stack.enter_context(connection)
                if tls and context is not None:
                    connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
                for one in before:
                    connection.sendall(one)
                    told.extend(connection.recv(1000))
                if not tls and context is not None:
                    connection.sendall(b"c2 OK go on\r\n")
                    connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
                connection.sendall(after)
                while piece := connection.recv(1000):
                    told.extend(piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], told
        thread.join(10)


def log_in(port: int, ca_file: Path | None, tls: bool = True, host: str = "127.0.0.1") -> None:
    with remote.login(Server("ann", host, port, tls), "secret", str(ca_file) if ca_file else None) as session:
        session.run(b"NOOP")


def test_the_password_goes_over_tls(authority: Authority) -> None:
    answers = b"+ \r\nc1 OK in\r\nc2 OK done\r\n"
    with serving(authority.server_context("127.0.0.1"), after=_READY + answers, tls=True) as (port, told):
        log_in(port, authority.file)
    assert told.startswith(b"c1 AUTHENTICATE PLAIN\r\nAGFubgBzZWNyZXQ=\r\n")


def test_tls_can_begin_later(authority: Authority) -> None:
    capable = b"* CAPABILITY IMAP4rev1 STARTTLS\r\nc1 OK done\r\n"
    answers = b"+ \r\nc1 OK in\r\nc2 OK done\r\n"
    context = authority.server_context("127.0.0.1")
    with serving(context, _READY, capable, after=answers, tls=False) as (port, told):
        log_in(port, authority.file, tls=False)
    assert told.startswith(b"c1 CAPABILITY\r\nc2 STARTTLS\r\nc1 AUTHENTICATE")


@pytest.mark.parametrize("name", ["another.example.org", "127.0.0.1"])
def test_a_server_that_cannot_prove_who_it_is_gets_nothing(authority: Authority, name: str) -> None:
    context = authority.server_context(name)
    trusted = authority.file if name != "127.0.0.1" else None
    with (
        serving(context, after=_READY, tls=True) as (port, told),
        pytest.raises(ServiceError, match="cannot prove who it is"),
    ):
        log_in(port, trusted)
    assert not told


def test_without_tls_only_this_machine_gets_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    incapable = b"* CAPABILITY IMAP4rev1\r\nc1 OK done\r\n"
    answers = b"+ \r\nc1 OK in\r\nc2 OK done\r\n"
    with serving(None, _READY, incapable, after=answers, tls=False) as (port, told):
        log_in(port, None, tls=False)
    monkeypatch.setattr(remote, "_is_loopback", lambda _: False)  # another machine cannot be had here
    with (
        serving(None, _READY, incapable, after=answers, tls=False) as (port, told),
        pytest.raises(ServiceError, match="has no TLS: nothing was sent to it"),
    ):
        log_in(port, None, tls=False)
    assert told == b"c1 CAPABILITY\r\n"


def test_who_is_not_let_in_is_told(authority: Authority, tmp_path: Path) -> None:
    answers = b"+ \r\nc1 NO [AUTHENTICATIONFAILED] no\r\n"
    with (
        serving(authority.server_context("127.0.0.1"), after=_READY + answers, tls=True) as (port, _),
        pytest.raises(LoginError, match="does not let ann in"),
    ):
        log_in(port, authority.file)
    with pytest.raises(FileError):
        log_in(1, tmp_path / "none.pem")
    with pytest.raises(ServiceError, match="Connection refused"):
        log_in(1, authority.file)
