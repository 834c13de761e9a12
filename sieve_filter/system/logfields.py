"""Log lines of `key=value` pairs, which programs can take apart again whatever is in a value. Pure."""

import re

_PLAIN = r"[!#-<>-\[\]-~]+"  # what can stand by itself: ASCII that is seen, but for `"`, `=` and the backslash
_SPECIAL = r"[^ !#-\[\]-~]"


def line(**fields: object) -> str:
    """The pairs in their order, one blank between them; ASCII only, and one line.

    A value that is empty, or has anything in it that could be taken for something else, is written as JSON writes text.
    """
    return " ".join(f"{name}={_written(str(value))}" for name, value in fields.items())


def _written(value: str) -> str:
    if re.fullmatch(_PLAIN, value):
        return value
    return '"' + re.sub(_SPECIAL, _escaped, value) + '"'


def _escaped(match: "re.Match[str]") -> str:
    """A character as JSON escapes it (RFC 8259 section 7)."""
    char = match[0]
    if char in '"\\':
        return f"\\{char}"
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
