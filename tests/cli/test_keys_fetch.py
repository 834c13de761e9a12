"""`cryptomail keys fetch` and `refresh`, from a Web Key Directory."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter import limits
from sieve_filter.discovery import answer
from tests.support.filtered import MESSAGE, decrypt, fingerprint_of
from tests.support.server import ALICE, Command, Outbox
from tests.support.site import BOB, NOBODY, Site, said
from tests.support.tls import Authority, authority
from tests.support.webkeys import KEY, Page, Web

__all__ = ["authority"]

ADVANCED, DIRECT, ELSEWHERE = "openpgpkey.example.org", "example.org", "elsewhere.example.org"


def path(address: str = ALICE, host: str = ADVANCED) -> str:
    """Where an address's key is on one of the hosts, without the query."""
    place = answer.wkd_place(address)
    url = place.direct if host == DIRECT else place.advanced
    return url.partition("?")[0].removeprefix("https://")


@pytest.fixture
def web(authority: Authority) -> Iterator[Web]:
    context = authority.server_context(ADVANCED, DIRECT, ELSEWHERE)
    with Web((ADVANCED, ELSEWHERE), context).running() as running:
        yield running


@pytest.fixture
def keys(web: Web, site: Site, authority: Authority) -> Command:
    """Runs `cryptomail keys ACTION --from wkd`."""

    def run(action: str, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
        named = ["--from", "wkd", "--home-template", site.template]
        if "--sendmail" not in arguments:
            named.append("--no-notify")
        return web.run("keys", action, *named, *arguments, config=site.config, trust=authority.file)

    return run


def test_mail_is_encrypted_to_a_key_that_its_owner_published(web: Web, keys: Command, site: Site, alice: Owner) -> None:
    web.pages[path()] = Page(alice.public(ALICE))
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 0, done.stderr
    assert f"imported\t{fingerprint_of(alice)}" in said(done)
    assert web.asked == [f"{path()}?l=alice"]
    assert decrypt(site.filter(), alice) == MESSAGE
    assert "unchanged" in said(keys("fetch", "--user", ALICE))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could")
def test_key_is_fetched_with_the_rights_of_whom_it_is_for(web: Web, keys: Command, site: Site, alice: Owner) -> None:
    os.chown(site.home(ALICE), NOBODY, NOBODY)
    web.pages[path()] = Page(alice.public(ALICE))
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 0, done.stderr
    assert (site.home(ALICE) / ".cryptomail/pubring.kbx").stat().st_uid == NOBODY


def test_direct_method_serves_where_the_advanced_ones_host_does_not_exist(
    web: Web, keys: Command, site: Site, alice: Owner
) -> None:
    web.hosts = (DIRECT,)
    web.pages[path(host=DIRECT)] = Page(alice.public(ALICE))
    assert keys("fetch", "--user", ALICE).returncode == 0
    assert site.stored() == [fingerprint_of(alice)]


def test_direct_method_is_not_tried_where_the_advanced_ones_host_has_no_key(
    web: Web, keys: Command, site: Site, alice: Owner
) -> None:
    web.hosts = (ADVANCED, DIRECT)
    web.pages[path(host=DIRECT)] = Page(alice.public(ALICE))
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 65
    assert f"no key is published for {ALICE}" in said(done)
    assert len(web.asked) == 1


def test_redirection_is_followed_to_another_host_with_a_certificate(
    web: Web, keys: Command, site: Site, alice: Owner
) -> None:
    web.pages[path()] = Page(status=302, fields={"Location": f"https://{ELSEWHERE}/key"})
    web.pages[f"{ELSEWHERE}/key"] = Page(alice.public(ALICE))
    assert keys("fetch", "--user", ALICE).returncode == 0
    assert site.stored() == [fingerprint_of(alice)]


@pytest.mark.parametrize(
    ("page", "line"),
    [
        (Page(b"<html>hello</html>", "text/html; charset=utf-8"), "answers with text/html, and not with application/"),
        (Page(b"<html>hello</html>"), "the answer is not an OpenPGP key"),
        (Page(b""), "the answer is not an OpenPGP key"),
        (Page(b"\x99" * 5), "the answer is damaged"),
        (Page(b"\x99" * (limits.FETCH_OCTETS + 1)), f"answers with more than {limits.FETCH_OCTETS} octets"),
        (Page(status=500), "answers with status 500"),
        (Page(status=302, fields={"Location": f"http://{ELSEWHERE}/key"}), "only https:// will do"),
        (Page(status=302, fields={"Location": "file:///etc/passwd"}), "only https:// will do"),
        (Page(status=301, fields={"Location": f"https://{path()}"}), "redirects more than 3 times"),
        (Page(status=302, fields={"Location": "https://nowhere.example.org/"}), "redirects to a host that does not"),
        (Page(status=302, fields={"Location": f"https://{ELSEWHERE}/a b"}), "only https:// will do"),
        (Page(status=302, fields={"Location": f"https://{ELSEWHERE}:x/"}), "does not speak HTTP"),
        (Page(status=302, fields={"Location": "https://[::1/"}), "redirects to something that is not a URL"),
        (Page(status=302, fields={"Location": "//"}), "redirects more than 3 times"),
        (Page(status=302, fields={"Location": "https://\xe4.example.org/"}), "only https://"),
        (Page(b"\x1f\x8b" + bytes(50), fields={"Content-Encoding": "gzip"}), "the answer is not an OpenPGP key"),
        (Page(status=302), "redirects more than 3 times"),
    ],
    ids=lambda value: value if isinstance(value, str) else "page",
)
def test_answer_that_is_no_key_is_refused(page: Page, line: str, web: Web, keys: Command, site: Site) -> None:
    web.pages[path()] = page
    done = keys("fetch", "--user", ALICE)
    assert done.returncode in (65, 69)
    assert line in said(done)
    assert site.stored() == []


def test_key_of_another_address_is_refused(web: Web, keys: Command, site: Site, bob: Owner, mallory: Owner) -> None:
    for owner, address in ((bob, BOB), (mallory, "m" + ALICE)):
        web.pages[path()] = Page(owner.public(address))
        done = keys("fetch", "--user", ALICE)
        assert done.returncode == 65
        assert f"key {fingerprint_of(owner)} in the answer is not for {ALICE}: it has {address}" in said(done)
    assert site.stored() == []


def test_armored_and_secret_keys_are_refused(web: Web, keys: Command, site: Site, alice: Owner) -> None:
    for data, line in (
        (alice.gpg("--armor", "--export"), "the answer is not an OpenPGP key"),
        (alice.gpg("--export-secret-keys"), "the answer holds a SECRET key"),
    ):
        web.pages[path()] = Page(data)
        assert line in said(keys("fetch", "--user", ALICE))
    assert site.stored() == []


def test_server_without_a_trusted_certificate_is_not_asked(
    web: Web, site: Site, alice: Owner, keys: Command, authority: Authority
) -> None:
    web.pages[path()] = Page(alice.public(ALICE))
    arguments = ("keys", "fetch", "--from", "wkd", "--user", ALICE, "--home-template", site.template)
    done = web.run(*arguments, config=site.config, trust=site.directory / "nothing")
    assert done.returncode == 69
    assert f"{ADVANCED} cannot prove who it is" in said(done)
    web.hosts = ("openpgpkey.example.net",)  # a name that its certificate does not have
    site.make("carol@example.net")
    done = keys("fetch", "--user", "carol@example.net")
    assert "openpgpkey.example.net cannot prove who it is" in said(done)
    assert web.asked == []


def test_slow_server_is_waited_for_a_while_only(web: Web, keys: Command, site: Site, alice: Owner) -> None:
    web.pages[path()] = Page(alice.public(ALICE), seconds=1)
    start = time.monotonic()
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 69
    assert f"no answer for {ALICE} within {limits.FETCH_SECONDS} seconds" in said(done)
    assert time.monotonic() - start < limits.FETCH_SECONDS + 15
    assert site.stored() == []


def test_revoked_key_is_refused_as_an_import_would(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner]
) -> None:
    owner = new_owner()
    owner.revoke(owner.make_key(ALICE))
    web.pages[path()] = Page(owner.public(ALICE))
    done = keys("fetch", "--user", ALICE)
    assert done.returncode == 65
    assert "was revoked" in said(done)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("fetch", "--user", "alice"), "alice is not an address"),
        (("fetch", "--user", "alice@a..b"), "is not an address whose key could be looked up"),
        (("fetch", "--user", ALICE, "--resolver", "127.0.0.1"), "wkd needs none"),
        (("fetch",), "name --user"),
        (("refresh",), "name --user, or --all"),
    ],
)
def test_wrong_command_line_is_one_line(arguments: tuple[str, ...], line: str, keys: Command, site: Site) -> None:
    site.make("alice", "alice@a..b")
    done = keys(*arguments)
    assert done.returncode in (64, 69)
    assert line in said(done)


