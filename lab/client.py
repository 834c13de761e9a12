"""What a test or the demo does with a lab: deliver to it, look at what it stored, and read it as a user would."""

import imaplib
import json
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SECONDS = 60


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer: 250 and 2xx for yes, 4xx for "try again later", 5xx for no."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A running lab, as its lab.json describes it; `root` is the tree that the paths in there are relative to."""

    directory: Path
    root: Path
    lmtp: tuple[str, int]
    imap: tuple[str, int]
    managesieve: tuple[str, int]
    domain: str
    password: str
    mail_uid: int
    filter: Path
    cryptomail: Path
    log: Path
    web: str

    @classmethod
    def load(cls, directory: Path, root: Path = Path("/")) -> Self:
        """`directory` is the lab's as seen from here, so it lies below `root`."""
        data = json.loads((directory / "lab.json").read_text())
        return cls(
            directory=directory,
            root=root,
            lmtp=(data["lmtp"][0], data["lmtp"][1]),
            imap=(data["imap"][0], data["imap"][1]),
            managesieve=(data["managesieve"][0], data["managesieve"][1]),
            domain=data["domain"],
            password=data["password"],
            mail_uid=data["mail_uid"],
            filter=root / data["filter"].lstrip("/"),
            cryptomail=root / data["cryptomail"].lstrip("/"),
            log=root / data["log"].lstrip("/"),
            web=data.get("web", ""),
        )

    @property
    def sockets(self) -> Path:
        """Where the workers listen."""
        return self.directory / "var/lib/cryptomail"

    @property
    def python(self) -> Path:
        """The interpreter of the environment that the programs run in now."""
        first_line = self.cryptomail.read_text().splitlines()[0]
        return self.root / first_line.removeprefix("#!/").removesuffix(" -I")

    def address(self, user: str) -> str:
        return f"{user}@{self.domain}"

    def home(self, user: str) -> Path:
        return self.directory / "home" / user

    def command(self, *arguments: str) -> list[str]:
        """A command line that runs where the lab's Dovecot runs; it finds the lab's files by `inside`."""
        return list(arguments) if self.root == Path("/") else ["chroot", str(self.root), *arguments]

    def inside(self, path: Path) -> str:
        """The path as the lab's own processes know it."""
        return "/" + str(path.relative_to(self.root))

    def stored(self, user: str) -> list[bytes]:
        """Every message in every folder of the user, as it is on disk."""
        files = [*self.home(user).glob("Maildir/**/new/*"), *self.home(user).glob("Maildir/**/cur/*")]
        return [file.read_bytes() for file in sorted(files)]

    def sent(self) -> list[tuple[str, bytes]]:
        """What Sieve scripts sent to other servers: sendmail's arguments, and the message."""
        pairs = [file.read_bytes().split(b"\n\n", 1) for file in sorted((self.directory / "outbox").iterdir())]
        return [(arguments.decode(), message) for arguments, message in pairs]


def lmtp(lab: Lab, message: bytes, recipients: Iterable[str], sender: str = "sender@example.com") -> list[Reply]:
    """Deliver exactly these bytes. Returns one answer a recipient, in their order.

    smtplib would repair line ends on the way, and give one answer for all recipients.
    """
    with socket.create_connection(lab.lmtp, timeout=SECONDS) as connection, connection.makefile("rwb") as stream:

        def reply() -> Reply:
            while (line := stream.readline())[3:4] == b"-":
                pass
            return Reply(int(line[:3]), line[4:].decode(errors="replace").rstrip())

        def command(text: str) -> Reply:
            stream.write(text.encode() + b"\r\n")
            stream.flush()
            return reply()

        reply()
        command("LHLO client.example.com")
        command(f"MAIL FROM:<{sender}>")
        answers = [command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        command("DATA")
        stream.write(re.sub(rb"(?m)^\.", b"..", message))
        stream.write(b".\r\n" if message.endswith(b"\n") else b"\r\n.\r\n")
        stream.flush()
        return [reply() if answer.code == 250 else answer for answer in answers]


def lda(lab: Lab, message: bytes, user: str, sender: str = "sender@example.com") -> int:
    """Deliver with dovecot-lda. Returns its exit code, 75 for "try again later"."""
    arguments = ["/usr/lib/dovecot/dovecot-lda", "-c", lab.inside(lab.directory / "dovecot.conf")]
    command = lab.command(*arguments, "-f", sender, "-d", lab.address(user))
    return subprocess.run(command, input=message, stderr=subprocess.DEVNULL).returncode


def imap(lab: Lab, user: str, folder: str = "INBOX") -> list[bytes]:
    """The messages of a folder, as an IMAP client gets them."""
    with imaplib.IMAP4(*lab.imap, timeout=SECONDS) as connection:
        connection.login(lab.address(user), lab.password)
        connection.select(folder, readonly=True)
        _, numbers = connection.search(None, "ALL")
        fetched = [connection.fetch(number.decode(), "(BODY.PEEK[])")[1][0] for number in numbers[0].split()]
        return [item[1] for item in fetched if isinstance(item, tuple)]
