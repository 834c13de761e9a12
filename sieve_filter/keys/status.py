"""What `cryptomail keys` tells about owners' keys. Pure: gpg's listing in, judgements and text out."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.keys import kinds, usable
from sieve_filter.keys.decision import Decision, Encrypt, StoreClear, Wait
from sieve_filter.keys.recipients import Found, Recipients

# The states of Nagios' plugins, which are their exit codes too; and which counts as worse.
OK, WARNING, CRITICAL, UNKNOWN = range(4)
NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
WORSE = (OK, WARNING, UNKNOWN, CRITICAL)

_SHA1 = b"2"  # RFC 9580 section 9.5
_DAY = 86_400
_EDDSA = 22
_CURVES = {255: "Ed25519", 256: "Ed25519", 441: "Ed448", 456: "Ed448"}
_ALGORITHMS = {1: "RSA", 2: "RSA", 3: "RSA", 16: "ElGamal", 17: "DSA", 18: "ECDH", 19: "ECDSA", 20: "ElGamal"}
_ALGORITHMS |= {_EDDSA: "EdDSA", 25: "X25519", 26: "X448", 27: "Ed25519", 28: "Ed448"}
_ALGORITHMS |= {30: "ML-DSA-65+Ed25519", 31: "ML-DSA-87+Ed448", 32: "SLH-DSA", 33: "SLH-DSA", 34: "SLH-DSA"}
_ALGORITHMS |= {35: "ML-KEM-768+X25519", 36: "ML-KEM-1024+X448"}  # RFC 9980 section 4
_QUANTUM = {True: "no quantum computer is known to open mail to it", False: "a quantum computer could read mail to it"}
_ONE_SIZE = range(25, 37)  # algorithms with a size that their name says


class KeyState(NamedTuple):
    """One key of an owner's.

    `used` is the fingerprint of the subkey that mail is encrypted to, empty where it is not; `expires` the seconds
    since 1970 at which that ends, None for never; `problem` why it is not used, or what is wrong with it all the same.
    `post_quantum` says that no quantum computer is known to open mail to it; `rare` why few programs can read that
    mail, and is empty where most can.
    `smime` says that it is an S/MIME certificate.
    """

    fingerprint: str
    addresses: tuple[str, ...]
    algorithm: int
    bits: int
    created: int
    expires: int | None
    used: str
    problem: str
    post_quantum: bool = False
    rare: str = ""
    smime: bool = False


class OwnerState(NamedTuple):
    """An owner's keys, and how that is: one of the four states, and in words why."""

    user: str
    home: str
    state: int
    notes: tuple[str, ...]
    keys: tuple[KeyState, ...]

    @property
    def post_quantum(self) -> bool:
        """Whether mail is encrypted, and to nothing that a quantum computer is known to open."""
        used = [key.post_quantum for key in self.keys if key.used]
        return bool(used) and all(used)

    @property
    def rare(self) -> tuple[str, ...]:
        """In words, of each key in use that few programs know, which it is and why."""
        return tuple(f"key {key.fingerprint} can be used by few programs: {key.rare}" for key in self.keys if key.rare)


class Wiring(NamedTuple):
    """Whether Dovecot's deliveries call the filter: one of the four states, and in words what is wrong.

    It says nothing of any owner, and is none.
    """

    state: int
    note: str


class Check(NamedTuple):
    """What `cryptomail keys check` found: the owners that it looked at, the number of accounts that are no owners', and
    whether deliveries call the filter. `failure` says why it could not look at all, and is empty where it could.
    """

    owners: Sequence[OwnerState]
    passed_over: int
    wiring: Wiring
    failure: str = ""


class Rules(NamedTuple):
    """What counts as wrong; `now` is seconds since 1970."""

    minimum_bits: int
    warn_days: int
    now: int


