"""Writes Sieve scripts (RFC 5228) that encrypt to the key they carry, and puts them into an owner's own script. Pure.

What is put in is a block between two comments, behind the script's `require` commands: it holds a `require` of its own,
so that the rest of the script is never touched, and is as it was when the block is taken out again.
"""

import base64
import re
from collections.abc import Iterator
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import RefusedKeyError, ScriptError

BEGIN = "# BEGIN cryptomail"
END = "# END cryptomail"
EXTENSIONS = ("vnd.dovecot.filter", "fileinto", "mailbox")

_BLOCK = """\
{begin}: made by `cryptomail sieve-script`, which can replace and remove it. Leave it whole, and other rules outside.
# Encrypts my mail to my OpenPGP key {fingerprint}.
# What cannot be encrypted is not stored; its sender's server tries again later.
require [{extensions}];
{rule}
{end}
"""
_RULE = """\
if not filter "cryptomail" [
    {arguments}
] {{
    fileinto :create "cryptomail-tempfail/x";
    stop;
}}"""

_LISTS = ('exists ["List-Id"]', 'header :is "Precedence" ["list", "bulk"]')
_SPAM = ('header :is "X-Spam-Flag" "YES"', 'header :matches "X-Spam-Status" "Yes*"', 'header :is "X-Spam" "Yes"')

# RFC 5228 section 8.1. A `text:` ends at a line with one dot.
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    |(?P<comment>\#[^\n]*\n?|/\*.*?\*/)
    |(?P<text>text:[ \t]*(?:\#[^\n]*)?\r?\n.*?^\.\r?(?:\n|\Z))
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<broken>"|/\*|text:)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<end>;)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)


class Choices(NamedTuple):
    """What is not to be encrypted, and the filter's options that come before the key."""

    exclude_lists: bool = False
    exclude_spam: bool = False
    options: tuple[str, ...] = ()


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


def pieces(certificate: bytes) -> tuple[str, ...]:
    """`certificate` (binary) in base64, in arguments that Pigeonhole takes. Raises RefusedKeyError where it is long."""
    text = base64.b64encode(certificate).decode("ascii")
    most = limits.KEYDATA_ARGUMENTS * limits.SIEVE_ARGUMENT_OCTETS
    if len(text) > most:
        raise RefusedKeyError(
            f"the key has {len(text)} characters of base64, and a script takes {most}: make a smaller one, with an"
            " elliptic curve and one encryption subkey (gpg --quick-gen-key ADDRESS future-default)"
        )
    size = limits.SIEVE_ARGUMENT_OCTETS
    return tuple(text[start : start + size] for start in range(0, len(text), size))


def block(certificate: bytes, fingerprint: str, choices: Choices) -> str:
    """A Sieve script, between the two comments, that encrypts to `certificate` (binary), and fails closed.

    Raises RefusedKeyError where that does not fit into a script.
    """
    # --require: where an administrator lets something be stored in clear, this owner does not.
    arguments = ["--require", *choices.options, "--keydata", *pieces(certificate)]
    rule = _RULE.format(arguments=",\n    ".join(_quoted(one) for one in arguments))
    excluded = [*(_LISTS if choices.exclude_lists else ()), *(_SPAM if choices.exclude_spam else ())]
    if excluded:
        tests = ",\n    ".join(excluded)
        rule = f"if not anyof (\n    {tests}\n) {{\n{_indented(rule)}\n}}"
    return _BLOCK.format(
        begin=BEGIN,
        end=END,
        fingerprint=fingerprint,
        extensions=", ".join(_quoted(one) for one in EXTENSIONS),
        rule=rule,
    )


def insert(script: str, block: str) -> str:
    """`script` with `block` in it: in the place of the one that is there, else behind the `require` commands.

    Raises ScriptError where `script` is no Sieve script, or its comments do not come in pairs.
    """
    found = _find(script)
    if found is None:
        place = _behind_requires(script)
        gap = "" if place == 0 or script[place - 1] == "\n" else "\n"
        return script[:place] + gap + block + script[place:]
    return script[: found[0]] + block + script[found[1] :]


def remove(script: str) -> str | None:
    """`script` without the block; None where there is none in it. Raises ScriptError as `insert` does."""
    found = _find(script)
    return None if found is None else script[: found[0]] + script[found[1] :]


def is_empty(script: str) -> bool:
    """Whether `script` has no command: only comments and white space."""
    return not any(_meaningful(token) for token in _tokens(script))


def _find(script: str) -> tuple[int, int] | None:
    """Where the block begins and ends, if there is one."""
    marks = [token for token in _tokens(script) if token.kind == "comment" and _mark(token)]
    if not marks:
        return None
    if [_mark(token) for token in marks] != [BEGIN, END]:
        raise ScriptError(f"the script must have one line {BEGIN!r} and one {END!r} behind it: mend it by hand")
    return marks[0].start, marks[1].end


def _mark(comment: _Token) -> str:
    return next((one for one in (BEGIN, END) if re.match(re.escape(one) + r"(?![^\s:])", comment.text)), "")


def _behind_requires(script: str) -> int:
    """Where the first line begins that is behind all `require` commands (RFC 5228 section 3.2: they come first)."""
    place = 0
    requiring = False
    line_ends = True
    for token in _tokens(script):
        if requiring:
            requiring = token.kind != "end"
            place, line_ends = token.end, False
        elif not _meaningful(token):
            # What is on the rest of the line belongs to the command before it.
            if not line_ends:
                newline = token.text.find("\n")
                place = token.end if newline < 0 else token.start + newline + 1
                line_ends = newline >= 0
        elif token.kind == "word" and token.text.lower() == "require":
            requiring = True
        else:
            break
    if requiring:
        raise ScriptError("the script ends within a require command")
    return place


def _meaningful(token: _Token) -> bool:
    return token.kind not in ("space", "comment")


def _tokens(script: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(script):
        kind = match.lastgroup or ""
        if kind == "broken":
            line = script.count("\n", 0, match.start()) + 1
            raise ScriptError(f"line {line} of the script begins a string or comment that does not end: mend it")
        yield _Token(kind, match[0], match.start(), match.end())


def _quoted(text: str) -> str:
    """RFC 5228 section 2.4.2."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
