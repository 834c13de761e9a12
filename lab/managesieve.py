"""As much of ManageSieve (RFC 5804) as it takes to upload a script and make it the active one."""

import base64
import re
import socket
from io import BufferedRWPair

from lab.client import SECONDS, Lab


class ManageSieveError(Exception):
    """The server said no; its reason is the text."""


def upload(lab: Lab, user: str, script: bytes) -> None:
    """Make `script` the user's active script."""
    with socket.create_connection(lab.managesieve, timeout=SECONDS) as connection:
        stream = connection.makefile("rwb")
        credentials = base64.b64encode(f"\0{lab.address(user)}\0{lab.password}".encode())
        _response(stream)
        for command in (
            b'AUTHENTICATE "PLAIN" "%b"' % credentials,
            b'PUTSCRIPT "main" {%d+}\r\n%b' % (len(script), script),
            b'SETACTIVE "main"',
        ):
            stream.write(command + b"\r\n")
            stream.flush()
            _response(stream)
        stream.close()


def _response(stream: BufferedRWPair) -> None:
    """Read up to the line that ends a response; a {number} at the end of a line announces so many bytes more."""
    while True:
        line = stream.readline()
        text = line
        while announced := re.search(rb"\{(\d+)\}\r\n$", text):
            text = stream.read(int(announced[1])) + stream.readline()
            line += text
        if line.startswith(b"OK"):
            return
        if not line or line.startswith((b"NO", b"BYE")):
            raise ManageSieveError(line.decode(errors="replace"))
