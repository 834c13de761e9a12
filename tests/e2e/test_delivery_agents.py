"""Mail that procmail, maildrop and fdm deliver as the files in contrib/ say."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import client, keys
from lab.client import Lab
from sieve_filter.delivery import restore
from tests.e2e.conftest import NewPerson, Person, deliver, message
from tests.support import mta
from tests.support.agents import Agent
from tests.support.server import ALICE, Server

TRY_AGAIN = os.EX_TEMPFAIL
# What a program that encrypts nothing does.
FAILURES = {
    "refuses": "cat > /dev/null; exit 75",
    "fails": "cat > /dev/null; exit 70",
    "is killed when all is out": "cat; kill -9 $$",
    "ends in the middle": "head -c 100; exit 1",
    "reads nothing": "exit 1",
    "cannot be started": "exec /nonexistent",
}


@dataclass(frozen=True)
class Fetching:
    """Somebody whose mail lies in clear in a mailbox, and the fdm that fetches it from there."""

    person: Person
    agent: Agent

    def arrives(self, sent: bytes) -> None:
        assert deliver(self.person, sent) == 250

    def fetch(self) -> None:
        """Run fdm, as an ordinary user: as root, it asks for one that its package makes."""
        host, port = self.person.lab.imap
        home = self.agent.home
        account = f'account "old" imap server "{host}" port {port} user "{self.person.address}"'
        before = f'set lock-file "{home}/lock"\n{account} pass "{self.person.lab.password}" no-cram-md5'
        file = self.agent.settings("fdm.conf", before=before)
        file.write_text(file.read_text().replace("%h", str(home)))  # that user has another
        for path in (file, home, *home.rglob("*")):
            os.chown(path, mta.USER_ID, -1)
        self.agent.run(["-f", file, "fetch"], user=mta.USER_ID)


def procmail(agent: Agent, sent: bytes) -> int:
    home = agent.home
    before = f"HOME={home}\nMAILDIR={home}\nDEFAULT={home}/Maildir/\nLOGFILE={home}/log"
    file = agent.settings("procmailrc", before=before)
    others = agent.home / "other.rc"  # as an owner's file behind the administrator's
    others.write_text(":0\nMaildir/\n")
    return agent.run(["-f", "sender@example.com", file, others], sent)


def maildrop(agent: Agent, sent: bytes) -> int:
    for name in ("cur", "new", "tmp"):
        (agent.home / "Maildir" / name).mkdir(parents=True, exist_ok=True)
    file = agent.settings("mailfilter", before=f'HOME="{agent.home}"', after='to "$HOME/Maildir"')
    return agent.run([file], sent)


AGENTS = {"procmail": procmail, "maildrop": maildrop}


@pytest.fixture
def agent(request: pytest.FixtureRequest, tmp_path: Path, alice: keys.Owner) -> Agent:
    """A delivery agent in whose home Alice's key is set up."""
    made = Agent(request.param, tmp_path)
    Server(made.home).give(alice.public(ALICE))
    return made


@pytest.mark.parametrize(("agent", "deliver"), AGENTS.items(), indirect=["agent"], ids=AGENTS)
def test_mail_is_stored_encrypted_and_comes_back(
    agent: Agent, deliver: Callable[[Agent, bytes], int], alice: keys.Owner, canary: str
) -> None:
    sent = message(canary).replace(b"\r\n", b"\n")
    assert deliver(agent, sent) == 0
    [stored] = agent.stored()
    assert canary.encode() not in stored
    assert b"multipart/encrypted" in stored
    opened = decrypted(stored, alice)
    assert opened.endswith(sent)
    assert canary.encode() not in b"".join(one.read_bytes() for one in agent.home.glob("log"))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("agent", "deliver"), AGENTS.items(), indirect=["agent"], ids=AGENTS)
def test_where_the_program_fails_nothing_is_stored_and_the_sender_is_told_to_try_again(
    agent: Agent, deliver: Callable[[Agent, bytes], int], failure: str, canary: str
) -> None:
    agent.becomes(FAILURES[failure])
    assert deliver(agent, message(canary)) == TRY_AGAIN
    assert agent.stored() == []
    assert canary not in everything(agent.home)


def decrypted(stored: bytes, owner: keys.Owner) -> bytes:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GNUPGHOME", str(owner.home))
        opened = restore.decrypt(stored)
    assert opened is not None
    return opened


def everything(directory: Path) -> str:
    return "".join(one.read_text(errors="replace") for one in directory.rglob("*") if one.is_file())


@pytest.fixture
def fetching(labs: Callable[[str, str], Lab], new_person: NewPerson) -> Iterator[Fetching]:
    """Somebody whose mail fdm fetches from a mailbox where it lies in clear."""
    with TemporaryDirectory(prefix="fdm-", dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        made = Fetching(new_person(labs("dovecot23", "off")), Agent("fdm", Path(directory)))
        made.person.gpg.make_key(made.person.address)
        Server(made.agent.home).give(made.person.gpg.public(made.person.address))
        yield made


def test_fdm_stores_what_it_fetches_encrypted(fetching: Fetching, canary: str) -> None:
    sent = message(canary)
    fetching.arrives(sent)
    fetching.fetch()
    [stored] = fetching.agent.stored()
    assert canary.encode() not in stored
    assert decrypted(stored, fetching.person.gpg).replace(b"\r\n", b"\n").endswith(sent.replace(b"\r\n", b"\n"))
    assert client.imap(fetching.person.lab, fetching.person.user) == []


@pytest.mark.parametrize("failure", FAILURES)
def test_where_the_program_fails_fdm_leaves_mail_where_it_is(fetching: Fetching, failure: str, canary: str) -> None:
    fetching.arrives(message(canary))
    fetching.agent.becomes(FAILURES[failure])
    fetching.fetch()
    assert fetching.agent.stored() == []
    assert canary not in everything(fetching.agent.home)
    assert len(client.imap(fetching.person.lab, fetching.person.user)) == 1
