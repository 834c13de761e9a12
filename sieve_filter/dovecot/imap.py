"""Speaks IMAP (RFC 9051) over two streams, as far as looking after a folder needs it: bytes in, bytes out.

`doveadm exec imap` gives a session that has a user already on its standard input and output. There is no time limit
here, so whoever starts a session also ends it.
"""

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, NamedTuple

from sieve_filter.errors import ImapRefusalError, ServiceError

_LITERAL = re.compile(rb"\{([0-9]{1,10})\}\r?\n\Z")
_LINE_OCTETS = 100_000  # what Dovecot takes from a client, too
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]+")
_STRING = rb'"((?:[^"\\]|\\.)*)"'
_LISTED = re.compile(rb"\* LIST \(([^)]*)\) (?:NIL|" + _STRING + rb") (.+)\Z", re.DOTALL)
_SHIFTED = re.compile(r"&([A-Za-z0-9+,]*)-")
_TOKEN = re.compile(rb"[()]|NIL|" + _STRING)
_CODE = re.compile(rb"(?:NO|BAD) \[([A-Z-]+)")


class Response(NamedTuple):
    """A response's text, line end off, and the literals in it, which are marked there as {octets}."""

    text: bytes
    literals: tuple[bytes, ...]


class Listed(NamedTuple):
    """A folder that can be selected: its name as a command has it, and its attributes in lower case (RFC 6154)."""

    name: bytes
    attributes: frozenset[bytes]
    separator: bytes


class Selected(NamedTuple):
    """A folder that is selected: of what its UIDs are, and which of these comes next (RFC 9051 section 2.3.1.1)."""

    uid_validity: int
    uid_next: int


class Draft(NamedTuple):
    """A message that is to be saved: its flags, its date as IMAP writes it, how many octets it has, and these; `binary`
    where NUL is among them, which takes a server with BINARY (RFC 3516).
    """

    flags: Iterable[bytes]
    date: bytes
    size: int
    pieces: Iterable[bytes]
    binary: bool = False


