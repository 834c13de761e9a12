"""`cryptomail mailbox encrypt`: encrypts what is stored in clear, on this server or in one's own mailbox."""

import argparse
import functools
import os

from sieve_filter.cli import mailbox_change
from sieve_filter.cli.mailbox import Job, configuration_of, on_this_server, session_of
from sieve_filter.cli.mailbox_change import Words
from sieve_filter.cli.site import Rest, Site, as_owner
from sieve_filter.cli.site import names as site_names
from sieve_filter.cli.terminal import progress
from sieve_filter.dovecot import doveadm
from sieve_filter.errors import CryptomailError, StoppedError, UnknownUserError, UsageError
from sieve_filter.mailbox import here, residue, task
from sieve_filter.mailbox.convert import Outcome, Wish
from sieve_filter.mailbox.residue import Files
from sieve_filter.policy.settings import Settings
from sieve_filter.system import stdio

_WORDS = Words("encrypted", "in clear")


def run(options: argparse.Namespace, site: Site) -> int:
    """Encrypt, tell, and return an exit code; raises what kept it from encrypting all."""
    if options.saved and (options.imap or options.folder):
        raise UsageError("--saved goes neither with --imap nor with --folder")
    if bool(options.imap) != bool(options.key_file):
        raise UsageError("--imap and --key-file go together: your key is not looked up anywhere")
    if options.imap:
        what = task.encryption(mailbox_change.to_key(options.key_file, site.settings))
        return mailbox_change.finish(options, _WORDS, [(mailbox_change.own(options, what), ())])
    if options.saved and not site.settings.saved_folders:
        raise UsageError("--saved is for the folders of the setting saved_folders, which names none")
    return _everybody(options, mailbox_change.wish(options, site.settings.saved_folders if options.saved else ()), site)


def _everybody(options: argparse.Namespace, wish: Wish, site: Site) -> int:
    rest = Rest()
    failures: list[tuple[str, CryptomailError]] = []
    outcomes: list[tuple[Outcome, tuple[str, ...]]] = []
    work = functools.partial(_encrypt, wish=wish, settings=site.settings, quiet=options.json or options.all)
    asked = site_names(options, site)
    with progress(2 * len(asked), options.json or not options.all) as advance:
        for user, result in on_this_server(asked, options, site, rest, work, advance):
            if isinstance(result, CryptomailError):
                failures.append((user, result))
            else:
                outcome = result._replace(user=user)  # whatever the process says
                outcomes.append((outcome, _clean(outcome, options, site)))
    failures += [(one.user, one.error) for one in rest.failures]
    return mailbox_change.finish(options, _WORDS, sorted(outcomes), failures)


def _encrypt(job: Job, wish: Wish, settings: Settings, quiet: bool) -> Outcome:
    """The encryption of one mailbox, by its owner."""

    def between() -> None:
        if os.getppid() != job.parent:  # nobody else would end this
            raise StoppedError("the command was killed")

    bar = functools.partial(progress, quiet=quiet)
    return here.encrypt(job.owner, lambda: session_of(job), wish, settings, stdio.once(), between, bar)


def _clean(outcome: Outcome, options: argparse.Namespace, site: Site) -> tuple[str, ...]:
    """Take away what the server keeps of clear text that was replaced. Returns what stays, in words."""
    if options.dry_run or not outcome.folders:
        return ()
    configuration = configuration_of(options)
    try:
        doveadm.purge(outcome.user, outcome.folders, configuration)
    except UnknownUserError as error:
        stdio.warn(str(error))
    whose = site.owner(outcome.user)
    directories = [one for one in (whose.home, doveadm.index_directory(whose.user, configuration)) if one]

    def look() -> Files:
        return residue.files(directories)

    caches = as_owner(whose, look)._replace(mdbox=False)  # it has just been purged
    return (*residue.words(caches), *residue.everywhere(configuration))
