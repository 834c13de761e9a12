"""Asks for something over IMAP, with an owner's own name and password: saves a message, and reads the answer."""

import secrets
from typing import NamedTuple

from sieve_filter.dovecot import imap
from sieve_filter.errors import LoginError, ServiceError
from sieve_filter.mailbox import remote
from sieve_filter.web import letters
from sieve_filter.web.letters import Answer


class Place(NamedTuple):
    """Where owners' mailboxes are, and the folder in them for keys. `ca_file` is as in `remote.login`."""

    host: str
    port: int
    tls: bool
    ca_file: str | None
    folder: str


class Owner(NamedTuple):
    """Who has signed in."""

    user: str
    password: str


def sign_in(owner: Owner, place: Place) -> None:
    """Raises LoginError where name and password are not right, ServiceError where nobody can tell."""
    if any(not one.isprintable() or not one or len(one) > 500 for one in owner):
        raise LoginError("that cannot be a name and a password")
    with remote.login(_server(owner, place), owner.password, place.ca_file) as session:
        session.run(b"NOOP")


def ask(owner: Owner, place: Place, command: str, key: bytes = b"") -> Answer:
    """What the server answers to that command. Raises LoginError, ServiceError."""
    word = secrets.token_hex(16)
    with remote.login(_server(owner, place), owner.password, place.ca_file) as session:
        folder = imap.mailbox(session.prefix() + place.folder)
        if not session.exists(folder):
            session.run(b"CREATE " + folder)
            session.run(b"SUBSCRIBE " + folder)
        session.run(b"APPEND " + folder + rb" (\Seen)", letters.letter(owner.user, command, word, key))
        session.run(b"SELECT " + folder)
        answers = session.search(b"HEADER In-Reply-To " + imap.quoted(letters.message_id(word).encode()))
        if not answers:
            raise ServiceError(f"nobody answered what was saved in the folder {place.folder}")
        said = letters.answer(session.message(answers[-1]))
        if command == "status":  # it says nothing that has to be kept, and is asked for each page
            session.expunge(answers[-1])
        return said


def _server(owner: Owner, place: Place) -> remote.Server:
    return remote.Server(owner.user, place.host, place.port, place.tls)