class Session:
    """One session. Every method raises ServiceError where the server refuses, or is gone."""

    def __init__(
        self, responses: IO[bytes], commands: IO[bytes], most: int, greeting: bytes | None = b"PREAUTH"
    ) -> None:
        """`most` is how many octets a literal may have, `greeting` how the server has to begin, if it does."""
        self._responses = responses
        self._commands = commands
        self._most = most
        self._number = 0
        if greeting is not None and not self._response().text.startswith(b"* " + greeting):
            raise ServiceError("the server gives no IMAP session; its log says why")

    def run(self, command: bytes, literal: bytes | None = None) -> list[Response]:
        """What the server answers to `command`, to which `literal` may be added (RFC 9051 section 4.3)."""
        if literal is None:
            return list(self.ask(command))
        return list(self.ask(command + b" {%d}" % len(literal), [literal]))

    def ask(self, command: bytes, continuations: Sequence[bytes] = ()) -> Iterator[Response]:
        """What the server answers to `command`, as it comes; all of it has to be taken before the next command.

        `continuations` are sent when the server asks to go on. Raises ImapRefusalError where it says no.
        """
        tag = self._tag()
        self._send(tag + b" " + command + b"\r\n")
        waiting = list(continuations)
        for response in self._answers(tag, command):
            if response.text.startswith(b"+") and waiting:
                self._send(waiting.pop(0) + b"\r\n")
            else:
                yield response

    def select(self, name: bytes) -> Selected:
        """Select the folder of that name, quoted, to change it."""
        said = b"\n".join(one.text for one in self.run(b"SELECT " + name))
        numbers = {key: int(value) for key, value in re.findall(rb"\[(UIDVALIDITY|UIDNEXT) ([0-9]+)\]", said)}
        return Selected(numbers.get(b"UIDVALIDITY", 0), numbers.get(b"UIDNEXT", 1))

    def append(
        self, name: bytes, drafts: Sequence[Draft], at_once: bool, meanwhile: Callable[[], None] = lambda: None
    ) -> list[int]:
        """Save messages in the folder of that name, quoted: all, or none (RFC 3502). Returns their UIDs (RFC 4315).

        With `at_once`, the server is not asked before each whether it takes it (LITERAL+ in RFC 7888). `meanwhile` is
        called while it saves them.
        """
        tag = self._tag()
        self._send(tag + b" APPEND " + name, more=True)
        for draft in drafts:
            end = b"+}\r\n" if at_once else b"}\r\n"
            start = b"~{" if draft.binary else b"{"
            head = b' (%b) "%b" %b%d%b' % (b" ".join(draft.flags), draft.date, start, draft.size, end)
            self._send(head, more=at_once)
            if not at_once:
                while not (response := self._response()).text.startswith(b"+"):
                    self._check(tag, response, b"APPEND")
            for piece in draft.pieces:
                self._send(piece, more=True)
        self._send(b"\r\n")
        meanwhile()
        done = list(self._answers(tag, b"APPEND"))[-1].text
        match = re.search(rb"\[APPENDUID [0-9]+ ([0-9:,]+)\]", done)
        return uids(match[1]) if match else []

    def capabilities(self) -> frozenset[bytes]:
        """What the server can do (RFC 9051 section 7.2.2), in upper case."""
        said = [one.text for one in self.run(b"CAPABILITY") if one.text.startswith(b"* CAPABILITY ")]
        return frozenset(word.upper() for text in said for word in text.split()[2:])

    def prefix(self) -> str:
        """The prefix of the user's own folders (RFC 2342), which mostly is empty."""
        own, _ = self.namespaces()
        return own[0].decode("ascii", "replace") if own else ""

    def namespaces(self) -> tuple[list[bytes], list[bytes]]:
        """The prefixes of the user's own folders, and those of other people's and public ones (RFC 2342)."""
        for response in self.run(b"NAMESPACE"):
            if response.text.startswith(b"* NAMESPACE "):
                own, *others = _prefixes(response.text)
                return own, [prefix for kind in others for prefix in kind]
        return [], []

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
        return [one.name for one in self.listing()]

    def listing(self, returned: bytes = b"") -> list[Listed]:
        """All folders that can be selected; `returned` is what else the server is to tell of them (RFC 5258)."""
        found: list[Listed] = []
        for one in self.run(b'LIST "" "*"' + returned):
            if match := _LISTED.match(one.text):
                attributes = frozenset(match[1].lower().split())
                name = quoted(one.literals[-1]) if one.literals else match[3]
                if not attributes & {b"\\noselect", b"\\nonexistent"}:
                    found.append(Listed(name, attributes, unquoted(match[2] or b"")))
        return found

    def search(self, criteria: bytes) -> list[int]:
        """The UIDs of the messages in the selected folder that match."""
        said = [one.text for one in self.run(b"UID SEARCH " + criteria) if one.text.startswith(b"* SEARCH")]
        return [int(uid) for text in said for uid in text.split()[2:] if uid.isdigit()]

    def status(self, name: bytes) -> dict[bytes, int]:
        """How many messages a folder has, quoted (MESSAGES), and which UID comes next (UIDNEXT)."""
        for response in self.run(b"STATUS " + name + b" (MESSAGES UIDNEXT)"):
            if response.text.startswith(b"* STATUS "):
                words = response.text.rpartition(b"(")[2].rstrip(b")").split()
                return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=False)}
        return {}

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

    def _tag(self) -> bytes:
        self._number += 1
        return b"c%d" % self._number

    def _answers(self, tag: bytes, command: bytes) -> Iterator[Response]:
        while not (response := self._response()).text.startswith(tag + b" "):
            yield response
        self._check(tag, response, command)
        yield response

    def _check(self, tag: bytes, response: Response, command: bytes) -> None:
        """Raise ImapRefusalError where that is the end of the command, and it was refused."""
        answer = response.text.removeprefix(tag + b" ")
        if answer != response.text and not answer.startswith(b"OK"):
            code = _CODE.match(answer)
            said = answer.decode("utf-8", "replace")
            raise ImapRefusalError(
                f"IMAP {command.split()[0].decode()} was refused: {said[:200]}", code[1].decode() if code else ""
            )

    def _response(self) -> Response:
        text = b""
        literals: list[bytes] = []
        while True:
            try:
                line = self._responses.readline(_LINE_OCTETS)
            except OSError as error:  # a time limit of the connection, too
                raise ServiceError(f"the IMAP session ended too early: {error}") from error
            if not line.endswith(b"\n"):
                raise ServiceError("the IMAP session ended too early; the server's log says why")
            text += line
            literal = _LITERAL.search(line)
            if literal is None:
                return Response(text.rstrip(b"\r\n"), tuple(literals))
            size = int(literal[1])
            data = self._responses.read(size) if size <= self._most else b""
            if len(data) < size:
                raise ServiceError("a message is larger than it was said to be, or cut short")
            literals.append(data)

    def _send(self, data: bytes, more: bool = False) -> None:
        """Send `data`, at the latest when it is not said any longer that there is `more`."""
        try:
            self._commands.write(data)
            if not more:
                self._commands.flush()
        except OSError as error:
            raise ServiceError(f"the IMAP session ended too early: {error.strerror}") from error