def test_refresh_renews_what_is_renewed_and_keeps_what_has_vanished(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], bob: Owner
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE, expires="5d")
    site.enrol(owner.public(ALICE))
    site.enrol(bob.public(BOB), BOB)
    site.make("carol@example.org")  # who has no key
    time.sleep(1.1)  # a signature's time has seconds, and the newer one counts
    owner.gpg("--quick-set-expire", fingerprint, "1y")
    owner.gpg("--quick-set-expire", fingerprint, "1y", "*")
    web.pages[path()] = Page(owner.public(ALICE))
    done = keys("refresh", "--all")
    assert done.returncode == 0, done.stderr
    assert f"{ALICE}\trenewed\t{fingerprint}" in said(done)
    assert f"{BOB}\tkept\t{fingerprint_of(bob)}\tno key is published for {BOB} any more; this one stays" in said(done)
    assert "carol" not in said(done)
    assert decrypt(site.filter(), owner) == MESSAGE
    assert site.stored(BOB) == [fingerprint_of(bob)]
    again = keys("refresh", "--user", ALICE)
    assert f"{ALICE}\tunchanged\t{fingerprint}" in said(again)


def test_key_that_was_revoked_where_it_is_published_is_used_no_more(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], alice: Owner
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    site.enrol(owner.public(ALICE))
    site.enrol(alice.public(ALICE))
    owner.revoke(fingerprint)
    web.pages[path()] = Page(owner.public(ALICE))
    for more in ((), ("--replace",), ("--replace",)):
        done = keys("refresh", "--all", *more)
        assert done.returncode == 65
        assert f"{ALICE}\trevoked\t{fingerprint}\tit was revoked" in said(done)
        assert "1 revoked" in said(done)
    # What still works does not go because of it.
    assert decrypt(site.filter(), alice) == MESSAGE


