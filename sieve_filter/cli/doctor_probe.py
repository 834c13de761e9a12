"""`cryptomail doctor --probe`: a message is sent to an owner as all mail is, found, looked at, and taken away."""

import argparse
import functools
import shlex
import time
from collections.abc import Iterator, Sequence

from sieve_filter.cli.mailbox import Job, on_this_server, session_of
from sieve_filter.cli.site import Rest, Site, as_owner
from sieve_filter.deadline import Deadline
from sieve_filter.delivery import inventory
from sieve_filter.doctor.finding import Finding
from sieve_filter.errors import CryptomailError, DeliveryError
from sieve_filter.keys.status import CRITICAL, UNKNOWN, WARNING
from sieve_filter.mailbox import probe
from sieve_filter.mailbox.probe import Probe, Sighting
from sieve_filter.notify import notices, post
from sieve_filter.notify.notices import Words
from sieve_filter.notify.post import Post
from sieve_filter.policy.settings import Settings

_SECONDS, _PAUSE = 20, 0.5  # until the message is in a folder: a program like sendmail leaves it in a queue


def probed(user: str, options: argparse.Namespace, settings: Settings, where: Post) -> Iterator[Finding]:
    """What is wrong with what becomes of a message to that user."""
    site = Site(settings, None, None)
    command = _test(user)
    try:
        whose = site.owner(user)
        trial = as_owner(whose, functools.partial(inventory.try_out, whose, settings))
        if not trial.fingerprints:
            yield Finding(UNKNOWN, f"no probe was sent to {user}: {trial.why}", "it would show nothing", command)
            return
        stamp = post.stamp()
        message = notices.message(user, _words(stamp.word), stamp)
        try:
            if not post.as_other_mail(where, user, message):
                raise DeliveryError(post.NO_WAY)
        except DeliveryError as error:
            yield Finding(CRITICAL, f"a probe to {user} was refused: {error}", "so may all mail be", "doveadm log find")
            return
        sought = Probe(notices.message_id(user, stamp).encode(), _text(stamp.word).encode())
        found = _found(user, options, site, sought)
    except CryptomailError as error:
        yield Finding(UNKNOWN, f"the probe to {user} was not looked for: {error}", "it shows nothing", command)
        return
    yield from judge(user, found, trial.key_ids)


def judge(user: str, found: Sequence[Sighting], key_ids: Sequence[str]) -> Iterator[Finding]:
    """What is wrong with how a message was stored for that user, whose mail is encrypted to keys with these IDs."""
    wanted = sorted(key_ids)
    command = _test(user)
    if not found:
        what = f"a probe to {user} was taken, and is in no folder"
        yield Finding(WARNING, what, "a script of theirs may have sent it elsewhere", "doveadm log find")
    for one in found:
        if one.clear:
            what = f"a probe to {user} was stored in clear, in {one.folder}"
            yield Finding(CRITICAL, what, "so is their mail", command)
        elif sorted(one.key_ids) != wanted:
            what = f"a probe to {user} was encrypted to {', '.join(one.key_ids)}, and not to {', '.join(wanted)}"
            yield Finding(CRITICAL, what, "somebody else may read their mail, or they cannot", command)


def _found(user: str, options: argparse.Namespace, site: Site, sought: Probe) -> list[Sighting]:
    """Where that message is. Raises CryptomailError."""
    rest = Rest()
    asked = argparse.Namespace(user=user, dovecot_conf=options.dovecot_conf)
    work = functools.partial(_take, sought=sought)
    for _, result in on_this_server([user], asked, site, rest, work, lambda _: None):
        if isinstance(result, CryptomailError):
            raise result
        return result
    raise rest.failures[0].error


def _take(job: Job, sought: Probe) -> list[Sighting]:
    session, until = session_of(job), Deadline.after(_SECONDS)
    while not (found := probe.take(session, sought)) and until.remaining() > 0:
        time.sleep(_PAUSE)
    return found


def _test(user: str) -> str:
    return f"cryptomail keys test --user {shlex.quote(user)}"


def _words(word: str) -> Words:
    said = "This message shows whether your mail is encrypted. It is taken away again at once."
    return Words("A probe of your mail server", (said, _text(word)))


def _text(word: str) -> str:
    """What is in the text, and nowhere else."""
    return f"probe-{word[::-1]}"
