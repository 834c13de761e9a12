"""Log lines of `key=value` pairs, which programs can take apart again whatever is in a value. Pure."""

import re

_SPECIAL = r"[^ !#-\[\]-~]"  # what cannot be in text between quotes: all but ASCII that is seen, quote and backslash


def line(**fields: object) -> str:
    """The pairs in their order, one blank between them; ASCII only, and one line.

    A value that is empty, or has anything in it that could be taken for something else, is written as JSON writes text.
    """
    return " ".join([f"{name}={_written(str(value))}" for name, value in fields.items()])


def _written(value: str) -> str:
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:  # quicker than to match it
        return value if value and " " not in value and "=" not in value else f'"{value}"'
    return '"' + re.sub(_SPECIAL, _escaped, value) + '"'


def _escaped(match: "re.Match[str]") -> str:
    """A character as JSON escapes it (RFC 8259 section 7)."""
    char = match[0]
    if char in '"\\':
        return f"\\{char}"
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
