"""`cryptomail keys import`: sets up certificates, one or thousands, and tells what became of them."""

import argparse
import functools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from sieve_filter import limits
from sieve_filter.cli import passwords
from sieve_filter.cli.site import Site, in_chunks
from sieve_filter.cli.terminal import ROWS, Advance, progress, table
from sieve_filter.enrolment import service
from sieve_filter.enrolment.service import Desk
from sieve_filter.errors import (
    CryptomailError,
    FileError,
    RefusedKeyError,
    ServiceError,
    UnknownUserError,
    UsageError,
)
from sieve_filter.gpg import temporary_home
from sieve_filter.keys import changes, x509_changes
from sieve_filter.keys import status as keyreport
from sieve_filter.keys.changes import Order, Verdicts
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.notify import post
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate, Reading
from sieve_filter.openssl import runner as openssl
from sieve_filter.owners import register
from sieve_filter.owners.owner import Owner
from sieve_filter.smime import certificate as x509
from sieve_filter.smime import private_key
from sieve_filter.smime.certificate import X509
from sieve_filter.system import places, pool, stdio
from sieve_filter.system.pool import Identity

_SUFFIXES = (".asc", ".pgp", ".gpg", ".key", ".pem", ".crt", ".cer", ".p7b")
_VET_AT_ONCE = 1 + (os.cpu_count() or 1)  # one of them always waits for its keys to be put into place
_PUT_AT_ONCE = 2 * (os.cpu_count() or 1)  # that is to wait for the disk, half of the time
_LARGE = 100_000  # octets of a certificate


def import_keys(options: argparse.Namespace, site: Site) -> int:
    if options.user:
        if not options.files:
            raise UsageError("keys import --user: name a FILE, or - for standard input")
        given, certificates = _certificates_of_files(options.files)
        whose = site.owner(options.user)
        theirs = [(whose, certificates)] if certificates else []
        keys = [(whose, given)] if given else []
        everything = Given(lambda _: iter(keys), len(given) + len(theirs), [], smime=theirs)
    else:
        if len(options.files) != 1:
            raise UsageError("--all takes one folder, or - for standard input; see cryptomail keys import --help")
        if options.foreign and options.files == ["-"]:
            raise UsageError("--foreign goes with --user, or a folder: of a stream, each key goes to its own addresses")
        everything = _orders_of_everybody(options.files[0], site)
    outcomes = everything.refused
    with progress(everything.steps, options.json) as advance:
        orders = everything.orders(advance)
        enrol_orders(orders, site, options, outcomes, advance, not everything.by_address, options.foreign)
        for whose, certificates in everything.smime:
            outcomes += _enrol_certificates(whose, certificates, site, options)
            advance(1)
    if everything.smime:
        os.sync()
    return tell_outcomes(outcomes, options.json)


def enrol_orders(
    orders: Iterable[tuple[Owner, tuple[Certificate, ...]]],
    site: Site,
    options: argparse.Namespace,
    outcomes: list[Outcome],
    advance: Advance,
    named: bool,
    foreign: bool = False,
) -> None:
    """Set up certificates, and add what became of them to `outcomes`; tell owners, unless `options` say not to.

    They are vetted many at a time, whosever they are, and by nobody; then each user's are put into place by that user.
    """
    temporary_home.sweep()
    places: dict[str, str] = {}
    nobody = pool.nobody()
    given = ((nobody, one) for one in _orders(orders, site, places, outcomes, named, foreign))
    vetting = pool.each(
        ((identity, [batch]) for identity, batch in in_chunks(given, lambda one: _weight(one[1]))),
        functools.partial(_vet, minimum_bits=site.settings.keyrings.minimum_bits),
        limits.VETTING_SECONDS,
        _VET_AT_ONCE,
    )
    desk = desk_of(options, site)
    put = functools.partial(service.set_up, desk=desk) if desk else functools.partial(_set_up, site=site)
    changed = False
    with closing(vetting):
        for batch, verdicts in vetting:
            if isinstance(verdicts, CryptomailError):
                for _, (_, order) in batch:
                    outcomes += _refused(order, verdicts)
                continue
            vetted = ((identity, (*one, its)) for (identity, one), its in zip(batch, verdicts, strict=True))
            for (_, order, _), told in pool.each(in_chunks(vetted, _weight), put, at_once=_PUT_AT_ONCE):
                done = _refused(order, told) if isinstance(told, CryptomailError) else told
                outcomes += done
                changed = changed or any(one.status.changes for one in done)
                advance(len(done))
    if changed and not desk and not options.no_notify:
        stdio.warn(f"owners were not told of it, because {post.NO_WAY}; with --no-notify, nobody is told")
    os.sync()  # one for all: a keyring that is said to be there has to be there after a power failure, too


