"""`make interop`: encrypts a message to each kind of key with each engine, and has each program read it."""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lab import debian13
from lab.server import REPOSITORY
from sieve_filter.mail import protection
from sieve_filter.openpgp.armor import dearmor
from sieve_filter.openpgp.encrypted import encrypted_message
from sieve_filter.openpgp.newer import is_newer
from sieve_filter.openpgp.packets import certificates
from tests.interop.keys import KINDS, Made
from tests.interop.readers import Reader, readers
from tests.support.filtered import MESSAGE, armor_in
from tests.support.server import ALICE
from tests.support.site import Site

DOCUMENT = REPOSITORY / "docs" / "developer" / "interop.md"
# A tree of its own, for what Debian 13 has for reading: the one of the tests stays as it is.
TREE = REPOSITORY / "build" / "debian13-interop"
PACKAGES = "gpg gpg-agent python3-pysequoia sq sqop rsop gosop rnp"
ENGINES = {
    "GnuPG": 'engine = "gnupg"\n',
    "GnuPG, zlib": 'engine = "gnupg"\ncompression = "zlib"\n',
    "Sequoia": 'engine = "sequoia"\n',
}

TEXT = """\
# Which programs read what is stored

`make interop` makes a key of each kind, has `cryptomail` take it and encrypt a message to it, and has each program
decrypt that: it must be the message, octet for octet. It wrote this file: {day}, {cases} cases.

Cases in which the owner's own kind of program, the one that made the key, could not read: **{own}**.

{versions}

| sign | meaning |
| --- | --- |
| + | the program read the message, octet for octet, whichever engine encrypted it |
| ~ | it read it, and wrote it with other line ends |
| (+) | it read the messages of some engines only |
| . | it read none: it does not know such keys, or such packets |

{tables}

"stored" is the container, and the version of the packets with the session key, which RFC 9580 section 10.3.2.1 calls
SEIPD and PKESK. SEIPD 1 with PKESK 3 is what every program knows.

PySequoia's `decryptor` looks at one subkey of a key only; other programs of Sequoia's look at all. Sequoia knows no
Brainpool curves here, so GnuPG encrypts to these whatever the engine is. Thunderbird reads with the library of rnp.
"""


class Row(NamedTuple):
    """A kind of key, what was stored by each engine, and which programs read how many of these."""

    kind: str
    by: str
    newer: bool
    stored: str
    engines: int
    read: dict[str, int]
    words: dict[str, int]

    def sign(self, name: str) -> str:
        if self.read[name] == self.engines:
            return "+"
        if self.words[name] == self.engines:
            return "~"
        return "(+)" if self.words[name] else "."


def main() -> int:
    debian13.build(TREE, PACKAGES)
    with readers(TREE) as programs:
        rows = [_row(kind, make(), programs) for kind, make in KINDS.items()]
        versions = {name: one.version for name, one in programs.items()}
    own = [f"{row.kind}: {row.by}" for row in rows if row.sign(row.by) != "+"]
    DOCUMENT.write_text(_document(rows, versions, own))
    print(f"{DOCUMENT.relative_to(REPOSITORY)}: {len(rows)} kinds of keys, {len(versions)} programs", file=sys.stderr)
    for one in own:
        print(f"the owner's own program cannot read it: {one}", file=sys.stderr)
    return 1 if own else 0


def _row(kind: str, made: Made, programs: dict[str, Reader]) -> Row:
    newer = any(map(is_newer, certificates(made.public)))
    engines = {"Sequoia": ENGINES["Sequoia"]} if newer else ENGINES
    read, words = dict.fromkeys(programs, 0), dict.fromkeys(programs, 0)
    stored = set()
    for settings in engines.values():
        armored = armor_in(_stored(made.public, settings))
        message = encrypted_message(dearmor(armored) or b"")
        assert message is not None
        stored.add((message.container.replace(" v", " "), *(f"PKESK {one}" for one in set(message.pkesk_versions))))
        for name, program in programs.items():
            content = program.decrypt(made.secret, armored) or b""
            words[name] += content.split()[-2:] == MESSAGE.split()[-2:]
            read[name] += protection.restore(content) == MESSAGE
    row = Row(kind, made.by, newer, "; ".join(", ".join(one) for one in sorted(stored)), len(engines), read, words)
    print(f"{kind}: {' '.join(f'{name} {row.sign(name)}' for name in programs)}", file=sys.stderr)
    return row


def _stored(public: bytes, settings: str) -> bytes:
    with TemporaryDirectory(prefix="site-", dir="/tmp") as directory:
        Path(directory).chmod(0o711)
        site = Site(Path(directory))
        site.make(ALICE)
        site.config.write_text(settings)
        done = site.enrol(public, ALICE, "--foreign")
        if done.returncode != 0:
            raise SystemExit(f"a key was not taken: {(done.stdout + done.stderr).decode()}")
        return site.filter()


def _document(rows: list[Row], versions: dict[str, str], own: list[str]) -> str:
    cases = sum(row.engines * len(row.read) for row in rows)
    classic = [row for row in rows if not row.newer]
    return TEXT.format(
        day=time.strftime("%Y-%m-%d", time.gmtime()),
        cases=cases,
        own=len(own),
        versions="\n".join(f"- {name}: {version}" for name, version in versions.items()),
        tables="\n\n".join(
            f"## {title}\n\n{_table(chosen, list(versions))}"
            for title, chosen in (
                ("Keys that GnuPG reads", classic),
                ("Keys that GnuPG cannot read", [row for row in rows if row.newer]),
            )
        ),
    )


def _table(rows: list[Row], names: list[str]) -> str:
    lines = [["key", "stored", *names], ["---"] * (len(names) + 2)]
    lines += [[row.kind, row.stored, *(row.sign(name) for name in names)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
