"""The sending mail server: it keeps a message until it is told 2xx for it, and it writes down what it was told."""

import base64
import re
import secrets
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from lab.client import Lab, Reply

SENDER = "sender@example.com"
BROKEN = 0  # the code of a reply that never came


@dataclass(slots=True)
class Sent:
    """A message with a canary in its Subject and in every line of its body, and the answer that it got.

    It last was under way from `began` to `ended`, on the monotonic clock.
    """

    number: int
    raw: bytes
    answer: Reply = field(default_factory=lambda: Reply(BROKEN, "not sent"))
    began: float = 0
    ended: float = 0

    @property
    def accepted(self) -> bool:
        return 200 <= self.answer.code < 300


@dataclass(frozen=True, slots=True)
class Canaries:
    """Two words that occur nowhere else: one for bodies, one for Subjects. Each is followed by the message's number."""

    body: str
    subject: str

    @classmethod
    def new(cls) -> Self:
        return cls(f"canary{secrets.token_hex(16)}n", f"subject{secrets.token_hex(16)}n")

    def messages(self, count: int, size: int) -> list[Sent]:
        return [Sent(number, self._message(number, size)) for number in range(count)]

    def _message(self, number: int, size: int) -> bytes:
        head = (
            f"From: {SENDER}\r\nTo: somebody@example.org\r\nSubject: {self.subject}{number:04}\r\n"
            f"Message-ID: <{secrets.token_hex(8)}@example.com>\r\n\r\n"
            f"{self.body}{number:04}\r\n.a line with a dot\r\n"
        )
        # Random, so that compression does not make a large message a small one.
        lines = [f"{self.body}{number:04} {base64.b64encode(secrets.token_bytes(900)).decode()}\r\n" for _ in range(64)]
        block = "".join(lines[: 1 + size // 1000]).encode()
        times = max(1, (size - len(head)) // len(block))
        return head.encode() + block * times + b"8-bit: \xff\xfe\r\n"


class Connection:
    """An LMTP connection. Where it breaks, or nothing comes for `patience` seconds, an OSError or ValueError."""

    def __init__(self, address: tuple[str, int], patience: float) -> None:
        self._socket = socket.create_connection(address, timeout=patience)
        self._stream = self._socket.makefile("rwb")
        try:
            self._reply()
            self._command("LHLO client.example.com")
        except (OSError, ValueError):
            self.close()
            raise

    def deliver(self, recipient: str, raw: bytes) -> Reply:
        answer = self.announce(recipient)
        if answer.code != 354:
            self._command("RSET")
            return answer
        self._stream.write(re.sub(rb"(?m)^\.", b"..", raw) + b".\r\n")
        self._stream.flush()
        return self._reply()

    def break_off(self, recipient: str, raw: bytes) -> None:
        """Send half of the message, and hang up."""
        self.announce(recipient)
        self._stream.write(raw[: len(raw) // 2])
        self._stream.flush()
        self.close()

    def announce(self, recipient: str) -> Reply:
        """Everything before the message. Returns 354, or why there is no need to send it."""
        for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{recipient}>"):
            answer = self._command(command)
            if answer.code != 250:
                return answer
        return self._command("DATA")

    def close(self) -> None:
        for half in (self._stream, self._socket):
            with suppress(OSError):  # about what was still to be written
                half.close()

    def _command(self, text: str) -> Reply:
        self._stream.write(text.encode() + b"\r\n")
        self._stream.flush()
        return self._reply()

    def _reply(self) -> Reply:
        while (line := self._stream.readline())[3:4] == b"-":
            pass
        if not line:
            raise ConnectionResetError("the server closed the connection")
        return Reply(int(line[:3]), line[4:].decode(errors="replace").rstrip())


def deliver(lab: Lab, recipient: str, messages: Sequence[Sent], connections: int, patience: float) -> None:
    """Deliver all messages over so many connections at once, and write the answers into them."""
    with ThreadPoolExecutor(connections) as pool:
        shares = [messages[first::connections] for first in range(connections)]
        list(pool.map(lambda share: _deliver_in_turn(lab, recipient, share, patience), shares))


def _deliver_in_turn(lab: Lab, recipient: str, messages: Sequence[Sent], patience: float) -> None:
    connection = None
    for sent in messages:
        sent.began = time.monotonic()
        try:
            connection = connection or Connection(lab.lmtp, patience)
            sent.answer = connection.deliver(recipient, sent.raw)
        except (OSError, ValueError) as error:
            sent.answer = Reply(BROKEN, f"connection broken: {error}")
            if connection is not None:
                connection.close()
            connection = None
            time.sleep(0.2)  # for a server that is just starting
        sent.ended = time.monotonic()
    if connection is not None:
        connection.close()
