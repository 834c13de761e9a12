"""Replaces messages of a mailbox by what a task makes of them: encrypted ones, clear ones, ones to other keys."""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.dovecot.imap import Selected, Session, sequence
from sieve_filter.errors import ImapRefusalError, QuotaError
from sieve_filter.mailbox import audit, messages, recovery, walk
from sieve_filter.mailbox import replace as replacing
from sieve_filter.mailbox.audit import Progress
from sieve_filter.mailbox.journal import Journal
from sieve_filter.mailbox.messages import Stored
from sieve_filter.mailbox.replace import New
from sieve_filter.mailbox.task import Task
from sieve_filter.mailbox.walk import Folder

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE = re.compile(rb" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) ")
_INEXACT = "IMAP does not give its octets as they are"
_BINARY = "it has the octet NUL, which the server does not take"


class Wish(NamedTuple):
    """Where a task is to be done: in the folders with these names, else in all but that for keys, other people's, and
    those that the task passes over; with what came before a day, if one is named. With `dry_run`, nothing is changed.
    `if_there`: the names have no prefix of a namespace, and those that a mailbox has not do not count.
    """

    folders: tuple[str, ...]
    before: date | None
    keys: str
    dry_run: bool = False
    if_there: bool = False


class Outcome(NamedTuple):
    """What became of a mailbox: how many messages were replaced, or would be; in which folders; how many were left as
    they are, and why; whether the quota kept it from going on; and whether nothing was done because there is no key.
    """

    user: str
    replaced: int
    folders: tuple[str, ...]
    left: tuple[tuple[str, int], ...]
    over_quota: bool = False
    unkeyed: bool = False


class _Meant(NamedTuple):
    """A folder, and the UIDs of what is to be replaced in it: what the owner has seen, and what is new."""

    folder: Folder
    uid_validity: int
    seen: list[int]
    unseen: list[int]


