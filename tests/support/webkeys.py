"""A Web Key Directory, served over TLS on the loopback interface, and the command run where it has its names."""

import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

KEY = "application/octet-stream"

# What a file of hosts would do, if one could be named for one process: all names end at the server.
_PROGRAM = """\
import socket, sys

def find(host, port, *rest, **named):
    if host not in {hosts!r}:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", {port}))]

socket.getaddrinfo = find
from sieve_filter.cli.main import main
sys.exit(main({config!r}, sendmail_path=""))
"""


class Page(NamedTuple):
    """An answer: `seconds` is how long each octet of it takes."""

    body: bytes = b""
    kind: str = KEY
    status: int = 200
    fields: Mapping[str, str] = {}
    seconds: float = 0


class Web:
    """The server: `pages` by host and path, `asked` has what was asked for."""

    def __init__(self, hosts: tuple[str, ...], context: ssl.SSLContext) -> None:
        self.hosts = hosts
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.most_at_once = 0
        web = self
        lock = threading.Lock()
        running = 0

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                nonlocal running
                with lock:
                    running += 1
                    web.most_at_once = max(web.most_at_once, running)
                try:
                    self._answer()
                finally:
                    with lock:
                        running -= 1

            def _answer(self) -> None:
                name = f"{self.headers['Host']}{self.path}"
                web.asked.append(name)
                page = web.pages.get(name.partition("?")[0], Page(b"<html>", "text/html", 404))
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                self.send_header("Content-Length", str(len(page.body)))
                for field, value in page.fields.items():
                    self.send_header(field, value)
                self.end_headers()
                try:
                    if page.seconds:
                        for octet in page.body:
                            time.sleep(page.seconds)
                            self.wfile.write(bytes([octet]))
                    else:
                        self.wfile.write(page.body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def finish_request(self, request: Any, address: Any) -> None:
                # In the connection's own thread.
                with suppress(OSError), context.wrap_socket(request, server_side=True) as encrypted:
                    super().finish_request(encrypted, address)

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def run(self, *arguments: str, config: Path, trust: Path) -> "subprocess.CompletedProcess[bytes]":
        """Run the command where the server has its names, and its authority is trusted."""
        port = self._server.server_address[1]
        program = _PROGRAM.format(hosts=self.hosts, port=port, config=str(config))
        environment = {"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": str(trust)}
        command = [sys.executable, "-c", program, *arguments]
        return subprocess.run(command, input=b"", capture_output=True, env=environment, timeout=120)

    @contextmanager
    def running(self) -> Iterator["Web"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
