"""A sending mail server that has always another message: LMTP over some connections at once, for a while."""

import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

_PATIENCE = 120
TOLERATED = 20


class Burst(NamedTuple):
    """What came of a burst: messages a second over all connections, the seconds that each message took, and how many
    more were refused for now.
    """

    rate: float
    seconds: Sequence[float]
    refused: int


class RefusedError(Exception):
    """The server did not take a message, or too many of them."""


def burst(address: tuple[str, int], recipients: Sequence[Iterator[str]], message: bytes, seconds: float) -> Burst:
    """Send `message` again and again for so many seconds, over a connection for each of the `recipients`, which says
    who is next; several may share one.

    The rate is the sum of the connections' own: none of them is charged for the wait for the last one's last message.
    Raises RefusedError where the server refuses a message for good, or one in TOLERATED for now.
    """
    payload = re.sub(rb"(?m)^\.", b"..", message) + b".\r\n"
    with ThreadPoolExecutor(len(recipients)) as pool:
        runs = list(pool.map(lambda whose: _send(address, whose, payload, seconds), recipients))
    taken = [one for run in runs for one in run.seconds]
    refused = sum(run.refused for run in runs)
    if not taken or refused * TOLERATED > len(taken):
        raise RefusedError(f"{refused} messages were refused, {len(taken)} taken")
    return Burst(sum(run.rate for run in runs), taken, refused)


def _send(address: tuple[str, int], recipients: Iterator[str], payload: bytes, seconds: float) -> Burst:
    with socket.create_connection(address, timeout=_PATIENCE) as connection, connection.makefile("rb") as replies:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def expect(*codes: bytes) -> bool:
            """Whether the reply is the first of these; it has to be one of them."""
            while (line := replies.readline())[3:4] == b"-":
                pass
            if not line.startswith(codes):
                raise RefusedError(line.decode(errors="replace").strip() or "the server closed the connection")
            return line.startswith(codes[0])

        expect(b"220")
        connection.sendall(b"LHLO bench.example.com\r\n")
        expect(b"250")
        taken: list[float] = []
        refused = 0
        began = started = time.perf_counter()
        end = started + seconds
        while started < end:
            envelope = f"MAIL FROM:<sender@example.com>\r\nRCPT TO:<{next(recipients)}>\r\nDATA\r\n"
            connection.sendall(envelope.encode())  # pipelined (RFC 2920), as Postfix and Exim do
            for code in (b"250", b"250", b"354"):
                expect(code)
            connection.sendall(payload)
            was_taken = expect(b"250", b"451")
            finished = time.perf_counter()
            if was_taken:
                taken.append(finished - started)
            else:
                refused += 1
            started = finished
        connection.sendall(b"QUIT\r\n")
        expect(b"221")
    return Burst(len(taken) / (started - began), taken, refused)