def test_key_file_takes_over_what_is_published(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], key_file: Path
) -> None:
    owner = new_owner()
    fingerprint = owner.make_key(ALICE)
    web.pages[path()] = Page(owner.public(ALICE))
    assert keys("fetch", "--user", ALICE).returncode == 0
    assert decrypt(site.filter(), owner) == MESSAGE
    assert "unchanged" in said(keys("refresh", "--all"))
    owner.revoke(fingerprint)
    web.pages[path()] = Page(owner.public(ALICE))
    assert f"revoked\t{fingerprint}" in said(keys("refresh", "--all"))
    assert key_file.read_bytes() != b""
    assert site.keys("test", "--user", ALICE).returncode == 75


def test_owners_are_told_of_keys_that_are_fetched_replaced_and_revoked(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], alice: Owner, outbox: Outbox
) -> None:
    sendmail = ("--sendmail", str(outbox.program))
    web.pages[path()] = Page(alice.public(ALICE))
    assert keys("fetch", "--user", ALICE, *sendmail).returncode == 0
    [(_, trial)] = outbox.take()
    assert b"Is your mail encrypted?" in trial
    newer = new_owner()
    fingerprint = newer.make_key(ALICE)
    web.pages[path()] = Page(newer.public(ALICE))
    keys("refresh", "--all", *sendmail)
    assert outbox.take() == []
    assert keys("refresh", "--all", "--replace", *sendmail).returncode == 0
    [(_, addition), (_, trial), (_, removal)] = outbox.take()
    assert b"is encrypted to this key too" in decrypt(addition, alice)
    assert b"Is your mail encrypted?" in trial
    assert b"This key of yours was just taken away" in decrypt(removal, alice)
    newer.revoke(fingerprint)
    web.pages[path()] = Page(newer.public(ALICE))
    for _ in range(2):
        assert keys("refresh", "--all", *sendmail).returncode == 65
    [(_, revocation)] = outbox.take()
    assert b"This was revoked, and mail is not encrypted to it any more" in revocation
    assert b"Mail for you waits" in revocation


