"""A mailbox on this server, encrypted with its owner's rights, to the keys that a delivery would use now."""

import time
from collections.abc import Callable

from sieve_filter.delivery import pipeline
from sieve_filter.delivery.encrypt import Delivery
from sieve_filter.delivery.engines import Engines
from sieve_filter.delivery.incoming import Incoming
from sieve_filter.dovecot.imap import Session
from sieve_filter.keys.decision import StoreClear, Wait, decide
from sieve_filter.mailbox import journal, task, walk
from sieve_filter.mailbox.audit import Progress
from sieve_filter.mailbox.convert import Conversion, Outcome, Wish
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Options, Settings

_JOURNAL = ".cryptomail-mailbox"  # in the owner's home, beside the keyring


def encrypt(
    whose: Owner,
    begin: Callable[[], Session],
    wish: Wish,
    settings: Settings,
    warn: Callable[[str], None],
    between: Callable[[], None],
    progress: Progress,
) -> Outcome:
    """Encrypt what is in clear in the mailbox that `begin` opens, which is not called where the owner has no key.

    `between` is called between steps. Raises CryptomailError.
    """
    settings = pipeline.for_owner(whose, settings, warn).settings
    decision = decide(pipeline.find_keys(whose, settings), pipeline.rules(settings, Options()), int(time.time()))
    if isinstance(decision, Wait):
        raise decision.error
    if isinstance(decision, StoreClear):
        return Outcome(whose.user, 0, (), (), unkeyed=True)
    engines = Engines(lambda text: warn(f"{whose.user}: {text}"), lasting=True)
    environment = {"USER": whose.user, "HOME": whose.home}

    def turn(incoming: Incoming) -> Delivery:
        return pipeline.encrypt_for_owner(incoming, Options(), environment, settings, engines)

    with journal.opened(f"{whose.home}/{_JOURNAL}") as noted:
        session = begin()
        if wish.if_there:
            wish = wish._replace(folders=_there(session, wish.folders))
            if not wish.folders:
                return Outcome(whose.user, 0, (), ())
        return Conversion(session, noted, task.encryption(turn), wish, between).run(whose.user, progress)


def _there(session: Session, names: tuple[str, ...]) -> tuple[str, ...]:
    """The labels of those folders that there are, below the prefix of the user's own."""
    prefix = session.prefix()
    labels = {one.label for one in walk.folders(session) if not one.unfinished}
    return tuple(prefix + name for name in names if prefix + name in labels)