def judge(found: Found, decision: Decision, notes: Sequence[str], rules: Rules) -> OwnerState:
    """The state of an owner whose keys are `found`, with gpg's listing, and for whom a delivery makes that decision.

    `notes` are what is wrong with the keyring's files.
    """
    if not found.holdings:
        if found.lost and isinstance(decision, Wait):
            return OwnerState(found.user, "", CRITICAL, (str(decision.error),), ())
        level = CRITICAL if isinstance(decision, Wait) else WARNING if found.strangers else OK
        return OwnerState(found.user, "", level, ("has no key", *found.doubts), ())
    said = [*notes, *found.doubts]
    state = WARNING if said else OK
    states: list[KeyState] = []
    recipients = decision.recipients if isinstance(decision, Encrypt) else Recipients((), (), ())
    for holding in found.holdings:
        hashed = _hashes(holding.listing)
        for key in holding.keys:
            one, level, problem = _judge_key(key, hashed, recipients, rules, holding.certificates is not None)
            one = one._replace(smime=holding.certificates is not None)
            states.append(one)
            if problem:
                said.append(f"key {key.fingerprint} {problem}")
                state = max(state, level, key=WORSE.index)
    if not isinstance(decision, Encrypt):
        state = CRITICAL
        said.append("mail is stored in clear" if isinstance(decision, StoreClear) else "mail waits")
    elif len(states) > 1:
        used = sum(bool(one.used) for one in states)
        said.append(f"has {len(states)} keys, of which {used} {'is' if used == 1 else 'are'} used")
    return OwnerState(found.user, found.holdings[0].home.path, state, tuple(said), tuple(states))


def unreadable(user: str, error: str) -> OwnerState:
    """The state of an owner whose keyring cannot be read: mail waits."""
    return OwnerState(user, "", CRITICAL, (error,), ())


def lost(user: str, why: str) -> OwnerState:
    """The state of an owner whose mail is encrypted, as is noted, and who cannot be found: mail waits."""
    said = f"had a key, and is lost: {why}; mail waits. To store it in clear: cryptomail keys off --user {user}"
    return OwnerState(user, "", CRITICAL, (said,), ())


def unknown(user: str, error: str) -> OwnerState:
    """The state of an owner about whom nothing can be said."""
    return OwnerState(user, "", UNKNOWN, (error,), ())


def failed(why: str) -> Check:
    """A check that could not be done."""
    return Check((), 0, Wiring(OK, ""), why)


def worst(check: Check) -> int:
    """The worst state of all; UNKNOWN where there are no owners, and nothing worse."""
    levels = [*(one.state for one in check.owners), check.wiring.state]
    levels += [UNKNOWN] if check.failure or not check.owners else []
    return max(levels, key=WORSE.index)


