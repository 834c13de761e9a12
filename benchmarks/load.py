"""A sending mail server that has always another message: LMTP over some connections at once, for a while."""

import re
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

_PATIENCE = 120


class Burst(NamedTuple):
    """What came of a burst: messages a second over all connections, and the seconds that each message took."""

    rate: float
    seconds: Sequence[float]


class RefusedError(Exception):
    """The server did not take a message."""


def burst(address: tuple[str, int], recipients: Sequence[str], message: bytes, seconds: float) -> Burst:
    """Send `message` again and again for so many seconds, over a connection for each of the `recipients`.

    The rate is the sum of the connections' own: none of them is charged for the wait for the last one's last message.
    """
    payload = re.sub(rb"(?m)^\.", b"..", message) + b".\r\n"
    with ThreadPoolExecutor(len(recipients)) as pool:
        runs = list(pool.map(lambda recipient: _send(address, recipient, payload, seconds), recipients))
    return Burst(sum(len(run) / sum(run) for run in runs), [one for run in runs for one in run])


def _send(address: tuple[str, int], recipient: str, payload: bytes, seconds: float) -> list[float]:
    with socket.create_connection(address, timeout=_PATIENCE) as connection, connection.makefile("rb") as replies:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def expect(code: bytes) -> None:
            while (line := replies.readline())[3:4] == b"-":
                pass
            if not line.startswith(code):
                raise RefusedError(line.decode(errors="replace").strip() or "the server closed the connection")

        expect(b"220")
        connection.sendall(b"LHLO bench.example.com\r\n")
        expect(b"250")
        envelope = f"MAIL FROM:<sender@example.com>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
        taken: list[float] = []
        started = time.perf_counter()
        end = started + seconds
        while started < end:
            connection.sendall(envelope)  # pipelined (RFC 2920), as Postfix and Exim do
            for code in (b"250", b"250", b"354"):
                expect(code)
            connection.sendall(payload)
            expect(b"250")
            finished = time.perf_counter()
            taken.append(finished - started)
            started = finished
        connection.sendall(b"QUIT\r\n")
        expect(b"221")
    return taken
