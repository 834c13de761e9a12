"""Reads what doveconf lists, of Dovecot 2.3 and 2.4, into one view of both. Pure."""

import math
import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple

# Of both versions: each passes over the other one's without a word.
SETTINGS = (
    *("base_dir", "mail_plugins", "plugin", "mail_temp_dir", "recipient_delimiter", "lmtp_user_concurrency_limit"),
    *("default_vsz_limit", "default_process_limit", "namespace", "mailbox", "service"),
    *("sieve_script", "sieve_plugins", "sieve_extensions", "sieve_global_extensions"),
    *(f"sieve_{kind}_{name}" for kind in ("filter", "execute") for name in ("bin_dir", "socket_dir", "exec_timeout")),
    "imapsieve_expunge_discarded",
)
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DEFAULT = 1 << 63  # 2.3 shows numbers above it where a service has the default


class Block(NamedTuple):
    """`kind name { ... }`: its settings, and the blocks in it."""

    kind: str
    name: str
    values: dict[str, str]
    blocks: "list[Block]"

    def all(self, kind: str) -> "list[Block]":
        return [one for one in self.blocks if one.kind == kind]

    def on(self, kind: str) -> frozenset[str]:
        """What is `yes` in the blocks of that kind: a list, as 2.4 writes it."""
        return frozenset(name for one in self.all(kind) for name, value in one.values.items() if value == "yes")


class Script(NamedTuple):
    """A Sieve script, by its path; 2.4 gives it a name."""

    name: str
    path: str


class Processes(NamedTuple):
    """What Dovecot's processes of one protocol are told; `before` are the scripts ahead of an owner's own, in the order
    in which they run, and `skipped` those that 2.3 does not reach, because there is a gap in the numbers before.
    """

    version: str
    values: dict[str, str]
    plugins: frozenset[str]
    sieve_plugins: frozenset[str]
    extensions: frozenset[str]
    global_extensions: frozenset[str]
    before: tuple[Script, ...]
    skipped: tuple[str, ...]
    root: Block

    def service(self, name: str) -> Block | None:
        return next((one for one in self.root.all("service") if one.name == name), None)

    def place(self, *parts: str) -> str:
        """The path of a socket, or of a directory of sockets: Dovecot puts its base_dir in front."""
        return posixpath.normpath(posixpath.join(self.values.get("base_dir", ""), *parts))

    def limit(self, service: Block, name: str) -> float:
        """A limit of that service, with Dovecot's default in its place where it has none of its own."""
        given = size(service.values.get(name, ""))
        return size(self.values.get(f"default_{name}", "")) if given in (0, math.inf) else given

    def saved_in(self, folder: str) -> tuple[str, ...]:
        """The IMAPSieve scripts that run for what is saved in that folder, whatever its namespace's prefix."""
        if self.version == "2.4":
            boxes = [one for one in _every(self.root, "mailbox") if _is_folder(one.name.strip('"'), folder)]
            return tuple(script.values.get("path", "") for box in boxes for script in box.all("sieve_script"))
        numbers = 1
        found = []
        while (name := self.values.get(f"imapsieve_mailbox{numbers}_name")) is not None:
            if _is_folder(name, folder):
                found.append(_path(self.values.get(f"imapsieve_mailbox{numbers}_before", "")))
            numbers += 1
        return tuple(found)


def parse(listing: str) -> Block:
    """The whole listing, as one block without a name."""
    root = Block("", "", {}, [])
    stack = [root]
    for line in map(str.strip, listing.splitlines()):
        if line == "}":
            if len(stack) > 1:
                stack.pop()
        elif line.endswith("{"):
            kind, _, name = line[:-1].strip().partition(" ")
            block = Block(kind, name, {}, [])
            stack[-1].blocks.append(block)
            stack.append(block)
        elif " =" in line:
            name, _, value = line.partition(" =")
            stack[-1].values[name] = value.strip()
    return root


def read(listing: str) -> Processes:
    """What doveconf's `listing` of SETTINGS says."""
    root = parse(listing)
    values = dict(root.values)
    if "mail_plugins" in values:  # 2.3: in 2.4 it is a block
        for plugin in root.all("plugin"):
            values |= plugin.values
        before, skipped = _before_23(values)
        return Processes(
            "2.3",
            values,
            frozenset(values["mail_plugins"].split()),
            frozenset(values.get("sieve_plugins", "").split()),
            _added(values.get("sieve_extensions", "")),
            _added(values.get("sieve_global_extensions", "")),
            before,
            skipped,
            root,
        )
    scripts = [one for one in root.all("sieve_script") if one.values.get("type") == "before" and "path" in one.values]
    scripts.sort(key=lambda one: size(one.values.get("precedence", "")) if "precedence" in one.values else math.inf)
    return Processes(
        "2.4",
        values,
        root.on("mail_plugins"),
        root.on("sieve_plugins"),
        root.on("sieve_extensions"),
        root.on("sieve_global_extensions"),
        tuple(Script(one.name, one.values["path"]) for one in scripts),
        (),
        root,
    )


def size(text: str) -> float:
    """Octets, or a number, as Dovecot writes them: `256 M`; infinite without a limit, 0 where nothing is said."""
    if text.strip() == "unlimited":
        return math.inf
    match = re.fullmatch(r"(\d+) ?([bkmgt]?)[b]?", text.strip().lower())
    if match is None:
        return 0
    number = int(match[1]) * _UNITS[match[2] or "b"]
    return math.inf if number >= _DEFAULT else number


def seconds(text: str) -> float:
    """A time as Dovecot writes it: `180s`, `3 mins`; 0 where nothing is said."""
    match = re.fullmatch(r"(\d+) ?(ms|[smhdw])?[a-z]*", text.strip().lower())
    return int(match[1]) * _SECONDS[match[2] or "s"] if match else 0


def _added(extensions: str) -> frozenset[str]:
    """The names in a list of 2.3's, which may change the default one by + and -."""
    return frozenset(word.removeprefix("+") for word in extensions.split() if not word.startswith("-"))


def _before_23(values: dict[str, str]) -> tuple[tuple[Script, ...], tuple[str, ...]]:
    """sieve_before, sieve_before2, ... up to the first gap; and what is behind it."""
    numbered = [(int(match[1] or 1), value) for name, value in values.items() if (match := _BEFORE.fullmatch(name))]
    numbered = sorted((number, value) for number, value in numbered if value)
    read = [value for place, (number, value) in enumerate(numbered, 1) if place == number]
    return tuple(Script("", _path(one)) for one in read), tuple(_path(one) for _, one in numbered[len(read) :])


_BEFORE = re.compile(r"sieve_before(\d*)")


def _path(location: str) -> str:
    return location.removeprefix("file:").partition(";")[0]


def _every(block: Block, kind: str) -> Iterator[Block]:
    for one in block.blocks:
        if one.kind == kind:
            yield one
        yield from _every(one, kind)


def _is_folder(name: str, folder: str) -> bool:
    return name == folder or name.endswith(("/" + folder, "." + folder))
