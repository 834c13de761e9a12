"""Whose will counts: defaults, the administrator's file, its sections for domains, and owners' choices."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.keys import Owner
from sieve_filter.keys import choices
from sieve_filter.policy.config_file import parse
from sieve_filter.policy.levels import CHOICES, FOR_DOMAINS, for_owner
from sieve_filter.policy.settings import Settings
from tests.support.filtered import MESSAGE, decrypt
from tests.support.server import ALICE, Server, run

HIDING = "owners_may = ['header_policy']\n"


def rows(server: Server) -> dict[str, tuple[str, str]]:
    done = run("settings", "show", "--user", ALICE, "--home", str(server.home), "--json", config=server.config)
    assert done.returncode == 0, done.stderr
    return {name: (row["value"], row["level"]) for name, row in json.loads(done.stdout).items()}


def choose(server: Server, *what: str) -> "tuple[int, str]":
    done = run("settings", "choose", "--user", ALICE, "--home", str(server.home), *what, config=server.config)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_each_value_is_shown_with_the_level_that_it_comes_from(server: Server) -> None:
    server.config.write_text(HIDING + "[on]\nunusable_key = 'refuse'\n[domain.'example.org']\nno_key = 'refuse'\n")
    assert choose(server, "header_policy", "shy")[0] == 0
    assert rows(server) == {
        "header_policy": ("shy", "owner"),
        "no_key": ("refuse", "domain"),
        "unusable_key": ("refuse", "file"),
        "expired_key": ("encrypt-anyway", "default"),
    }


def test_a_delivery_obeys_an_owner_s_choice_from_the_next_message_on(server: Server, alice: Owner) -> None:
    server.config.write_text(HIDING)
    server.give(alice.public(ALICE))
    assert b"\nSubject: hello" in server.filter(MESSAGE).stdout
    assert choose(server, "header_policy", "shy")[0] == 0
    hidden = server.filter(MESSAGE).stdout
    assert b"hello" not in hidden
    assert decrypt(hidden, alice) == MESSAGE
    assert choose(server, "header_policy", "default")[0] == 0
    assert b"\nSubject: hello" in server.filter(MESSAGE).stdout


def test_a_domain_s_section_counts_for_its_owners_alone(server: Server, alice: Owner) -> None:
    server.config.write_text("[domain.'example.org']\nno_key = 'refuse'\n")
    assert server.filter(MESSAGE).returncode == 75
    other = {"USER": "alice@example.net"}
    assert server.filter(MESSAGE, environment=other).stdout == MESSAGE


@pytest.mark.parametrize("how", ["damaged", "empty", "directory", "pipe", "link", "too long"])
def test_a_choice_that_cannot_be_read_counts_as_the_safest_with_a_notice(
    how: str, server: Server, alice: Owner
) -> None:
    server.config.write_text(HIDING)
    server.give(alice.public(ALICE))
    file = server.home / ".cryptomail" / choices.FILE
    match how:
        case "damaged":
            file.write_bytes(b"header_policy no_confi")
        case "empty":
            file.touch()
        case "directory":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case "link":
            file.symlink_to("/etc/passwd")
        case _:
            file.write_bytes(b"\n" * 100_000)
    done = server.filter(MESSAGE)
    assert done.returncode == 0
    assert b"hello" not in done.stdout
    assert b"the safest counts" in done.stderr
    assert rows(server)["header_policy"] == ("shy", "owner")


def test_owners_choose_what_they_may_and_nothing_else(server: Server) -> None:
    server.config.write_text(HIDING)
    code, said = choose(server, "no_key", "refuse")
    assert (code, "owners may not choose no_key" in said) == (65, True)
    code, said = choose(server, "header_policy", "loud")
    assert (code, "header_policy must be one of" in said) == (65, True)
    (server.home / ".cryptomail").mkdir()
    (server.home / ".cryptomail" / choices.FILE).write_text("no_key refuse\n")
    assert server.filter(MESSAGE).stdout == MESSAGE


VALUES = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FOR_DOMAINS.items()})
CHOSEN = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in CHOICES.items()})


@given(VALUES, VALUES, st.none() | CHOSEN, st.lists(st.sampled_from(sorted(CHOICES)), unique=True).map(tuple))
def test_no_choice_weakens_what_the_administrator_fixed(
    file: dict[str, str], section: dict[str, str], chosen: dict[str, str] | None, may: tuple[str, ...]
) -> None:
    settings = Settings(**file, owners_may=may, domains={"example.org": section}, given=frozenset(file))  # type: ignore[arg-type]
    fixed = for_owner(settings._replace(owners_may=()), ALICE, chosen).settings
    effective, levels = for_owner(settings, ALICE, chosen)
    for name, values in CHOICES.items():
        assert values.index(getattr(effective, name)) >= values.index(getattr(fixed, name))
        assert (levels[name] == "owner") <= (name in may)
    assert effective.expired_key == fixed.expired_key
    assert for_owner(effective, ALICE, chosen).settings == effective


@given(CHOSEN)
def test_choices_are_read_as_they_were_written(chosen: dict[str, str]) -> None:
    assert choices._parsed(choices.written(chosen)) == chosen


@given(st.binary(max_size=100))
def test_any_octets_are_choices_or_damaged(content: bytes) -> None:
    chosen = choices._parsed(content)
    assert chosen is None or all(value in CHOICES[name] for name, value in chosen.items())


def test_the_safest_header_policy_is_the_last() -> None:
    assert CHOICES["header_policy"] == ("no_confidentiality", "baseline", "shy")
    assert parse("[domain.'EXAMPLE.org']\nno_key = 'refuse'\n").domains == {"example.org": {"no_key": "refuse"}}


def test_where_owners_have_no_place_of_their_own_nothing_is_chosen(server: Server) -> None:
    server.config.write_text(HIDING + "[keyrings]\nowner = []\n")
    assert choose(server, "header_policy", "shy")[0] == 64
    assert rows(server)["header_policy"] == ("no_confidentiality", "default")