def counted(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def summary(check: Check) -> str:
    """One line in the manner of Nagios' plugins: state, numbers, and behind a bar the numbers for a machine."""
    if check.failure:
        return f"KEYS {NAMES[worst(check)]} - {check.failure}"
    counts = _counts(check.owners)
    keyless = sum(not one.keys and one.state == OK for one in check.owners)
    worse = ", ".join(f"{counts[name]} {name.lower()}" for name in ("CRITICAL", "UNKNOWN", "WARNING") if counts[name])
    numbers = " ".join(f"{name.lower()}={count}" for name, count in counts.items())
    text = (
        counted(len(check.owners), "user")
        + (f", {keyless} without a key" if keyless else "")
        + (f": {worse}" if worse else "")
    )
    text += f" ({counted(check.passed_over, 'account')} passed over)" if check.passed_over else ""
    text += f"; wiring: {NAMES[check.wiring.state].lower()}" if check.wiring.state != OK else ""
    quantum = sum(one.post_quantum for one in check.owners)
    more = f"without_key={keyless} post_quantum={quantum} passed_over={check.passed_over}"
    return f"KEYS {NAMES[worst(check)]} - {text} | users={len(check.owners)} {numbers} {more}"


def lines(check: Check) -> list[str]:
    """A line for what is wrong with the wiring, one for each owner who is not all right, and for each rare key."""
    owners = (f"{NAMES[one.state]}: {one.user}: {'; '.join(one.notes)}" for one in check.owners if one.state != OK)
    rare = (f"{NAMES[OK]}: {one.user}: {text}" for one in check.owners for text in one.rare)
    return [
        *([f"{NAMES[check.wiring.state]}: {check.wiring.note}"] if check.wiring.state != OK else []),
        *owners,
        *rare,
    ]


def quantum_lines(check: Check) -> list[str]:
    """A line for each owner whose mail a quantum computer could read, with the keys that make it so."""
    return [
        f"QUANTUM: {one.user}: a quantum computer could read mail to {', '.join(open_keys)}"
        for one in check.owners
        if (open_keys := [f"key {key.fingerprint}" for key in one.keys if key.used and not key.post_quantum])
    ]


def rows(states: Iterable[OwnerState]) -> list[tuple[str, ...]]:
    """A row for each key: user, fingerprint, addresses, expiry, what it is used for."""
    return [
        (one.user, key.fingerprint, " ".join(key.addresses), _day(key.expires), key.problem or "used")
        for one in states
        for key in one.keys
    ]


def details(state: OwnerState) -> list[str]:
    """All about one owner's keys, a line each."""
    out = [f"{state.user}: {NAMES[state.state]}"]
    out += [f"  keyring:     {state.home}"] if state.home else []
    out += [f"  note:        {note}" for note in state.notes]
    for key in state.keys:
        out += [
            f"  key:         {key.fingerprint}",
            f"    addresses: {', '.join(key.addresses) or '-'}",
            f"    kind:      {_kind(key)}, made on {_day(key.created)}",
            f"    expires:   {_day(key.expires)}",
            f"    used:      {key.used or f'no: it {key.problem}'}",
        ]
        if key.used:
            out.append(f"    quantum:   {_QUANTUM[key.post_quantum]}")
        if key.rare:
            out.append(f"    programs:  few can use it: {key.rare}")
    return out


def as_json(states: Iterable[OwnerState]) -> str:
    """The states as a JSON array of objects with the names of their attributes; `state` is a word."""
    return json.dumps(_objects(states), indent=2)


def check_as_json(check: Check) -> str:
    """A check as a JSON object with the names of its attributes, and with the worst state."""
    whole = {"state": NAMES[worst(check)]} | check._asdict()
    wiring = check.wiring._asdict() | {"state": NAMES[check.wiring.state]}
    return json.dumps(whole | {"wiring": wiring, "owners": _objects(check.owners)}, indent=2)


def _objects(states: Iterable[OwnerState]) -> list[dict[str, object]]:
    return [
        one._asdict()
        | {"state": NAMES[one.state], "keys": [key._asdict() for key in one.keys], "post_quantum": one.post_quantum}
        for one in states
    ]


def _counts(states: Sequence[OwnerState]) -> dict[str, int]:
    return {name: sum(one.state == code for one in states) for code, name in enumerate(NAMES)}


def as_prometheus(check: Check) -> str:
    """A check in Prometheus' text format, for node_exporter's textfile collector."""
    states = check.owners
    out = [
        "# HELP cryptomail_check_state The worst of all: 0 OK, 1 warning, 2 critical, 3 unknown.",
        "# TYPE cryptomail_check_state gauge",
        f"cryptomail_check_state {worst(check)}",
        "# HELP cryptomail_wiring_state Whether deliveries call the filter: 0 OK, 1 warning, 2 critical.",
        "# TYPE cryptomail_wiring_state gauge",
        f"cryptomail_wiring_state {check.wiring.state}",
        "# HELP cryptomail_key_users Mailbox owners by the state of their keys.",
        "# TYPE cryptomail_key_users gauge",
    ]
    out += [f'cryptomail_key_users{{state="{name.lower()}"}} {count}' for name, count in _counts(states).items()]
    out += [
        "# HELP cryptomail_key_users_post_quantum Owners whose mail no quantum computer is known to open.",
        "# TYPE cryptomail_key_users_post_quantum gauge",
        f"cryptomail_key_users_post_quantum {sum(one.post_quantum for one in states)}",
        "# HELP cryptomail_key_accounts_passed_over Accounts that are no mailbox owners'.",
        "# TYPE cryptomail_key_accounts_passed_over gauge",
        f"cryptomail_key_accounts_passed_over {check.passed_over}",
    ]
    out += ["# HELP cryptomail_key_state 0 OK, 1 warning, 2 critical, 3 unknown.", "# TYPE cryptomail_key_state gauge"]
    out += [f"cryptomail_key_state{labels({'user': one.user})} {one.state}" for one in states]
    out += [
        "# HELP cryptomail_keys_used Keys that an owner's mail is encrypted to.",
        "# TYPE cryptomail_keys_used gauge",
    ]
    out += [
        f"cryptomail_keys_used{labels({'user': one.user})} {sum(bool(key.used) for key in one.keys)}" for one in states
    ]
    out += [
        "# HELP cryptomail_key_expires_seconds When a key in use expires, in seconds since 1970.",
        "# TYPE cryptomail_key_expires_seconds gauge",
    ]
    out += [
        f"cryptomail_key_expires_seconds{labels({'user': one.user, 'fingerprint': key.fingerprint})} {key.expires}"
        for one in states
        for key in one.keys
        if key.used and key.expires is not None
    ]
    return "\n".join(out)


def _judge_key(
    key: Key, hashed: Mapping[str, bytes], recipients: Recipients, rules: Rules, smime: bool
) -> tuple[KeyState, int, str]:
    """A key, the level of what is wrong with it, and that in words."""
    renew = "set up the next one beside it" if smime else "have it renewed"
    primary = key.subkeys[0]
    used = next((one for one in key.subkeys if one.fingerprint in recipients.fingerprints), None)
    chosen = usable.choose(key, rules.minimum_bits, rules.now)
    if isinstance(chosen, str):
        if used is None:
            return _state(key, None, primary.expires, chosen), WARNING, f"{chosen}; it is not used"
        problem = f"{chosen}; mail is encrypted to it all the same: {renew}"
        return _state(key, used, _ends(primary, used), problem), WARNING, problem
    expires = _ends(primary, chosen)
    level, problem = OK, ""
    if expires is not None and expires - rules.now <= rules.warn_days * _DAY:
        level, problem = WARNING, f"expires on {_day(expires)}: {renew}"
    elif primary.algorithm in (16, 17, 20):
        level, problem = WARNING, "is of an old kind (DSA or ElGamal): have it replaced"
    elif primary.algorithm in (1, 3) and primary.bits < rules.minimum_bits:
        level, problem = WARNING, f"has a primary key of {primary.bits} bits only: have it replaced"
    elif days := usable.short_life(key, chosen):
        level = WARNING
        problem = f"has an encryption subkey that is good for {days} days only: set up the next in time, or mail waits"
    elif _SHA1 in (hashed.get(chosen.fingerprint), hashed.get(primary.fingerprint)):
        level, problem = WARNING, "is signed with SHA-1: have it renewed with a newer program"
    return _state(key, used, expires, problem), level, problem


def _ends(primary: Subkey, chosen: Subkey) -> int | None:
    return min((end for end in (primary.expires, chosen.expires) if end is not None), default=None)


def _state(key: Key, chosen: Subkey | None, expires: int | None, problem: str) -> KeyState:
    primary = key.subkeys[0]
    return KeyState(
        fingerprint=key.fingerprint,
        addresses=tuple(sorted(key.addresses)),
        algorithm=primary.algorithm,
        bits=primary.bits,
        created=primary.created,
        expires=expires,
        used=chosen.fingerprint if chosen else "",
        problem=problem,
        post_quantum=chosen is not None and kinds.is_post_quantum(chosen),
        rare=kinds.rare(key, chosen) if chosen else "",
    )


def _hashes(colons: bytes) -> dict[str, bytes]:
    """The hash algorithm of the newest signature that binds each key or subkey, by its fingerprint."""
    newest: dict[str, tuple[int, bytes]] = {}
    primary = current = ""
    for line in colons.split(b"\n"):
        fields = line.split(b":")
        if fields[0] in (b"pub", b"sub"):
            current = ""
            primary = "" if fields[0] == b"pub" else primary
        elif fields[0] == b"fpr" and not current:
            current = fields[9].decode("ascii", "replace")
            primary = primary or current
        elif fields[0] == b"sig" and len(fields) > 15 and fields[10][:2] in (b"10", b"11", b"12", b"13", b"18"):
            made = int(fields[5] or 0)
            if fields[4].decode("ascii", "replace") == primary[-16:] and made >= newest.get(current, (0, b""))[0]:
                newest[current] = made, fields[15]
    return {fingerprint: algorithm for fingerprint, (_, algorithm) in newest.items()}


def _kind(key: KeyState) -> str:
    """An algorithm by its name (RFC 9580 section 9.1), with the size where it has several."""
    if key.algorithm == _EDDSA and key.bits in _CURVES:
        return _CURVES[key.bits]
    name = _ALGORITHMS.get(key.algorithm, f"algorithm {key.algorithm}")
    kind = name if key.algorithm in _ONE_SIZE else f"{name}, {key.bits} bits"
    return f"S/MIME, {kind}" if key.smime else kind


def _day(seconds: int | None) -> str:
    return "never" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def labels(values: Mapping[str, str]) -> str:
    """The labels of a sample in Prometheus' text format."""

    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in values.items()) + "}"