def _enrol_certificates(
    whose: Owner, certificates: tuple[X509, ...], site: Site, options: argparse.Namespace
) -> list[Outcome]:
    """Set up S/MIME certificates: they are vetted by nobody, and put into place by their owner, who is told."""
    file = ""
    try:
        file = service.certificate_place(site.settings, whose)
        identity = pool.identity_of(whose.home, whose.uid)
        register.make(site.settings.register, *identity)
        vet = functools.partial(x509_changes.vet, certificates, site.settings.keyrings.minimum_bits)
        verdicts = pool.alone(pool.nobody(), vet)
        order = service.certificate_order(whose, certificates, site.settings, options.foreign)
        desk = desk_of(options, site)
        told = desk or Desk(site.settings, post.chosen(options), stdio.warn)
        put = functools.partial(service.set_up_certificates, whose, order, verdicts, told, telling=desk is not None)
        return pool.alone(identity, put)
    except CryptomailError as error:
        return [Outcome(whose.user, file, one.fingerprint, Status.REFUSED, str(error)) for one in certificates]


def desk_of(options: argparse.Namespace, site: Site) -> Desk | None:
    """What owners are told with; None where they are not to be told, or there is no way to."""
    where = post.chosen(options)
    return Desk(site.settings, where, stdio.warn) if post.ways(where) and not options.no_notify else None


def _vet(batch: Sequence[tuple[Identity, tuple[Owner, Order]]], minimum_bits: int) -> list[Verdicts]:
    """The verdicts on the order of each owner."""
    return changes.vet([order for _, (_, order) in batch], minimum_bits)


def _set_up(vetted: tuple[Owner, Order, Verdicts], site: Site) -> list[Outcome]:
    """Do an order, and tell nobody."""
    outcomes = changes.put([vetted[1:]], site.settings.keyrings.minimum_bits)
    service.note_enrolled(outcomes, site.settings, stdio.warn)
    return outcomes


def _refused(order: Order, error: CryptomailError) -> list[Outcome]:
    """What became of all certificates of an order that could not be done."""
    return [
        Outcome(order.user, order.keyring, one.fingerprint, Status.REFUSED, str(error)) for one in order.certificates
    ]


def _certificates_of_files(names: Sequence[str]) -> tuple[tuple[Certificate, ...], tuple[X509, ...]]:
    """The certificates in all of these files, OpenPGP's and S/MIME's. Raises RefusedKeyError unless each can be read
    whole.
    """
    found: list[Certificate] = []
    smime: list[X509] = []
    for name in names:
        data = _octets(name, limits.CERTIFICATE_FILE_OCTETS)
        if private_key.is_pkcs12(data):
            data = _without_secret_key(data, name)
        reading = x509.read(data) if x509.holds(data) else certificate.read(data)
        if problem := _problem(reading):
            raise RefusedKeyError(f"{'standard input' if name == '-' else name}: {problem}; nothing was imported")
        if isinstance(reading, Reading):
            found += reading.certificates
        else:
            smime += x509.without_issuers(reading.certificates)
    return tuple(found), tuple(smime)


