"""Hands a message to an LMTP server (RFC 2033) on a Unix socket of this machine."""

import errno
import os
import re
import smtplib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from sieve_filter.deadline import Deadline
from sieve_filter.errors import DeliveryError, TimedOutError, UncertainError

# Until when Dovecot must have an answer, from its first word on: it waits for 180 (sealing.conf).
ANSWER_SECONDS = 170

_SECONDS = 60  # for one answer before the message, if the deadline is not sooner
_AT_ONCE = 0.001  # seconds; none would be no waiting at all
_DOT = re.compile(rb"\n\.")
_PLAIN_XTEXT = re.compile(rb"[!-*,-<>-~]")


class Envelope(NamedTuple):
    """Who sent it and who gets it; `sender` is empty for a bounce. `original_recipient` is RFC 3461's ORCPT."""

    sender: str
    recipient: str
    original_recipient: str


def envelope(environment: Mapping[str, str]) -> Envelope:
    """The envelope that Pigeonhole names in the environment; USER stands in where there is no RECIPIENT."""
    recipient = environment.get("RECIPIENT") or environment.get("USER", "")
    return Envelope(environment.get("SENDER", ""), recipient, environment.get("ORIG_RECIPIENT") or recipient)


def connect(socket_path: str) -> smtplib.LMTP:
    """A connection to the LMTP server on that socket. Raises DeliveryError."""
    try:
        try:
            return _connection(socket_path)
        except (ConnectionResetError, smtplib.SMTPServerDisconnected):  # a process that was just told to end
            return _connection(socket_path)
    except (OSError, smtplib.SMTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.EACCES:
            raise DeliveryError(
                f"cannot deliver to {socket_path}: it does not belong to user {os.geteuid()}, as whom this runs; set "
                "MAIL_USER for make install, or `user` in that unix_listener"
            ) from error
        raise DeliveryError(f"cannot deliver to {socket_path}: {error}; look at Dovecot's log") from error


def _connection(socket_path: str) -> smtplib.LMTP:
    # The name is only a greeting; smtplib would ask the DNS for one.
    return smtplib.LMTP(socket_path, local_hostname="localhost", timeout=_SECONDS)


def send(
    connected: Callable[[], smtplib.LMTP],
    to: Envelope,
    message: Iterable[bytes],
    check: Callable[[], None],
    answer_by: Deadline,
) -> None:
    """Deliver `message`, in pieces, the last of which ends a line; return when the server has taken it, and hang up.

    `connected` gives a connection, and another one, where that is possible, if the server hangs up before it was given
    anything of the message, as a process does that Dovecot has just told to end.
    `check` is called at the last moment at which the delivery can still be broken off, by raising an error. Behind it
    there is only waiting for the answer, until `answer_by`: the server may store the message whatever happens here.
    Raises DeliveryError where the server does not take it, for now or for good: it is then for the sender's server to
    know. Raises UncertainError where its answer does not come.
    """
    server = connected()
    try:
        try:
            _begin(server, to, answer_by)
        except (ConnectionError, smtplib.SMTPServerDisconnected):
            server.close()
            server = connected()
            _begin(server, to, answer_by)
        for piece in _dot_stuffed(message):
            server.send(piece)
        check()
        server.send(b".\r\n")
        _demand(2, *_last_answer(server, answer_by))
        server.putcmd("QUIT")
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise DeliveryError(f"cannot deliver over LMTP: {error}; look at Dovecot's log") from error
    finally:  # smtplib as a context manager would wait for an answer to QUIT, even when the time is over
        server.close()


def _begin(server: smtplib.LMTP, to: Envelope, answer_by: Deadline) -> None:
    """All that comes before the message."""
    original = f" ORCPT=rfc822;{_xtext(to.original_recipient)}" if to.original_recipient != to.recipient else ""
    _wait_until(min(answer_by, Deadline.after(_SECONDS)), server)
    server.command_encoding = "utf-8"
    _demand(2, *server.docmd("LHLO", server.local_hostname))
    # LMTP servers must take commands without having been waited for (RFC 2033 section 5, RFC 2920).
    server.putcmd("MAIL", f"FROM:<{to.sender}> BODY=8BITMIME")
    server.putcmd("RCPT", f"TO:<{to.recipient}>{original}")
    server.putcmd("DATA")
    for kind in (2, 2, 3):
        _demand(kind, *server.getreply())


def _last_answer(server: smtplib.LMTP, answer_by: Deadline) -> tuple[int, bytes]:
    try:
        _wait_until(answer_by, server)
        return server.getreply()
    except (OSError, smtplib.SMTPException, TimedOutError) as error:
        raise UncertainError(
            f"Dovecot did not say whether it has stored the encrypted message: {error}; it is refused and will come "
            "again, and may be there twice then"
        ) from error


def _wait_until(deadline: Deadline, server: smtplib.LMTP) -> None:
    """Wait for no answer longer than until then."""
    if server.sock is None:  # that of before, where nobody can make another
        raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
    server.sock.settimeout(max(_AT_ONCE, deadline.remaining()))


def _dot_stuffed(message: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces with a dot more at the beginning of each line that begins with one (RFC 5321 section 4.5.2)."""
    before = b"\n"
    for piece in message:
        if piece:
            yield _DOT.sub(b"\n..", before + piece)[1:]
            before = piece[-1:]


def _demand(kind: int, code: int, text: bytes) -> None:
    if code // 100 != kind:
        reply = text.decode("ascii", "replace").replace("\n", " ")
        raise DeliveryError(f"Dovecot did not take the encrypted message: {code} {reply}")


def _xtext(address: str) -> str:
    """`address` in the xtext encoding of RFC 3461 section 4."""
    octets = (bytes([octet]) for octet in address.encode("utf-8", "surrogateescape"))
    return b"".join(octet if _PLAIN_XTEXT.match(octet) else b"+%02X" % octet[0] for octet in octets).decode("ascii")
