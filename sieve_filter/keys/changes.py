"""Puts keys into an owner's keyring, and takes them out, so that a delivery sees the old one or the new one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import CryptomailError, PlaceError, RefusedKeyError
from sieve_filter.gpg import keybox, keyrings, temporary_home
from sieve_filter.gpg.colons import Key
from sieve_filter.keys import usable, vetting
from sieve_filter.keys.outcome import Outcome, Status
from sieve_filter.keys.store import Store, opened
from sieve_filter.keys.vetting import Newer, Revoked, Verdict, Vetted
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.openpgp.packets import key_id
from sieve_filter.system.signals import at_most


class Order(NamedTuple):
    """What is to be set up for one owner.

    `addresses` are the owner's. `named` says that somebody named this owner: then all of `certificates` are taken or
    none; else each is taken for itself. Each needs an address of these, unless `foreign` says that it is meant for the
    owner all the same, which gives a warning.
    What a key that is there already says of its own revocation is taken in any case: nobody else can say it. Where
    there is no keyring yet, a GnuPG home is made; with `as_file`, a file of certificates.
    """

    user: str
    keyring: str
    certificates: tuple[Certificate, ...]
    addresses: frozenset[str]
    named: bool
    as_file: bool = False
    foreign: bool = False


# What the quarantine says of each certificate of an order.
Verdicts = tuple[Verdict, ...]


class _Rules(NamedTuple):
    """How it is done: see `put`."""

    minimum_bits: int
    before_change: Callable[[Order], object]


def enrol(orders: Sequence[Order], minimum_bits: int) -> list[Outcome]:
    """Vet the certificates of all `orders`, and put those that are fine in their places. No error of one stops another.

    Runs as the user whose keyrings they are.
    """
    return put(list(zip(orders, vet(orders, minimum_bits), strict=True)), minimum_bits)


def vet(orders: Sequence[Order], minimum_bits: int) -> list[Verdicts]:
    """The verdicts on each of `orders`. Runs as anybody: no keyring is looked at."""
    verdicts = vetting.vet([one for order in orders for one in order.certificates], minimum_bits)
    return [tuple(verdicts[one] for one in order.certificates) for order in orders]


def put(
    vetted: Sequence[tuple[Order, Verdicts]],
    minimum_bits: int,
    before_change: Callable[[Order], object] = lambda _: None,
) -> list[Outcome]:
    """Put the certificates that are fine in their places. Runs as the user whose keyrings they are.

    `before_change` is called with an order each time just before the keyring becomes another.
    """
    rules = _Rules(minimum_bits, before_change)
    return [outcome for order, verdicts in vetted for outcome in _put_one(order, verdicts, rules)]


class Removed(NamedTuple):
    """A certificate that was taken out of a keyring, in packets, and how many that still has."""

    packets: bytes
    left: int


def remove(keyring: str, fingerprint: str) -> Removed:
    """Take a certificate out of a keyring. Raises RefusedKeyError where it is not in there, and PlaceError."""
    with opened(keyring) as store:
        there, newer = store.certificates, store.newer_certificates
        if fingerprint in newer:
            store.replace_newer(b"".join(raw for name, raw in newer.items() if name != fingerprint))
        elif fingerprint not in there:
            raise RefusedKeyError(f"there is no key {fingerprint} in {keyring}")
        elif content := store.without(fingerprint):
            store.replace(content)
        else:
            store.remove()
        return Removed((there | newer)[fingerprint], len(there) + len(newer) - 1)


def clashing(stored: Sequence[str], fingerprint: str) -> str | None:
    """The one of the fingerprints `stored` that has the key ID of `fingerprint` but is another key's, if there is one.

    A key ID is 64 bits of a fingerprint (RFC 9580 section 5.5.4): too few to rely on.
    """
    same = (one for one in stored if key_id(one) == key_id(fingerprint) and one != fingerprint)
    return next(same, None)


def _put_one(order: Order, verdicts: Verdicts, rules: _Rules) -> Iterator[Outcome]:
    def outcome(fingerprint: str, status: Status, note: str) -> Outcome:
        return Outcome(order.user, order.keyring, fingerprint, status, note)

    fine: list[Vetted | Newer] = []
    refused = False
    for one, told in zip(order.certificates, verdicts, strict=True):
        verdict = vetting.believed(one, told)
        if isinstance(verdict, Vetted | Newer) and (order.foreign or _is_theirs(verdict.key, order)):
            fine.append(verdict)
            continue
        if isinstance(verdict, Revoked):
            status, note = _revoke(order, verdict, rules)
        elif isinstance(verdict, str):
            status, note = Status.REFUSED, verdict
        elif order.named:
            status, note = (
                Status.REFUSED,
                f"{_strange(verdict.key)}; where that is meant, the administrator imports it with --foreign",
            )
        else:
            status, note = Status.REFUSED, f"no valid user ID of it has the address {order.user}"
        refused = refused or status == Status.REFUSED
        yield outcome(one.fingerprint, status, note)
    if order.named and refused:
        note = "another certificate that was given with it is refused"
        yield from (outcome(one.key.fingerprint, Status.REFUSED, note) for one in fine)
        return
    if not fine:
        return
    older = [one for one in fine if isinstance(one, Vetted)]
    given = {one.fingerprint: one for one in order.certificates}
    newer = {given[one.key.fingerprint]: one for one in fine if isinstance(one, Newer)}
    statuses: dict[str, Status] = {}
    try:
        if older:
            statuses |= _place(order, older, rules)
        if newer:
            statuses |= _place_newer(order, newer, rules)
    except (CryptomailError, OSError) as error:
        why = f"{error.strerror}: {order.keyring}" if isinstance(error, OSError) else str(error)
        refused_now = (one.key.fingerprint for one in fine if one.key.fingerprint not in statuses)
        yield from (outcome(fingerprint, Status.REFUSED, why) for fingerprint in refused_now)
    for fingerprint, taken in {one.key.fingerprint: one for one in fine}.items():
        if fingerprint in statuses:
            warnings = _warnings(taken, order)
            yield outcome(fingerprint, statuses[fingerprint], f"warning: {'; '.join(warnings)}" if warnings else "")


def _warnings(vetted: Vetted | Newer, order: Order) -> list[str]:
    """What is to be said of a certificate that was taken all the same."""
    warnings = [] if _is_theirs(vetted.key, order) else [_strange(vetted.key)]
    if days := usable.short_life(vetted.key, vetted.subkey):
        warnings.append(f"its encryption subkey is good for {days} days only: set up the next in time, or mail waits")
    return warnings


def _is_theirs(key: Key, order: Order) -> bool:
    """Whether a user ID of it has an address of the owner's. Of a user without a domain, any domain will do."""
    if order.named and order.user.lower() in {address.rpartition("@")[0] for address in key.addresses}:
        return True
    return bool(key.addresses & order.addresses)


