"""Puts S/MIME certificates into an owner's file, and takes them out, so that a delivery sees the old or the new one."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import CryptomailError, EncryptionError, PlaceError, RefusedKeyError
from sieve_filter.keys import store, usable, x509
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.openssl import runner
from sieve_filter.openssl.runner import Recipient
from sieve_filter.owners.owner import Owner
from sieve_filter.smime import certificate, cms, envelope
from sieve_filter.smime.certificate import X509
from sieve_filter.system import places
from sieve_filter.system.signals import at_most


class Order(NamedTuple):
    """Certificates that are to be set up for one owner, all or none, in that file.

    Each needs an address of the owner's, unless `foreign` says that it is meant for the owner all the same, which gives
    a warning. `kept` are put into the file besides: they count now, in a place that will not.
    """

    owner: Owner
    file: str
    certificates: tuple[X509, ...]
    foreign: bool = False
    kept: tuple[X509, ...] = ()


class Removed(NamedTuple):
    """A certificate that was taken out of a file, and how many that still has."""

    certificate: X509
    left: int


def vet(certificates: tuple[X509, ...], minimum_bits: int) -> tuple[str, ...]:
    """In words why mail cannot be encrypted to each of them; empty where it can. Runs as anybody."""
    with at_most(limits.QUARANTINE_SECONDS):
        return tuple(_problem(one, minimum_bits) for one in certificates)


def put(order: Order, verdicts: Sequence[str], before_change: Callable[[], object] = lambda: None) -> list[Outcome]:
    """Put the certificates into their file, unless a verdict is against one. Runs as the user whose file it is.

    `before_change` is called just before the file becomes another.
    """
    if refused_ones := refused(order, verdicts):
        return refused_ones
    try:
        return [*_put(order, before_change)]
    except (CryptomailError, OSError) as error:
        why = f"{error.strerror}: {order.file}" if isinstance(error, OSError) else str(error)
        return refused(order, [why for _ in verdicts])


def refused(order: Order, verdicts: Sequence[str]) -> list[Outcome]:
    """What becomes of the certificates where a verdict is against one, or one is somebody else's; else nothing."""
    problems = [verdict or _strange(one, order) for one, verdict in zip(order.certificates, verdicts, strict=True)]
    other = "another certificate that was given with it is refused"
    return [
        Outcome(order.owner.user, order.file, one.fingerprint, Status.REFUSED, problem or other)
        for one, problem in zip(order.certificates, problems, strict=True)
        if any(problems)
    ]


def remove(file: str, fingerprint: str) -> Removed | None:
    """Take a certificate out of a file; None where it is not in there. Raises PlaceError."""
    if not Path(file).is_file():
        return None
    with store.opened(file) as opened:
        there = _certificates(opened)
        removed = next((one for one in there if one.fingerprint == fingerprint), None)
        if removed is None:
            return None
        left = [one for one in there if one != removed]
        if left:
            opened.replace(certificate.pem(one.der for one in left))
        else:
            opened.remove()
        return Removed(removed, len(left))


def _problem(one: X509, minimum_bits: int) -> str:
    now = int(time.time())
    if not one.encrypts:
        return "it is not for encryption, as its key usage says: it may be one for signatures only"
    if one.begins > now:
        return f"it is not valid before {time.strftime('%Y-%m-%d', time.gmtime(one.begins))}"
    chosen = usable.choose(x509.key(one), minimum_bits, now)
    if isinstance(chosen, str):
        return f"it {chosen}"
    ciphertext = bytearray()
    try:
        pem = certificate.pem([one.der])
        recipient = Recipient(pem, one.algorithm == certificate.RSA)
        runner.encrypt([b"trial\n"], ciphertext.extend, [recipient], envelope.CBC, oaep=False)
    except EncryptionError as error:
        return str(error)
    walker = envelope.Walker()
    walker.feed(bytes(ciphertext))
    written = walker.finish()
    if written is None or written.recipients != (one.issuer_and_serial,) or not cms.enveloped(bytes(ciphertext)):
        return "what openssl encrypts to it is not what was asked for"
    return ""


def _strange(one: X509, order: Order) -> str:
    if order.foreign or _is_theirs(one, order):
        return ""
    return f"{_has(one)}; where that is meant, the administrator imports it with --foreign"


def _is_theirs(one: X509, order: Order) -> bool:
    return any(map(order.owner.has, one.addresses))


def _has(one: X509) -> str:
    has = ", ".join(sorted(one.addresses)) or "no address"
    return f"it has no address of this user's; it has {has}"


def _put(order: Order, before_change: Callable[[], object]) -> Iterator[Outcome]:
    # The directory of the default place is made, as a keyring's is.
    with places.opened(str(Path(order.file).parent), make=True):
        pass
    with store.opened(order.file, as_file=True) as opened:
        there = _certificates(opened)
        names = {(one.issuer_and_serial): one for one in there}
        for one in order.certificates:
            if (same := names.setdefault(one.issuer_and_serial, one)) != one:
                raise RefusedKeyError(f"it has the issuer and serial number of {same.fingerprint}, which is another")
        added = [one for one in order.certificates if one not in there]
        if added:
            before_change()
            opened.replace(certificate.pem(one.der for one in dict.fromkeys([*there, *order.kept, *added])))
    for one in dict.fromkeys(order.certificates):
        note = "" if _is_theirs(one, order) else f"warning: {_has(one)}"
        status = Status.IMPORTED if one in added else Status.UNCHANGED
        yield Outcome(order.owner.user, order.file, one.fingerprint, status, note)


def _certificates(opened: store.Store) -> tuple[X509, ...]:
    if not opened.content:
        return ()
    reading = certificate.read(opened.content)
    if reading.secret or reading.problems:
        raise PlaceError(f"cannot read {opened.keyring}: {reading.problems[0] if reading.problems else 'a secret key'}")
    return reading.certificates
