"""A private LMTP service that answers what it is told to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRWPair
from tempfile import TemporaryDirectory

MESSAGE = (
    b"Return-Path: <b@example.com>\r\nDelivered-To: alice@example.org\r\nReceived: by us\r\n"
    b"Delivered-To: list@example.net\r\nSubject: hello\r\n\r\nThe text.\r\n"
)
GOOD = {b"LHLO": b"250 fake", b"MAIL": b"250 ok", b"RCPT": b"250 ok", b"DATA": b"354 go", b".": b"250 saved"}


class Fake:
    """An LMTP server: `said` has the commands, `taken` the message, `answers` its replies. It ends the first `hung_up`
    connections with the greeting.

    `ended` says whether the message came to its end; the answer to that comes `delay` seconds later.
    """

    def __init__(self, directory: str, answers: dict[bytes, bytes]) -> None:
        self.path = f"{directory}/lmtp"
        self.said: list[bytes] = []
        self.taken = b""
        self.ended = False
        self.delay = 0.0
        self.hung_up = 0
        self._answers = answers
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._serve_until_closed, daemon=True).start()

    def _serve_until_closed(self) -> None:
        with suppress(OSError):
            while True:
                self._serve()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        # The client does not wait for the answer to QUIT.
        with suppress(ConnectionError), connection, connection.makefile("rwb") as stream:
            stream.write(b"220 fake\r\n")
            stream.flush()
            if self.hung_up > 0:
                self.hung_up -= 1
                return
            while line := stream.readline():
                self.said.append(line.rstrip(b"\r\n"))
                if not self._answer(stream, line.split()[0].upper()):
                    return

    def _answer(self, stream: BufferedRWPair, command: bytes) -> bool:
        answer = self._answers.get(command, b"221 bye")
        if answer:
            stream.write(answer + b"\r\n")
            stream.flush()
        if command == b"DATA" and answer.startswith(b"354"):
            while (line := stream.readline()) not in (b".\r\n", b""):
                self.taken += line.removeprefix(b".")
            self.ended = line == b".\r\n"
            time.sleep(self.delay)
            return self._answer(stream, b".")
        return bool(answer)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def fake(**changed: bytes) -> Iterator[Fake]:
    answers = GOOD | {b"." if name == "end" else name.encode(): answer for name, answer in changed.items()}
    with TemporaryDirectory() as directory:
        server = Fake(directory, answers)
        try:
            yield server
        finally:
            server.close()


ENVELOPE = {"SENDER": "b@example.com", "RECIPIENT": "alice+x@example.org", "ORIG_RECIPIENT": "other+y@example.org"}
