"""User IDs (RFC 9580 section 5.11): whose key it is, by a mail address. Pure."""

import re

_IN_BRACKETS = re.compile(r"[^<>]*<([^<>\s]+@[^<>\s]+)>")
_BARE = re.compile(r"[^<>\s]+@[^<>\s]+")


def address_in(user_id: bytes) -> str | None:
    """The address of a user ID, lower case: all of it, or what is in its only angle brackets. Else None."""
    text = user_id.decode("utf-8", "replace")
    if bracketed := _IN_BRACKETS.fullmatch(text):
        return bracketed[1].lower()
    return text.lower() if _BARE.fullmatch(text) else None