def _without_secret_key(data: bytes, name: str) -> bytes:
    """The certificates in PKCS #12; all of it where nobody can tell its passphrase. Looked at with nobody's rights."""

    def opened(passphrase: str) -> bytes:
        return pool.alone(pool.nobody(), functools.partial(openssl.certificates, data, passphrase))

    pem = opened("")
    if not pem and sys.stderr.isatty():
        pem = opened(passwords.ask(name, None))
    if pem:
        stdio.warn(f"{name} holds a SECRET key besides, which is not kept: take that file off this server")
    return pem or data


def _problem(reading: Reading | x509.Reading) -> str:
    if reading.secret:
        how = "gpg --export" if isinstance(reading, Reading) else "openssl pkcs12 -nokeys"
        return f"it holds a SECRET key, which must never be on a mail server: give the public one ({how})"
    return "; ".join(reading.problems)


class Given(NamedTuple):
    """What is to be imported: the certificates by owner, in how many steps, and what of it nobody can have.

    Where owners have to be looked up, each is a step, of which `orders` tells what it is called with. `by_address` says
    that nobody named the owners but the certificates themselves. `smime` are S/MIME certificates, by owner; those that
    `orders` finds are added to it.
    """

    orders: Callable[[Advance], Iterator[tuple[Owner, tuple[Certificate, ...]]]]
    steps: int
    refused: list[Outcome]
    by_address: bool = False
    smime: Sequence[tuple[Owner, tuple[X509, ...]]] = ()


def _orders_of_everybody(source: str, site: Site) -> Given:
    """Whose certificates the folder, or standard input, has."""
    if source == "-":
        return _orders_of_stream(site)
    try:
        files = sorted(path for path in Path(source).iterdir() if path.suffix in _SUFFIXES)
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror}") from error
    if not files:
        raise UsageError(f"{source} has no file named USER.asc, USER.pgp, USER.gpg, USER.key, USER.pem or USER.crt")
    refused: list[Outcome] = []
    smime: list[tuple[Owner, tuple[X509, ...]]] = []

    def orders(advance: Advance) -> Iterator[tuple[Owner, tuple[Certificate, ...]]]:
        for path, (_, account) in zip(files, site.accounts([path.stem for path in files]), strict=True):
            advance(1)
            try:
                whose = site.owner_of(account)
                data = _octets(str(path), limits.CERTIFICATE_FILE_OCTETS, named=False)
                reading = x509.read(data) if x509.holds(data) else certificate.read(data)
                if problem := _problem(reading):
                    raise RefusedKeyError(problem)
            except CryptomailError as error:
                refused.append(Outcome(path.stem, str(path), "", Status.REFUSED, str(error)))
                advance(1)
            else:
                if isinstance(reading, Reading):
                    yield whose, reading.certificates
                else:
                    smime.append((whose, x509.without_issuers(reading.certificates)))

    return Given(orders, 2 * len(files), refused, smime=smime)


def _orders_of_stream(site: Site) -> Given:
    data = _octets("-", limits.CERTIFICATE_STREAM_OCTETS)
    if x509.holds(data):
        raise UsageError("S/MIME certificates go with --user, or with --all in a folder of USER.pem files")
    reading = certificate.read(data)
    if reading.secret:
        raise RefusedKeyError(f"standard input: {_problem(reading)}; nothing was imported")
    refused = [Outcome("", "", "", Status.REFUSED, problem) for problem in reading.problems]
    users: dict[str, list[Certificate]] = {}
    for one in reading.certificates:
        if one.problem:
            refused.append(Outcome(" ".join(sorted(one.addresses)), "", one.fingerprint, Status.REFUSED, one.problem))
        elif not one.addresses:
            refused.append(Outcome("", "", one.fingerprint, Status.REFUSED, "no user ID of it has an address"))
        for address in () if one.problem else sorted(one.addresses):
            users.setdefault(address, []).append(one)

    def orders(advance: Advance) -> Iterator[tuple[Owner, tuple[Certificate, ...]]]:
        strangers: dict[Certificate, Outcome] = {}
        theirs: set[Certificate] = set()
        for user, account in site.accounts(list(users)):
            advance(1)
            certificates = users[user]
            try:
                whose = site.owner_of(account)
                # A stranger's address must not make a directory: only who is there already is a user.
                if site.template is not None and not Path(whose.home).is_dir():
                    raise UnknownUserError(f"there is no such user: {whose.home} is not a directory")
            except (CryptomailError, OSError) as error:
                strangers |= {
                    one: Outcome(user, "", one.fingerprint, Status.REFUSED, str(error)) for one in certificates
                }
                advance(len(certificates))
            else:
                theirs.update(certificates)
                yield whose, tuple(certificates)
        # People have other addresses too: what counts is that one of a certificate's is a user's.
        refused.extend(outcome for one, outcome in strangers.items() if one not in theirs)

    return Given(orders, len(users) + sum(map(len, users.values())), refused, by_address=True)