def test_other_key_is_reported_and_taken_only_when_told(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], alice: Owner
) -> None:
    site.enrol(alice.public(ALICE))
    newer = new_owner()
    newer.make_key(ALICE)
    web.pages[path()] = Page(newer.public(ALICE))
    done = keys("refresh", "--all")
    assert done.returncode == 65
    assert f"different\t{fingerprint_of(newer)}\tanother key is published for {ALICE}" in said(done)
    assert site.stored() == [fingerprint_of(alice)]
    replaced = keys("refresh", "--all", "--replace")
    assert replaced.returncode == 0, replaced.stderr
    assert f"removed\t{fingerprint_of(alice)}" in said(replaced)
    assert site.stored() == [fingerprint_of(newer)]
    assert decrypt(site.filter(), newer) == MESSAGE


def test_key_that_is_there_stays_where_the_other_one_is_refused(
    web: Web, keys: Command, site: Site, new_owner: Callable[[], Owner], alice: Owner
) -> None:
    site.enrol(alice.public(ALICE))
    newer = new_owner()
    newer.revoke(newer.make_key(ALICE))
    web.pages[path()] = Page(newer.public(ALICE))
    done = keys("refresh", "--all", "--replace")
    assert done.returncode == 65
    assert site.stored() == [fingerprint_of(alice)]


def test_one_users_trouble_is_not_anothers_and_servers_are_asked_a_few_at_a_time(
    web: Web, keys: Command, site: Site, alice: Owner, bob: Owner
) -> None:
    site.enrol(alice.public(ALICE))
    site.enrol(bob.public(BOB), BOB)
    users = [f"user{number}@example.org" for number in range(20)]
    site.make(*users)
    for user in users:
        site.enrol(bob.public(BOB), user, "--foreign")
        web.pages[path(user)] = Page(b"x" * 20, seconds=0.05)
    web.pages[path(BOB)] = Page(bob.public(BOB), KEY)
    web.pages[path()] = Page(b"oops", status=503)
    done = keys("refresh", "--all")
    assert done.returncode == 65
    assert f"{BOB}\tunchanged\t{fingerprint_of(bob)}" in said(done)
    assert f"{ALICE}\tfailed\t" in said(done)
    assert "20 of 22 keys were refused: see the report" in said(done)
    assert 1 < web.most_at_once <= limits.FETCHES_AT_ONCE


def test_user_without_a_key_is_told_how_to_get_one(keys: Command, site: Site) -> None:
    done = keys("refresh", "--user", ALICE)
    assert done.returncode == 65
    assert "has no key" in said(done)
    assert "use keys fetch" in said(done)
