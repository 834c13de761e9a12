"""Speaks IMAP (RFC 9051) over two streams, as far as looking after a folder needs it: bytes in, bytes out.

The session has a user already: `doveadm exec imap` gives such a one on its standard input and output. There is no time
limit here, so whoever starts a session also ends it.
"""

import base64
import re
from typing import IO, NamedTuple

from sieve_filter.errors import ServiceError

_LITERAL = re.compile(rb"\{([0-9]{1,10})\}\r?\n\Z")
_LINE_OCTETS = 100_000  # what Dovecot takes from a client, too
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]+")
_LISTED = re.compile(rb'\* LIST \(([^)]*)\) (?:NIL|"(?:[^"\\]|\\.)*") (.+)\Z', re.DOTALL)
_PREFIX = re.compile(rb'\* NAMESPACE \(\("((?:[^"\\]|\\.)*)"')


class Response(NamedTuple):
    """A response's text, line end off, and the literals in it, which are marked there as {octets}."""

    text: bytes
    literals: tuple[bytes, ...]


class Session:
    """One session. Every method raises ServiceError where the server refuses, or is gone."""

    def __init__(self, responses: IO[bytes], commands: IO[bytes], most: int) -> None:
        """`most` is how many octets a literal may have."""
        self._responses = responses
        self._commands = commands
        self._most = most
        self._number = 0
        if not self._response().text.startswith(b"* PREAUTH"):
            raise ServiceError("Dovecot gives no IMAP session; its log says why")

    def run(self, command: bytes, literal: bytes | None = None) -> list[Response]:
        """What the server answers to `command`, to which `literal` may be added (RFC 9051 section 4.3)."""
        self._number += 1
        tag = b"c%d" % self._number
        self._send(tag + b" " + command + (b"" if literal is None else b" {%d}" % len(literal)) + b"\r\n")
        found: list[Response] = []
        while not (response := self._response()).text.startswith(tag + b" "):
            if response.text.startswith(b"+") and literal is not None:
                self._send(literal + b"\r\n")
                literal = None
            else:
                found.append(response)
        if not response.text.startswith(tag + b" OK"):
            said = response.text[len(tag) + 1 :].decode("utf-8", "replace")
            raise ServiceError(f"IMAP {command.split()[0].decode()} was refused: {said[:200]}")
        return found

    def prefix(self) -> str:
        """The prefix of the user's own folders (RFC 2342), which mostly is empty."""
        for response in self.run(b"NAMESPACE"):
            if match := _PREFIX.match(response.text):
                return re.sub(rb"\\(.)", rb"\1", match[1]).decode("ascii", "replace")
        return ""

    def sizes(self) -> dict[int, int]:
        """The UIDs in the selected folder, and the octets of each message."""
        found: dict[int, int] = {}
        for response in self.run(b"UID FETCH 1:* (UID RFC822.SIZE)"):
            uid = re.search(rb"\bUID ([0-9]+)", response.text)
            size = re.search(rb"\bRFC822\.SIZE ([0-9]+)", response.text)
            if uid and size:
                found[int(uid[1])] = int(size[1])
        return found

    def message(self, uid: int) -> bytes:
        """The message with that UID, without making it seen; empty where it has gone meanwhile."""
        for response in self.run(b"UID FETCH %d (BODY.PEEK[])" % uid):
            if b" FETCH (" in response.text and response.literals:
                return response.literals[0]
        return b""

    def mailboxes(self) -> list[bytes]:
        """The names of all folders that can be selected, as a command has them."""
        found = [(match, one) for one in self.run(b'LIST "" "*"') if (match := _LISTED.match(one.text))]
        return [
            quoted(one.literals[-1]) if one.literals else match[2]
            for match, one in found
            if b"\\Noselect" not in match[1] and b"\\NonExistent" not in match[1]
        ]

    def search(self, criteria: bytes) -> list[int]:
        """The UIDs of the messages in the selected folder that match."""
        said = [one.text for one in self.run(b"UID SEARCH " + criteria) if one.text.startswith(b"* SEARCH")]
        return [int(uid) for text in said for uid in text.split()[2:] if uid.isdigit()]

    def exists(self, name: bytes) -> bool:
        """Whether there is a folder of that name, quoted, that can be selected."""
        return any(
            one.text.startswith(b"* LIST ") and b"\\Noselect" not in one.text and b"\\NonExistent" not in one.text
            for one in self.run(b'LIST "" ' + name)
        )

    def expunge(self, uid: int) -> None:
        """Take this message away, and no other that is marked as deleted (RFC 4315)."""
        self.run(rb"UID STORE %d +FLAGS.SILENT (\Deleted)" % uid)
        self.run(b"UID EXPUNGE %d" % uid)

    def _response(self) -> Response:
        text = b""
        literals: list[bytes] = []
        while True:
            line = self._responses.readline(_LINE_OCTETS)
            if not line.endswith(b"\n"):
                raise ServiceError("the IMAP session ended too early; Dovecot's log says why")
            text += line
            literal = _LITERAL.search(line)
            if literal is None:
                return Response(text.rstrip(b"\r\n"), tuple(literals))
            size = int(literal[1])
            data = self._responses.read(size) if size <= self._most else b""
            if len(data) < size:
                raise ServiceError("a message is larger than it was said to be, or cut short")
            literals.append(data)

    def _send(self, data: bytes) -> None:
        try:
            self._commands.write(data)
            self._commands.flush()
        except OSError as error:
            raise ServiceError(f"the IMAP session ended too early: {error.strerror}") from error


def mailbox(name: str) -> bytes:
    """A folder's name as a command has it: in modified UTF-7 (RFC 3501 section 5.1.3), and quoted."""

    def shifted(match: re.Match[str]) -> str:
        encoded = base64.b64encode(match[0].encode("utf-16-be")).decode().rstrip("=")
        return f"&{encoded.replace('/', ',')}-"

    return quoted(_NOT_PLAIN.sub(shifted, name.replace("&", "&-")).encode("ascii"))


def quoted(text: bytes) -> bytes:
    """A quoted string (RFC 9051 section 4.3)."""
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", text) + b'"'