def _strange(key: Key) -> str:
    has = ", ".join(sorted(key.addresses)) or "no address"
    return f"none of its user IDs has an address of this user's; it has {has}"


def _place(order: Order, vetted: Sequence[Vetted], rules: _Rules) -> dict[str, Status]:
    """Put certificates into a keyring. Returns, for each fingerprint, what became of it."""
    with opened(order.keyring, make=True, as_file=order.as_file) as store:
        there = store.certificates
        added: dict[str, bytes] = {}
        merged: list[Vetted] = []  # other versions of what is there, which it takes GnuPG to put together
        for one in vetted:
            fingerprint, packets = one.key.fingerprint, keybox.packets(one.blob)
            if fingerprint not in there:
                there[fingerprint], added[fingerprint] = packets, one.blob
            elif there[fingerprint] != packets:
                merged.append(one)
        statuses = {one.key.fingerprint: Status.UNCHANGED for one in vetted} | dict.fromkeys(added, Status.IMPORTED)
        if not added and not merged:
            return statuses
        _refuse_clashes(store.keys, vetted)
        content = store.with_added(vetted[0].header, added)
        if store.content or merged:
            with _copy(store, content) as home:
                statuses |= dict.fromkeys(_merge(home, merged) - added.keys(), Status.RENEWED)
                _try_out(home, statuses, merged, rules.minimum_bits)
                content = _content(store, home) if merged else content
            if not there.keys() <= store._replace(content=content).certificates.keys():
                raise RefusedKeyError("gpg lost a key that was there")
        if set(statuses.values()) != {Status.UNCHANGED}:
            rules.before_change(order)
            store.replace(content)
        return statuses


def _place_newer(order: Order, vetted: Mapping[Certificate, Newer], rules: _Rules) -> dict[str, Status]:
    """Put certificates that GnuPG cannot read into a keyring. Returns, for each fingerprint, what became of it."""
    with opened(order.keyring, make=True, as_file=order.as_file) as store:
        there = store.newer_certificates
        _refuse_clashes(store.keys, [*vetted.values()])
        content = dict(there)
        statuses: dict[str, Status] = {}
        for one in vetted:
            name = one.fingerprint
            content[name] = _merged(content[name], one, rules.minimum_bits) if name in content else one.packets
            changed = Status.RENEWED if name in there else Status.IMPORTED
            statuses[name] = Status.UNCHANGED if content[name] == there.get(name) else changed
        if content != there:
            rules.before_change(order)
            store.replace_newer(b"".join(content.values()))
        return statuses


def _merged(stored: bytes, one: Certificate, minimum_bits: int) -> bytes:
    """Two versions of a certificate that GnuPG cannot read as one, if mail can be encrypted to that.

    What is stored already counts too: a key that was revoked once does not come back with an older copy of it.
    """
    from sieve_filter.keys import newer  # hardly any owner has such keys

    merged, key = newer.merged(stored, one)
    vetting.judge(key, minimum_bits)
    return merged