class Conversion:
    """A task, done with one mailbox. `between` is called between steps, and may wait, or raise."""

    def __init__(self, session: Session, journal: Journal, task: Task, wish: Wish, between: Callable[[], None]) -> None:
        self._session = session
        self._journal = journal
        self._task = task
        self._wish = wish
        self._between = between
        self._can = replacing.abilities(session)
        self._replaced = 0
        self._folders: dict[str, None] = {}
        self._left: dict[str, int] = {}

    def run(self, user: str, progress: Progress) -> Outcome:
        """Do all of it. Raises CryptomailError; whatever was done stays, and the next run goes on.

        Messages keep their order, but new mail comes last: a telephone rings once.
        """
        if not self._wish.dry_run:
            self._replaced += recovery.recover(self._session, self._journal, self._can, self._task)
        found = walk.chosen(walk.folders(self._session), self._wish.folders)
        prefix = self._session.prefix()
        meant = [self._find(one) for one in found if self._is_meant(one, prefix)]
        over_quota = False
        with progress(sum(len(one.seen) + len(one.unseen) for one in meant)) as advance:
            try:
                for one in meant:
                    self._replace_all(one, one.seen, advance)
                for one in meant:
                    self._replace_all(one, one.unseen, advance)
            except QuotaError:
                over_quota = True
        return Outcome(user, self._replaced, tuple(self._folders), tuple(self._left.items()), over_quota)

    def _is_meant(self, folder: Folder, prefix: str) -> bool:
        if folder.label == prefix + self._wish.keys:
            return False  # what is saved there is answered, and looked at for secret keys
        return bool(self._wish.folders) or not (folder.shared or (folder.unfinished and not self._task.unfinished))

    def _find(self, folder: Folder) -> _Meant:
        """What the task is to be done with in that folder."""
        selected = self._session.select(folder.name)
        found = _Meant(folder, selected.uid_validity, [], [])
        later: list[Stored] = []
        for message in messages.stored(self._session):
            if (message.draft and not self._task.unfinished) or not self._is_early(message.date):
                continue
            verdict = audit.verdict_of(message)
            if verdict is None:
                later.append(message._replace(beginning=b""))
            elif self._task.wants(verdict):
                self._note(found, message)
            self._between()
        for message in later:
            verdict = audit.verdict_on_all(self._session, message.uid, self._can.binary)
            if verdict is not None and self._task.wants(verdict):
                self._note(found, message)
            self._between()
        found.seen.sort()
        found.unseen.sort()
        return found

    @staticmethod
    def _note(found: _Meant, message: Stored) -> None:
        seen = any(flag.lower() == b"\\seen" for flag in message.flags)
        (found.seen if seen else found.unseen).append(message.uid)

    def _is_early(self, written: bytes) -> bool:
        day = _DATE.match(written)
        if self._wish.before is None or day is None:
            return self._wish.before is None
        return date(int(day[3]), _MONTHS.index(day[2].decode().title()) + 1, int(day[1])) < self._wish.before

    def _replace_all(self, meant: _Meant, uids: Sequence[int], advance: Callable[[int], None]) -> None:
        if not uids:
            return
        if self._wish.dry_run:
            self._count(meant.folder, len(uids))
            advance(len(uids))
            return
        selected = self._session.select(meant.folder.name)
        if selected.uid_validity != meant.uid_validity:
            self._leave(f"the folder {meant.folder.label} was made anew meanwhile", len(uids))
            return
        at_once = limits.REPLACED_MESSAGES if self._can.multiappend else 1
        ready: list[New] = []

        def go_on(run: list[Stored]) -> None:
            """Replace what is ready; meanwhile make those of the next messages, which have been read."""
            nonlocal ready
            made: list[New] = []

            def make() -> None:
                while run:
                    message = run.pop(0)
                    made.extend(self._new(message, iter([message.beginning])))

            if ready:
                self._replace(meant.folder, selected, ready, make)
            make()
            ready = made
            self._between()

        for position in range(0, len(uids), at_once):
            some = uids[position : position + at_once]
            for run in _runs(list(messages.stored(self._session, sequence(some)))):
                if _is_small(run[0]):
                    go_on(run)
                else:
                    go_on([])
                    ready = list(self._new_of_large(run[0]))
            advance(len(some))
        go_on([])

    def _replace(self, folder: Folder, selected: Selected, batch: list[New], meanwhile: Callable[[], None]) -> None:
        """Replace messages; where they are too much together, one by one. `meanwhile`: see `replace.replace`."""
        try:
            done, reasons = replacing.replace(
                self._session, folder, selected, batch, self._journal, self._can, meanwhile, secret=self._task.secret
            )
        except ImapRefusalError as error:
            if len(batch) > 1:
                for one in batch:
                    self._replace(folder, selected, [one], meanwhile)
                return
            if error.response_code == "OVERQUOTA":
                raise QuotaError("the quota has no room for a message beside the one that it is to replace") from error
            done, reasons = 0, [str(error)]
        self._count(folder, done)
        for reason in reasons:
            self._leave(reason)

    def _new_of_large(self, message: Stored) -> Iterator[New]:
        """As `_new`, of a message that was not read as a whole, or may have had other octets."""
        section = messages.section(self._session, message.uid, self._can.binary)
        if section is None:
            self._leave(_INEXACT)
        else:
            yield from self._new(message, messages.pieces(self._session, message.uid, section))

    def _new(self, message: Stored, pieces: Iterator[bytes]) -> Iterator[New]:
        """What takes a message's place; nothing where it stays, or has gone."""
        made = self._task.make(pieces)
        if isinstance(made, str):
            self._leave(made)
        elif made is not None and made.binary and not self._can.binary:
            self._leave(_BINARY)
        elif made is not None:
            yield New(message.uid, message.flags, message.date, made)

    def _count(self, folder: Folder, number: int) -> None:
        self._replaced += number
        if number:
            self._folders[folder.label] = None

    def _leave(self, reason: str, number: int = 1) -> None:
        self._left[reason] = self._left.get(reason, 0) + number


def _is_small(message: Stored) -> bool:
    """Whether all of it has been read, exactly."""
    return message.whole and not message.doubtful


def _runs(read: Sequence[Stored]) -> Iterator[list[Stored]]:
    """These messages in their order: small ones together, others alone."""
    run: list[Stored] = []
    for message in read:
        if _is_small(message):
            run.append(message)
            continue
        if run:
            yield run
        yield [message]
        run = []
    if run:
        yield run
