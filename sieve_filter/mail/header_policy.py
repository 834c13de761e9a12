"""Header confidentiality policies: which header fields stay readable outside. Pure.

RFC 9788 section 3.2 describes a policy as a function from a header field to what is shown of it.
"""

from collections.abc import Callable, Mapping

from sieve_filter.mail.message import Field

# A policy answers the visible value of a field: unchanged (True), hidden (False), or other bytes in its place.
Policy = Callable[[Field], bool | bytes]

OBSCURED = b"[...]"  # RFC 9788 section 3.2.2

# Outlook repeats the Subject in Thread-Topic: hiding one without the other hides nothing.
_REMOVED = frozenset({b"comments", b"keywords", b"thread-topic"})


def no_confidentiality(field: Field) -> bool | bytes:
    """RFC 9788 section 3.2.1: everything stays visible."""
    return True


def baseline(field: Field) -> bool | bytes:
    """RFC 9788 section 3.2.2: Subject becomes `[...]`; Comments, Keywords and Thread-Topic go."""
    if field.name == b"subject":
        return OBSCURED
    return field.name not in _REMOVED


def shy(field: Field) -> bool | bytes:
    """RFC 9788 section 3.2.3: as `baseline`; of From, To and Cc only addresses stay, and Date is shown in UTC.

    Such a field that cannot be read is hidden.
    """
    read = _READ_BY_SHY.get(field.name)
    if read is None:
        return baseline(field)
    try:
        return read(field.value)
    except Exception:  # Python's email.utils raises whatever a sender can provoke, RecursionError for one
        return False


def _addresses(value: bytes) -> bool | bytes:
    """The bare addresses of an address list; False (hidden) where none can be told from the display names."""
    from email.utils import getaddresses  # only this policy pays for the import

    pairs = getaddresses([value.decode("utf-8", "surrogateescape")])
    found = [address for _, address in pairs if "@" in address]
    return ", ".join(found).encode("utf-8", "surrogateescape") or False


def _utc(value: bytes) -> bool | bytes:
    """A date-time of RFC 5322 section 3.3 in UTC. Raises an error where it is none."""
    from datetime import UTC
    from email.utils import format_datetime, parsedate_to_datetime

    return format_datetime(parsedate_to_datetime(value.decode("ascii")).astimezone(UTC)).encode("ascii")


_READ_BY_SHY = {b"from": _addresses, b"to": _addresses, b"cc": _addresses, b"date": _utc}

POLICIES: Mapping[str, Policy] = {
    "no_confidentiality": no_confidentiality,
    "baseline": baseline,
    "shy": shy,
}