def _revoke(order: Order, revoked: Revoked, rules: _Rules) -> tuple[Status, str]:
    """Take the revocation of a key over into a keyring that has that key. Returns what became of it, and the note."""
    try:
        with opened(order.keyring) as store:
            if revoked.key.fingerprint in store.newer_certificates:
                return _revoke_newer(order, store, revoked, rules)
            if revoked.key.fingerprint not in store.certificates:
                return Status.REFUSED, revoked.reason
            with _copy(store, store.content) as home:
                before = {key.fingerprint: key for key in vetting.read_listing(home)}
                old = before.get(revoked.key.fingerprint)
                if old is None:
                    return Status.REFUSED, revoked.reason
                keyrings.import_keys(str(home), revoked.packets)
                after = {key.fingerprint: key for key in vetting.read_listing(home)}
                if after.keys() != before.keys():
                    raise PlaceError(f"gpg lost a key of {order.keyring} in a copy of it; nothing is done")
                content = _content(store, home)
            new = after[revoked.key.fingerprint]
            newly = usable.revoked(new) - usable.revoked(old)
            if newly:
                rules.before_change(order)
                store.replace(content)
    except RefusedKeyError:
        return Status.REFUSED, revoked.reason
    except (CryptomailError, OSError) as error:
        why = f"{error.strerror}: {order.keyring}" if isinstance(error, OSError) else str(error)
        return Status.REFUSED, f"{revoked.reason}, and that cannot be taken over: {why}"
    try:
        vetting.judge(new, rules.minimum_bits)
    except RefusedKeyError as error:
        return Status.REVOKED, str(error)
    return (Status.RENEWED if newly else Status.UNCHANGED), ""


def _revoke_newer(order: Order, store: Store, revoked: Revoked, rules: _Rules) -> tuple[Status, str]:
    """The same for a key that GnuPG cannot read. Raises RefusedKeyError, PlaceError."""
    from sieve_filter.keys import newer  # hardly any owner has such keys

    there = store.newer_certificates
    name = revoked.key.fingerprint
    (one,) = certificate.read(revoked.packets).certificates
    merged, key = newer.merged(there[name], one)
    content = there | {name: merged}
    newly = not certificate.is_of(merged, there[name])
    if newly:
        rules.before_change(order)
        store.replace_newer(b"".join(content.values()))
    try:
        vetting.judge(key, rules.minimum_bits)
    except RefusedKeyError as error:
        return Status.REVOKED, str(error)
    return (Status.RENEWED if newly else Status.UNCHANGED), ""


def _merge(home: Path, versions: Sequence[Vetted]) -> set[str]:
    """Have gpg import other versions of certificates into a copy of a keyring. Returns those that it changes."""
    changed: set[str] = set()
    for one in versions:
        done = keyrings.import_keys(str(home), keybox.packets(one.blob))
        if one.key.fingerprint not in done.new:
            raise RefusedKeyError(f"gpg does not put it beside the keys that are there: {done.complaint}")
        changed |= done.changed
    return changed


def _try_out(home: Path, fingerprints: Iterable[str], merged: Sequence[Vetted], minimum_bits: int) -> None:
    """See that mail can be encrypted to those certificates in a copy of the keyring, as it is to be.

    What is stored already counts too: a key that was revoked once does not come back with an older copy of it. Those
    that GnuPG did not merge with another version were tried out as they are.
    """
    listed = {key.fingerprint: key for key in vetting.read_listing(home)}
    if not listed.keys() >= set(fingerprints):
        raise RefusedKeyError("gpg does not find it beside the keys that are there")
    chosen = {one: vetting.judge(listed[one], minimum_bits) for one in fingerprints}
    if merged:
        vetting.try_out(home, [chosen[one] for one in dict.fromkeys(one.key.fingerprint for one in merged)])


def _refuse_clashes(stored: Iterable[str], vetted: Sequence[Vetted | Newer]) -> None:
    known = list(stored)
    for one in vetted:
        for subkey in one.key.subkeys:
            if other := clashing(known, subkey.fingerprint):
                raise RefusedKeyError(f"it has the same key ID as {other}, which is another key")
        known += [subkey.fingerprint for subkey in one.key.subkeys]


@contextmanager
def _copy(store: Store, content: bytes) -> Iterator[Path]:
    """A GnuPG home with a copy of the keyring, which has that content, until the block ends.

    That is no longer than a quarantine may take.
    """
    with temporary_home.made() as home, at_most(limits.QUARANTINE_SECONDS):
        (home / store.copied).write_bytes(content)
        yield home


def _content(store: Store, home: Path) -> bytes:
    """What gpg made of the copy in `home`, as it is in the keyring."""
    return keyrings.export_keys(str(home)) if store.alone else (home / store.copied).read_bytes()
