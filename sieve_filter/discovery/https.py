"""Gets one small file over HTTPS, from servers that prove who they are, within limits."""

import http.client
import re
import socket
import ssl
from urllib.parse import urljoin, urlsplit

from sieve_filter import limits
from sieve_filter.errors import NoSuchHostError, ServiceError

_KIND = "application/octet-stream"
_MOVED = (301, 302, 303, 307, 308)  # RFC 9110 section 15.4
_ABSENT = (404, 410)
_SENT = re.compile(r"[!-~]+")


def get(url: str) -> bytes | None:
    """The content at `url`, of the type application/octet-stream; None where the server says that there is none.

    Takes as long as it takes: the caller sets an alarm. Raises NoSuchHostError where no such host exists, and
    ServiceError where it cannot be reached, cannot prove who it is, redirects to where it must not, or answers with
    something else or something larger than limits.FETCH_OCTETS.
    """
    for hop in range(limits.FETCH_REDIRECTS + 1):
        try:
            answer = _get(url)
        except NoSuchHostError as error:
            raise error if hop == 0 else ServiceError(f"it redirects to a host that does not exist: {error}") from error
        if not isinstance(answer, _Elsewhere):
            return answer
        try:
            url = urljoin(url, answer)
            urlsplit(url)
        except ValueError as error:
            raise ServiceError(f"{_name(url)} redirects to something that is not a URL") from error
    raise ServiceError(f"{_name(url)} redirects more than {limits.FETCH_REDIRECTS} times")


class _Elsewhere(str):
    """Where a server redirects to."""


def _get(url: str) -> bytes | _Elsewhere | None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username is not None or not _SENT.fullmatch(url):
        raise ServiceError(f"it is not followed to {_name(url)}: only https:// will do")
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=limits.FETCH_SECONDS, context=ssl.create_default_context()
        )
        try:
            connection.request("GET", target, headers={"Accept": _KIND, "User-Agent": "cryptomail"})
            return _answer(connection.getresponse(), url)
        finally:
            connection.close()
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            raise NoSuchHostError(f"there is no host {parts.hostname}") from error
        raise ServiceError(f"cannot find {parts.hostname}: {error.strerror}") from error
    except ssl.SSLCertVerificationError as error:
        raise ServiceError(f"{parts.hostname} cannot prove who it is: {error.verify_message}") from error
    except TimeoutError as error:
        raise ServiceError(f"{parts.hostname} did not answer within {limits.FETCH_SECONDS} seconds") from error
    except OSError as error:
        raise ServiceError(f"cannot reach {parts.hostname}: {error.strerror or error}") from error
    except (http.client.HTTPException, ValueError) as error:
        raise ServiceError(f"{parts.hostname} does not speak HTTP: {type(error).__name__}") from error


def _answer(response: http.client.HTTPResponse, url: str) -> bytes | _Elsewhere | None:
    if response.status in _ABSENT:
        return None
    if response.status in _MOVED:
        return _Elsewhere(response.headers.get("Location", ""))
    if response.status != http.client.OK:
        raise ServiceError(f"{_name(url)} answers with status {response.status}")
    kind = response.headers.get_content_type()
    if kind != _KIND:
        raise ServiceError(f"{_name(url)} answers with {kind[:60]}, and not with {_KIND}: it is not a key")
    content = response.read(limits.FETCH_OCTETS + 1)
    if len(content) > limits.FETCH_OCTETS:
        raise ServiceError(f"{_name(url)} answers with more than {limits.FETCH_OCTETS} octets")
    return content


def _name(url: str) -> str:
    """A URL as it may be shown in a line."""
    return url[:200]
