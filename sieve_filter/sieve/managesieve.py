"""Talks ManageSieve (RFC 5804) to an owner's mail server, by sievelib: over TLS only, and only to who the name says."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from sieve_filter import limits
from sieve_filter.errors import FileError, LoginError, ScriptError, ServiceError

PORT = 4190
_SECONDS = 60  # for each answer

_T = TypeVar("_T")


class Active(NamedTuple):
    """The script that is active now: `name` is None where there is none; `others` are the names of the rest."""

    name: str | None
    others: tuple[str, ...]


class Session:
    """A login on a server. Each method raises ServiceError where the server refuses, or has gone."""

    def __init__(self, client: Any, server: str) -> None:
        self._client = client
        self._server = server

    def active(self) -> Active:
        """Which script is active."""
        listing = self._ask(self._client.listscripts, "does not list the scripts", lambda answer: answer is not None)
        return Active(listing[0], tuple(listing[1]))

    def extensions(self) -> frozenset[str]:
        """The Sieve extensions that the server has (section 1.7), as it says."""
        return frozenset(self._ask(self._client.get_sieve_capabilities, "does not say what it can"))

    def get(self, name: str) -> str:
        """The text of a script, with LF for line ends. Raises ScriptError where it is not UTF-8."""

        def ask() -> str | None:
            try:
                text: str | None = self._client.getscript(name)
            except UnicodeDecodeError:
                raise ScriptError(f"the script {name!r} is not UTF-8: mend it by hand") from None
            return text

        script = self._ask(ask, f"does not give the script {name!r}", lambda got: got is not None) or ""
        # sievelib takes the script for lines, and does not tell how many empty ones its end is.
        return f"{script.rstrip()}\n" if script.strip() else ""

    def check(self, script: str) -> None:
        """Have the server compile `script`, and keep nothing. One that cannot is not asked."""
        try:
            self._ask(lambda: self._client.checkscript(script), "does not take the script")
        except NotImplementedError:
            return

    def put(self, name: str, script: str) -> None:
        """Store `script` under `name`. Where it is the active one, it takes effect."""
        self._ask(lambda: self._client.putscript(name, script), f"does not take the script {name!r}")

    def activate(self, name: str) -> None:
        """Make a script the active one; none where `name` is empty."""
        self._ask(lambda: self._client.setactive(name), f"does not activate the script {name!r}")

    def delete(self, name: str) -> None:
        """Delete a script that is not active."""
        self._ask(lambda: self._client.deletescript(name), f"does not delete the script {name!r}")

    def _ask(self, question: Callable[[], _T], refusal: str, is_yes: Callable[[_T], bool] = bool) -> _T:
        with _explained(self._server):
            answer = question()
        if not is_yes(answer):
            raise ServiceError(f"{self._server} {refusal}: {_reason(self._client)}")
        return answer


@contextmanager
def login(host: str, port: int, user: str, password: str, ca_file: str | None) -> Iterator[Session]:
    """A session at `host`, until the block ends. `ca_file` (PEM) is trusted in place of the system's authorities.

    Raises ServiceError where there is no server, or it cannot show by its certificate that it is `host`; LoginError
    where it does not take user and password, which it gets only over TLS.
    """
    import socket

    from sievelib import managesieve

    class _Client(managesieve.Client):  # type: ignore[misc]  # sievelib has no types
        read_size = 1  # what came before TLS must not be taken for an answer within: nothing is read ahead
        read_timeout = _SECONDS

    if ca_file is not None:
        if not os.access(ca_file, os.R_OK):
            raise FileError(f"cannot read {ca_file}")
        # What ssl.create_default_context() of sievelib trusts; it has no other way to be told.
        os.environ |= {"SSL_CERT_FILE": ca_file, "SSL_CERT_DIR": os.devnull}
    managesieve.Client.read_timeout = _SECONDS  # sievelib looks at this one
    socket.setdefaulttimeout(_SECONDS)  # for connecting
    server = f"the ManageSieve server {host}"
    client = _Client(host, port)
    with _explained(server):
        done = client.connect(user, password, starttls=True)
    if not done:
        raise LoginError(f"{server} does not let {user} in: {_reason(client)}")
    try:
        yield Session(client, server)
    finally:
        with suppress(managesieve.Error, OSError):  # what was done is done
            client.logout()


@contextmanager
def _explained(server: str) -> Iterator[None]:
    """Turn what sievelib and the system raise into one line."""
    import ssl

    from sievelib import managesieve

    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise ServiceError(f"{server} cannot prove who it is: {error.verify_message}; --ca-file?") from error
    except (managesieve.Error, OSError) as error:
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.partition("verify failed: ")[2].partition(" (_ssl")[0]
            raise ServiceError(f"{server} cannot prove who it is: {why}; --ca-file?") from error
        if "STARTTLS" in text:
            raise ServiceError(f"{server} has no TLS: nothing was sent to it") from error
        raise ServiceError(f"{server}: {text}") from error
    except (IndexError, KeyError, TypeError, ValueError) as error:  # sievelib relies on the form of what it reads
        raise ServiceError(f"{server} does not speak ManageSieve: {type(error).__name__}") from error


def _reason(client: Any) -> str:
    """What the server said, in one line."""
    text = client.errmsg.decode("utf-8", "replace")
    return " ".join(text[: limits.SERVICE_ANSWER_CHARACTERS].split()) or "it does not say why"