def _orders(
    given: Iterable[tuple[Owner, tuple[Certificate, ...]]],
    site: Site,
    places: dict[str, str],
    refused: list[Outcome],
    named: bool,
    foreign: bool,
) -> Iterator[tuple[Identity, tuple[Owner, Order]]]:
    for whose, certificates in given:
        keyring = site.keyring(whose)
        try:
            if places.setdefault(keyring, whose.user) != whose.user:
                raise RefusedKeyError(f"its keyring would be that of {places[keyring]}: mend keyrings.owner")
            identity = pool.identity_of(whose.home, whose.uid)
            register.make(site.settings.register, *identity)
        except CryptomailError as error:
            refused.extend(
                Outcome(whose.user, keyring, one.fingerprint, Status.REFUSED, str(error)) for one in certificates
            )
        else:
            yield identity, (whose, service.order(whose, certificates, site.settings, named, foreign))


def _weight(one: tuple[Any, ...]) -> int:
    """How many certificates an order has, where a large one counts for more; it is behind its owner."""
    return sum(1 + len(certificate.packets) // _LARGE for certificate in one[1].certificates)


def _part(number: int, of: int) -> str:
    return f"{number} of {keyreport.counted(of, 'key')} {'was' if number == 1 else 'were'}"


def tell_outcomes(outcomes: list[Outcome], as_json: bool) -> int:
    """Write the report. Returns the exit code, where all is well; else raises what says how many are not."""
    counts = Counter(one.status for one in outcomes)
    if as_json:
        stdio.tell(json.dumps([{**one._asdict(), "status": one.status.value} for one in outcomes], indent=2))
    else:
        told = outcomes
        if sys.stdout.isatty() and len(told) > ROWS:
            told = [one for one in outcomes if one.note]
        table(("user", "what", "key", "why"), [(one.user, one.status.value, one.fingerprint, one.note) for one in told])
        stdio.tell(", ".join(f"{counts[one]} {one.value}" for one in Status if counts[one] or not one.rare))
    if refused := counts[Status.REFUSED]:
        raise RefusedKeyError(f"{_part(refused, len(outcomes))} refused: see the report")
    if revoked := counts[Status.REVOKED]:
        raise RefusedKeyError(f"{_part(revoked, len(outcomes))} revoked: see the report")
    if different := counts[Status.DIFFERENT]:
        raise RefusedKeyError(f"{different} of {len(outcomes)} keys are other ones than before: see the report")
    if failed := counts[Status.FAILED]:
        raise ServiceError(f"{failed} of {len(outcomes)} users' keys could not be looked up: see the report")
    return os.EX_OK


def _octets(name: str, most: int, named: bool = True) -> bytes:
    """What is in a file, or in standard input; in a pipe only where that was `named`. Raises FileError."""
    try:
        if name == "-":
            data = sys.stdin.buffer.read(most + 1)
        else:
            with open(name, "rb", opener=None if named else places.open_file) as file:
                data = file.read(most + 1)
    except places.NotAFileError as error:
        raise FileError(f"{name} is not a file") from error
    except OSError as error:
        raise FileError(f"cannot read {name}: {error.strerror}") from error
    if len(data) > most:
        raise RefusedKeyError(f"{name} is larger than {most} octets")
    return data
