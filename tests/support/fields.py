"""Takes log lines apart, as a program of somebody else's would that knows `key=value`."""

import json
import re

_PAIR = re.compile(r'(?<=\s)([a-z_]+)=((?:"(?:[^"\\]|\\.)*")|[^\s"=\\]+)(?=\s|$)')


def taken_apart(line: str) -> dict[str, str]:
    """The pairs in a line, behind whatever a log puts before them."""
    begun = re.search(r"(?:^|\s)[a-z_]+=", line)
    text = " " + line[begun.start() :].strip() if begun else ""
    return {name: json.loads(value) if value[0] == '"' else value for name, value in _PAIR.findall(text)}
