"""What is said about owners' keys."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.gpg.colons import parse
from sieve_filter.keys import status
from sieve_filter.keys.decision import Rules, decide
from sieve_filter.keys.recipients import Found, Holding, Home
from sieve_filter.keys.status import CRITICAL, OK, UNKNOWN, WARNING, Check, OwnerState, Wiring
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN
from tests.support.listings import NEWER, PRIMARY, SUBKEY, listing, sub

NOW = 1_650_000_000
RULES = Rules(2048, STORE_PLAIN, REFUSE, REFUSE)
HOME = Home("/home/a/.cryptomail", ())
WIRED = Wiring(OK, "")


def state(colons: bytes, rules: Rules = RULES, notes: tuple[str, ...] = ()) -> OwnerState:
    keys = tuple(parse(colons))
    found = Found("a@example.org", (Holding(HOME, keys, colons),) if keys else ())
    decision = decide(found, rules, NOW)
    return status.judge(found, decision, notes, status.Rules(rules.minimum_bits, 30, NOW))


def sig(kind: str, algorithm: int, made: int = 1600000000, issuer: str = PRIMARY) -> str:
    return f"sig:::22:{issuer[-16:]}:{made}::::x:{kind}x::{issuer}:::{algorithm}:\n"


def test_good_key_is_ok_and_its_use_is_told() -> None:
    good = state(listing(subs=sub(SUBKEY)))
    assert (good.state, good.notes) == (OK, ())
    (key,) = good.keys
    assert (key.fingerprint, key.used, key.expires, key.problem) == (PRIMARY, SUBKEY, None, "")


@pytest.mark.parametrize(
    ("colons", "level", "note"),
    [
        (listing(subs=sub(SUBKEY, expires=str(NOW + 29 * 86400))), WARNING, "expires on 2022-05-14"),
        (listing(subs=sub(SUBKEY, expires=str(NOW + 31 * 86400))), OK, ""),
        (listing(primary="e", subs=sub(SUBKEY)), CRITICAL, "expired"),
        (listing(primary="r", subs=sub(SUBKEY)), CRITICAL, "was revoked"),
        (listing(), CRITICAL, "cannot encrypt"),
        (
            listing(subs=sub(SUBKEY, bits=1024).replace(":18:", ":1:").replace(":1024:18:", ":1024:1:")),
            CRITICAL,
            "1024",
        ),
        (listing(subs=sub(SUBKEY)).replace(b":255:22:", b":3072:17:"), WARNING, "old kind"),
        (listing(subs=sub(SUBKEY)).replace(b":255:22:", b":1024:1:"), WARNING, "1024 bits only"),
        (listing(subs=sub(SUBKEY) + sig("18", 2)), WARNING, "SHA-1"),
        (listing(subs=sig("13", 2) + sub(SUBKEY) + sig("18", 8)), WARNING, "SHA-1"),
        (listing(subs=sub(SUBKEY) + sig("18", 2) + sig("18", 8, 1600000001)), OK, ""),
        (listing(subs=sub(SUBKEY) + sig("18", 8) + sig("18", 2, 1600000001, "D" * 40)), OK, ""),
        (listing(subs=sub(SUBKEY)) + listing(primary="r", subs=sub(NEWER)), WARNING, "not used"),
        (listing(subs=sub(SUBKEY)) + listing(subs=sub(NEWER)), OK, "has 2 keys, of which 2 are used"),
        (b"", OK, "has no key"),
    ],
)
def test_what_is_wrong_is_told_with_its_level(colons: bytes, level: int, note: str) -> None:
    judged = state(colons)
    assert judged.state == level
    assert note in "; ".join(judged.notes)


EXPIRED = listing(primary="e", subs=sub(SUBKEY, state="e", expires=str(NOW - 86400))).replace(
    b":1600000000:::u:", b":1600000000:%d::u:" % (NOW - 86400)
)


def test_expired_key_that_mail_is_encrypted_to_is_told_so() -> None:
    judged = state(EXPIRED, RULES._replace(expired_key=ENCRYPT_ANYWAY))
    assert judged.state == WARNING
    (key,) = judged.keys
    assert key.used == SUBKEY
    assert key.problem.endswith("expired on 2022-04-14; mail is encrypted to it all the same: have it renewed")
    assert judged.notes == (f"key {PRIMARY} {key.problem}",)
    assert "used:      " + SUBKEY in "\n".join(status.details(judged))


def test_expired_key_does_not_count_beside_a_good_one() -> None:
    judged = state(EXPIRED + listing(subs=sub(NEWER)), RULES._replace(expired_key=ENCRYPT_ANYWAY))
    assert judged.state == WARNING
    assert [key.used for key in judged.keys] == ["", NEWER]
    assert "it is not used" in judged.notes[0]


@pytest.mark.parametrize(
    ("colons", "rules", "note"),
    [
        (EXPIRED, RULES, "mail waits"),
        (EXPIRED, RULES._replace(expired_key=STORE_PLAIN), "mail is stored in clear"),
        (EXPIRED, RULES._replace(unusable_key=STORE_PLAIN), "mail waits"),
        (listing(primary="r", subs=sub(SUBKEY)), RULES._replace(expired_key=ENCRYPT_ANYWAY), "mail waits"),
        (listing(primary="r", subs=sub(SUBKEY)), RULES._replace(unusable_key=STORE_PLAIN), "mail is stored in clear"),
    ],
)
def test_what_becomes_of_mail_is_told_where_no_key_is_used(colons: bytes, rules: Rules, note: str) -> None:
    judged = state(colons, rules)
    assert judged.state == CRITICAL
    assert judged.notes[-1] == note


def test_owner_without_a_key_is_critical_only_where_mail_waits_for_one() -> None:
    assert state(b"").state == OK
    assert state(b"", RULES._replace(no_key=REFUSE)).state == CRITICAL


def test_note_on_the_files_is_a_warning() -> None:
    assert state(listing(subs=sub(SUBKEY)), notes=("others may write",)).state == WARNING


def test_worst_state_counts_and_is_first_in_the_summary() -> None:
    states = [
        state(listing(subs=sub(SUBKEY))),
        state(b""),
        status.unknown("c", "no home"),
        state(listing(subs=sub(SUBKEY)), notes=("x",)),
    ]
    check = Check(states, 0, WIRED)
    assert status.worst(check) == UNKNOWN
    assert status.summary(check).startswith("KEYS UNKNOWN - 4 users, 1 without a key: 1 unknown, 1 warning | users=4")
    states.append(status.unreadable("d", "cannot look into /d"))
    assert status.worst(check) == CRITICAL
    assert "CRITICAL: d: cannot look into /d" in status.lines(check)
    assert status.worst(Check([], 0, WIRED)) == UNKNOWN


@pytest.mark.parametrize(("states", "users"), [([], 0), ([state(listing(subs=sub(SUBKEY)))], 1)])
def test_what_is_wrong_for_all_is_nobody_s_state(states: list[OwnerState], users: int) -> None:
    check = Check(states, 0, Wiring(CRITICAL, "nothing calls the filter"))
    assert status.worst(check) == CRITICAL
    assert status.summary(check).startswith(f"KEYS CRITICAL - {users} user")
    assert "wiring: critical | " in status.summary(check)
    assert " critical=0 " in status.summary(check)
    assert status.lines(check) == ["CRITICAL: nothing calls the filter"]
    assert f'cryptomail_key_users{{state="ok"}} {users}\n' in status.as_prometheus(check)


def test_a_check_that_could_not_be_done_has_no_users() -> None:
    failed = status.failed("there is no program doveadm")
    assert status.worst(failed) == UNKNOWN
    assert status.summary(failed) == "KEYS UNKNOWN - there is no program doveadm"
    told = json.loads(status.check_as_json(failed))
    assert (told["state"], told["failure"], told["owners"]) == ("UNKNOWN", "there is no program doveadm", [])
    figures = status.as_prometheus(failed)
    assert "cryptomail_check_state 3\n" in figures
    assert "everybody" not in figures


def test_machines_get_the_same() -> None:
    judged = state(listing(subs=sub(SUBKEY, expires=str(NOW + 86400))))
    (read,) = json.loads(status.as_json([judged]))
    assert (read["state"], read["keys"][0]["used"]) == ("WARNING", SUBKEY)
    text = status.as_prometheus(Check([judged._replace(user='a"b\\c')], 0, WIRED))
    assert f'cryptomail_key_expires_seconds{{user="a\\"b\\\\c",fingerprint="{PRIMARY}"}} {NOW + 86400}\n' in text + "\n"
    assert 'cryptomail_key_users{state="warning"} 1' in text


@given(
    st.lists(st.sampled_from([b"pub", b"sub", b"fpr", b"uid", b"sig", b":", b"1", b"\xff", b"\n", b"18x"])).map(
        b"".join
    )
)
def test_any_octets_are_judged_or_refused(colons: bytes) -> None:
    with suppress(ValueError, IndexError):
        state(colons)