def _prefixes(text: bytes) -> list[list[bytes]]:
    """The prefixes in an answer to NAMESPACE, of each of the three kinds: each is NIL or a list of lists."""
    kinds: list[list[bytes]] = [[], [], []]
    kind, depth, first = -1, 0, False
    for token in _TOKEN.finditer(text):
        kind += depth == 0 and token[0] != b")"
        depth += {b"(": 1, b")": -1}.get(token[0], 0)
        if token[0] == b"(":
            first = depth == 2
        elif first and token[1] is not None and kind < len(kinds):
            kinds[kind].append(unquoted(token[1]))
            first = False
    return kinds


def mailbox(name: str) -> bytes:
    """A folder's name as a command has it: in modified UTF-7 (RFC 3501 section 5.1.3), and quoted."""

    def shifted(match: re.Match[str]) -> str:
        encoded = base64.b64encode(match[0].encode("utf-16-be")).decode().rstrip("=")
        return f"&{encoded.replace('/', ',')}-"

    return quoted(_NOT_PLAIN.sub(shifted, name.replace("&", "&-")).encode("ascii"))


def label(name: bytes) -> str:
    """A folder's name for people, from that in a command: see `mailbox`."""
    text = (unquoted(name[1:-1]) if name.startswith(b'"') else name).decode("utf-8", "backslashreplace")

    def shifted(match: re.Match[str]) -> str:
        encoded = match[1].replace(",", "/")
        try:
            return base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode("utf-16-be") if encoded else "&"
        except ValueError:
            return match[0]

    return _SHIFTED.sub(shifted, text)


def quoted(text: bytes) -> bytes:
    """A quoted string (RFC 9051 section 4.3)."""
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", text) + b'"'


def uids(text: bytes) -> list[int]:
    """The UIDs in a sequence-set (RFC 9051 section 9), in their order."""
    found: list[int] = []
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        found += range(int(first), int(last or first) + 1)
    return found


def sequence(numbers: Iterable[int]) -> bytes:
    """A sequence-set of these UIDs, as short as it can be."""
    parts: list[list[int]] = []
    for one in sorted(numbers):
        if parts and one <= parts[-1][1] + 1:
            parts[-1][1] = one
        else:
            parts.append([one, one])
    return b",".join(b"%d" % first if first == last else b"%d:%d" % (first, last) for first, last in parts)


def unquoted(text: bytes) -> bytes:
    """What is between the quotes of a quoted string."""
    return re.sub(rb"\\(.)", rb"\1", text)
