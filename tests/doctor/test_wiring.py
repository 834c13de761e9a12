"""Whether deliveries call the filter, as doveconf tells it of LMTP."""

from collections.abc import Callable

import pytest

from sieve_filter.doctor import wiring
from sieve_filter.doctor.listing import read
from sieve_filter.keys.status import CRITICAL, OK, WARNING, Wiring

BEFORE, GUARD = "/share/sieve/before.sieve", "/etc/cryptomail/guard.sieve"
_EXT = "sieve_extprograms"
SCRIPTS = {
    BEFORE: 'if not execute :pipe :output "verdict" "cryptomail" ["seal"] {\n}\n',
    GUARD: '# filter "cryptomail"\nfileinto :create "cryptomail-tempfail/x";\n',
    "/theirs.sieve": 'if not filter "cryptomail" {\n  stop;\n}\n',
    "/other.sieve": "keep;\n",
}


def listing_23(*scripts: str, plugins: str = "sieve", sieve_plugins: str = _EXT, ours: bool = True) -> str:
    lines = [f"  sieve_before{n if n > 1 else ''} = {script}" for n, script in enumerate(scripts, 1)]
    programs = "  sieve_filter_bin_dir = /lib/cryptomail/filter-bin\n" if ours else ""
    body = "\n".join([*lines, f"  sieve_plugins = {sieve_plugins}"])
    return f"mail_plugins = quota {plugins}\nplugin {{\n{programs}{body}\n}}\n"


def listing_24(*scripts: str, plugins: str = "sieve", sieve_plugins: str = _EXT, ours: bool = True) -> str:
    blocks = [f"sieve_script s{n} {{\n  path = {path}\n  type = before\n}}\n" for n, path in enumerate(scripts)]
    programs = "sieve_filter_bin_dir = /lib/cryptomail/filter-bin\n" if ours else "sieve_filter_bin_dir =\n"
    personal = "sieve_script personal {\n  path = ~/sieve\n}\n"
    loaded = f"mail_plugins {{\n  quota = yes\n  {plugins or 'acl'} = yes\n}}\n"
    return f"{loaded}{personal}{''.join(blocks)}sieve_plugins {{\n  {sieve_plugins or 'other'} = yes\n}}\n{programs}"


def judge(listing: str, text: Callable[[str], str | None]) -> Wiring:
    return wiring.judge(read(listing), text)


@pytest.mark.parametrize("listing", [listing_23, listing_24])
class TestJudge:
    def test_as_it_is_installed(self, listing: Callable[..., str]) -> None:
        assert judge(listing(BEFORE, GUARD, "/other.sieve"), SCRIPTS.get) == (OK, "")

    def test_the_snippet_is_gone(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing("/other.sieve", ours=False, sieve_plugins=""), SCRIPTS.get)
        assert state == CRITICAL
        assert note.startswith("nothing calls the filter: 99-cryptomail.conf is not there")

    def test_the_script_is_gone(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(BEFORE, GUARD), {GUARD: SCRIPTS[GUARD]}.get)
        assert state == CRITICAL
        assert note == f"nothing calls the filter: there is no {BEFORE}: run make install"

    def test_the_guard_is_gone(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(BEFORE, GUARD), {BEFORE: SCRIPTS[BEFORE]}.get)
        assert state == WARNING
        assert GUARD in note

    def test_there_was_no_guard_yet(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(BEFORE), SCRIPTS.get)
        assert state == WARNING
        assert "guard.sieve" in note

    def test_sieve_is_not_loaded(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(BEFORE, GUARD, plugins=""), SCRIPTS.get)
        assert state == CRITICAL
        assert "mail_plugins" in note

    def test_the_plugin_that_starts_programs_is_not_loaded(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(BEFORE, GUARD, sieve_plugins=""), SCRIPTS.get)
        assert state == CRITICAL
        assert "sieve_extprograms" in note

    def test_only_owners_own_scripts_call_it(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing("/other.sieve"), SCRIPTS.get)
        assert state == WARNING
        assert note.startswith("no global script calls the filter")

    def test_the_script_that_encrypts_is_turned_off_and_the_guard_is_not(self, listing: Callable[..., str]) -> None:
        state, note = judge(listing(GUARD), SCRIPTS.get)
        assert state == CRITICAL
        assert note.startswith(f"all mail waits: {GUARD} refuses it")

    def test_an_administrator_s_own_script_calls_it(self, listing: Callable[..., str]) -> None:
        assert judge(listing("/theirs.sieve", GUARD), SCRIPTS.get) == (OK, "")
