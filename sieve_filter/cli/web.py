"""The command `cryptomail web`: serves the owner's page, behind the administrator's web server."""

import argparse
import ipaddress
import os
from pathlib import Path
from typing import Any

from sieve_filter.errors import PlaceError, UsageError
from sieve_filter.mailbox import remote
from sieve_filter.system import stdio
from sieve_filter.web.mailbox import Place

_THREADS = 16
_LISTEN = "127.0.0.1:8025"
_IMAP = "imap://127.0.0.1"


def add_to(command: argparse.ArgumentParser, folder: str) -> None:
    """The options of `cryptomail web`; `folder` is the one in which owners save their keys."""
    command.add_argument(
        "--listen",
        default=_LISTEN,
        metavar="HOST:PORT|PATH",
        help=f"an address of this machine, or a socket ({_LISTEN})",
    )
    command.add_argument(
        "--imap", default=_IMAP, metavar="URL", help=f"where mailboxes are: imap:// or imaps:// ({_IMAP})"
    )
    command.add_argument("--ca-file", metavar="FILE", help="trust these authorities (PEM), not the system's")
    command.set_defaults(run=_serve, folder=folder)


def _serve(options: argparse.Namespace, _config_file: str) -> int:
    if os.geteuid() == 0:
        raise UsageError("the page must not run as root: it needs a user of its own, who can read no mail and no keys")
    if not options.folder:
        raise UsageError("owners cannot save keys here: this was installed with an empty KEY_FOLDER")
    server = remote.parse(options.imap.replace("://", "://owner@", 1))
    place = Place(server.host, server.port, server.tls, options.ca_file, options.folder)
    listening = _listening(options.listen)
    try:
        import waitress

        from sieve_filter.web import app
    except ImportError:
        raise UsageError("the page needs Flask and waitress, which make install found no wheels of") from None
    application = app.make(app.Desk(place, stdio.warn))
    os.umask(0o117)  # a web server in the socket's group may connect to it
    try:
        waitress.serve(
            application,
            **listening,
            threads=_THREADS,
            max_request_body_size=app.MOST_OCTETS,
            ident=None,
            # It is the administrator's web server that says who asks, and nobody else reaches this.
            trusted_proxy="localhost" if "unix_socket" in listening else "127.0.0.1",
            trusted_proxy_headers={"x-forwarded-for", "x-forwarded-proto"},
            clear_untrusted_proxy_headers=True,
        )
    except OSError as error:
        raise PlaceError(f"cannot listen on {options.listen}: {error.strerror}") from error
    return os.EX_OK


def _listening(where: str) -> dict[str, Any]:
    """What waitress is told of that address or path. Raises UsageError."""
    if where.startswith("/"):
        if not Path(where).parent.is_dir():
            raise UsageError(f"there is no directory for the socket {where}")
        return {"unix_socket": where, "unix_socket_perms": "660"}
    host, _, port = where.rpartition(":")
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback and 0 < int(port) < 65_536
    except ValueError:
        loopback = False
    if not loopback:
        raise UsageError(f"--listen {where}: name a port of 127.0.0.1 or [::1], or a path; a web server is before it")
    return {"listen": where}
