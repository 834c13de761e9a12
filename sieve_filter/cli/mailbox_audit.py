"""`cryptomail mailbox audit`: what of stored mail can still be read, on this server or in one's own mailbox."""

import argparse
import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress

from sieve_filter import errors
from sieve_filter.cli.mailbox import Job, on_this_server, own_session, session_of
from sieve_filter.cli.site import Rest, Site
from sieve_filter.cli.site import names as site_names
from sieve_filter.cli.terminal import Advance, progress, table
from sieve_filter.delivery import pipeline
from sieve_filter.errors import CryptomailError, FileError, UsageError
from sieve_filter.keys import find, x509
from sieve_filter.mailbox import audit, report, residue
from sieve_filter.mailbox.audit import MailboxAudit
from sieve_filter.mailbox.report import Audit
from sieve_filter.mailbox.throttle import Throttle
from sieve_filter.openpgp.packets import key_id
from sieve_filter.owners.owner import Owner
from sieve_filter.policy.settings import Settings
from sieve_filter.system import stdio

_ELSEWHERE = "what the server keeps of removed messages cannot be seen from here"


def run(options: argparse.Namespace, site: Site) -> int:
    """Look, tell, and return one of the exit codes of Nagios' plugins."""
    if options.json and options.prometheus:
        raise UsageError("--json or --prometheus, not both")
    done = _own(options) if options.imap else _everybody(options, site)
    _tell(done, options.json, options.prometheus)
    return report.worst(done)


def guarded(work: Callable[[], int], arguments: Sequence[str]) -> int:
    """Do `work`, which is `mailbox audit`: where it fails, a monitor is told in the form that `arguments` ask for."""
    try:
        return work()
    except Exception as error:
        failed = Audit([], failures=[("audit", str(errors.known(error)))])
    with suppress(FileError):  # nobody reads it
        _tell(failed, "--json" in arguments, "--prometheus" in arguments)
    return report.worst(failed)


def _own(options: argparse.Namespace) -> Audit:
    quiet = options.json or options.prometheus
    with own_session(options) as (user, session):
        bar = functools.partial(progress, quiet=quiet)
        folders = audit.audit(session, options.folder, None, Throttle(on=True), bar)
    return Audit([MailboxAudit(user, folders, (_ELSEWHERE,), keyed=True)])


def _everybody(options: argparse.Namespace, site: Site) -> Audit:
    rest = Rest()
    quiet = options.json or options.prometheus
    work = functools.partial(_audit, names=options.folder, settings=site.settings, quiet=quiet or options.all)
    mailboxes: list[MailboxAudit] = []
    failures: list[tuple[str, str]] = []
    asked = site_names(options, site)
    with progress(2 * len(asked), quiet or not options.all) as advance:
        for user, result in on_this_server(asked, options, site, rest, work, advance):
            if isinstance(result, CryptomailError):
                failures.append((user, str(result)))
            else:
                mailboxes.append(result._replace(user=user))  # whatever the process says
    failures += [(one.user, str(one.error)) for one in rest.failures]
    everywhere = residue.everywhere(options.dovecot_conf)
    mailboxes.sort(key=lambda one: one.user)
    return Audit(mailboxes, everywhere, sorted(failures), len(rest.passed_over))


def _audit(job: Job, names: list[str], settings: Settings, quiet: bool) -> MailboxAudit:
    """The audit of one mailbox, by its owner."""
    key_ids, keyed = _keys(job.owner, settings)

    def bar(total: int) -> AbstractContextManager[Advance]:
        return progress(total, quiet)

    folders = audit.audit(session_of(job), names, key_ids, Throttle(on=False), bar)
    files = residue.files([one for one in dict.fromkeys((job.owner.home, job.indexes)) if one])
    return MailboxAudit(job.owner.user, folders, residue.words(files), keyed)


def _keys(whose: Owner, settings: Settings) -> tuple[frozenset[str] | None, bool]:
    """The IDs of the owner's keys, None where they cannot be read; and whether the owner has a key, or had one."""
    try:
        found = pipeline.find_keys(whose, settings)
        certificates = find.find_certificates(whose, settings.keyrings)
    except CryptomailError:
        return None, True
    keys = [key for holding in found.holdings for key in holding.keys]
    key_ids = {key_id(subkey.fingerprint) for key in keys for subkey in key.subkeys}
    key_ids |= {one for holding in certificates.holdings for one in x509.key_ids(holding)} if certificates else set()
    return frozenset(key_ids), bool(keys) or found.lost


def _tell(done: Audit, as_json: bool, as_prometheus: bool) -> None:
    if as_prometheus:
        stdio.tell(report.as_prometheus(done))
    elif as_json:
        stdio.tell(report.as_json(done))
    else:
        stdio.tell("\n".join([report.summary(done), *report.lines(done)]))
        table(report.HEAD, report.rows(done))
