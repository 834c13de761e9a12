"""`cryptomail keys` treats S/MIME certificates as it treats keys."""

import json
import stat
from pathlib import Path

import pytest

from lab.keys import Owner
from sieve_filter.openssl import runner
from sieve_filter.smime import certificate
from tests.support.filtered import MESSAGE
from tests.support.server import ALICE, Outbox
from tests.support.site import BOB, Site, bob, said, site
from tests.support.x509 import Card, Maker, card, ec, maker, openssl

__all__ = ["bob", "card", "maker", "site"]

NAMED = ("--user", ALICE)


def test_a_certificate_is_set_up_shown_tried_written_and_taken_away(site: Site, card: Card) -> None:
    assert "1 imported, 0 renewed" in said(site.enrol(card.pem))
    file = site.home(ALICE) / ".cryptomail/smime.pem"
    assert file.read_bytes() == card.pem
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "1 unchanged" in said(site.enrol(card.pem))
    assert card.fingerprint in said(site.keys("list", *NAMED))
    shown = said(site.keys("show", *NAMED))
    assert "kind:      S/MIME, RSA, 2048 bits" in shown
    [state] = json.loads(site.keys("show", *NAMED, "--json").stdout)
    assert state["keys"][0]["smime"] is True
    assert f"is encrypted, to {card.fingerprint}" in said(site.keys("test", *NAMED))
    assert site.keys("export", *NAMED).stdout == card.pem
    assert card.decrypt(site.filter()) == MESSAGE
    assert "no key is left there" in said(site.keys("remove", *NAMED, card.fingerprint))
    assert not file.exists()
    assert site.filter() == MESSAGE


def test_a_folder_may_have_certificates_and_keys_of_many(
    site: Site, maker: Maker, card: Card, bob: Owner, tmp_path: Path
) -> None:
    (tmp_path / f"{ALICE}.pem").write_bytes(card.pem)
    (tmp_path / f"{BOB}.asc").write_bytes(bob.public(BOB))
    (tmp_path / "carol@example.org.crt").write_bytes(b"Hi!")
    done = site.keys("import", "--all", str(tmp_path))
    assert done.returncode == 65
    assert "2 imported, 0 renewed, 0 unchanged, 1 refused" in said(done)
    assert card.decrypt(site.filter()) == MESSAGE
    assert b"multipart/encrypted" in site.filter(BOB)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"usage": "digitalSignature"}, "it is not for encryption"),
        ({"mail": False}, "it is not for encryption"),
        ({"days": -1}, "it expired on 2020-12-31"),
        ({"address": BOB}, f"it has no address of this user's; it has {BOB}"),
        ({"address": ""}, "it has no address of this user's; it has no address"),
    ],
)
def test_what_mail_cannot_or_must_not_be_encrypted_to_is_refused(
    site: Site, maker: Maker, made: "dict[str, object]", why: str
) -> None:
    done = site.enrol(maker.make(**made).pem)  # type: ignore[arg-type]
    assert done.returncode == 65
    assert why in said(done)
    assert site.filter() == MESSAGE


@pytest.mark.parametrize(("kind", "why"), [(("-newkey", "rsa:1024"), "has 1024 bits"), (ec("secp256k1"), "its curve")])
def test_weak_and_strange_kinds_are_refused(site: Site, maker: Maker, kind: tuple[str, ...], why: str) -> None:
    done = site.enrol(maker.make(*kind).pem)
    assert done.returncode == 65
    assert why in said(done)


def test_all_that_is_given_for_one_owner_is_taken_or_nothing(site: Site, maker: Maker, card: Card) -> None:
    done = site.enrol(card.pem + maker.make(address=BOB).pem)
    assert done.returncode == 65
    assert "another certificate that was given with it is refused" in said(done)
    assert not (site.home(ALICE) / ".cryptomail/smime.pem").exists()
    done = site.enrol(card.pem + maker.make(address=BOB).pem, ALICE, "--foreign")
    assert "2 imported" in said(done)
    assert f"warning: it has no address of this user's; it has {BOB}" in said(done)


def test_secret_keys_are_refused_and_not_kept(site: Site, card: Card) -> None:
    files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
    pfx = openssl("pkcs12", "-export", *files, "-passout", "pass:secret")
    for data in (pfx, card.pem + card.key.read_bytes(), card.key.read_bytes()):
        done = site.enrol(data)
        assert done.returncode == 65
        assert "SECRET key" in said(done)
    assert not (site.home(ALICE) / ".cryptomail").exists()


@pytest.mark.parametrize("old", [False, True])
def test_of_pkcs12_the_certificate_is_taken_and_the_secret_key_is_not(site: Site, card: Card, old: bool) -> None:
    files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
    legacy = ("-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1") if old else ()
    done = site.enrol(openssl("pkcs12", "-export", *legacy, *files, "-passout", "pass:"))
    assert "1 imported" in said(done)
    assert "holds a SECRET key besides, which is not kept" in done.stderr.decode()
    assert (site.home(ALICE) / ".cryptomail/smime.pem").read_bytes() == card.pem
    assert card.decrypt(site.filter()) == MESSAGE


def test_the_passphrase_of_pkcs12_is_needed(card: Card) -> None:
    files = ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))
    data = openssl("pkcs12", "-export", *files, "-passout", "pass:secret")
    assert runner.certificates(data, "") == runner.certificates(data, "Secret") == b""
    assert runner.certificates(data[:-1], "secret") == b""
    pem = runner.certificates(data, "secret")
    assert b"PRIVATE KEY" not in pem
    assert certificate.read(pem).certificates == certificate.read(card.pem).certificates


def test_a_renewed_certificate_serves_beside_the_old_one(site: Site, maker: Maker, card: Card) -> None:
    said(site.enrol(card.pem))
    renewed = maker.make(*ec("P-256"), days=400)
    assert "1 imported" in said(site.enrol(renewed.pem))
    stored = site.filter()
    assert card.decrypt(stored) == renewed.decrypt(stored) == MESSAGE
    checked = said(site.keys("check", *NAMED))
    assert f"key {card.fingerprint} expires on" in checked
    assert "set up the next one beside it" in checked
    assert "1 left" in said(site.keys("remove", *NAMED, card.fingerprint))
    assert renewed.decrypt(site.filter()) == MESSAGE


def test_of_an_owner_with_openpgp_keys_it_is_said_that_certificates_do_not_count(
    site: Site, alice: Owner, card: Card
) -> None:
    said(site.enrol(alice.public(ALICE)))
    assert "it does not count while there are OpenPGP keys" in said(site.enrol(card.pem))
    assert b"multipart/encrypted" in site.filter()
    exported = site.keys("export", *NAMED).stdout
    assert exported.endswith(card.pem)
    assert b"BEGIN PGP PUBLIC KEY BLOCK" in exported
    assert said(site.keys("remove", *NAMED, card.fingerprint))
    assert b"multipart/encrypted" in site.filter()


def test_owner_is_told_of_another_certificate_encrypted_to_the_one_before(
    site: Site, maker: Maker, card: Card, outbox: Outbox
) -> None:
    told = ("--sendmail", str(outbox.program))
    said(site.enrol(card.pem, ALICE, *told))
    outbox.take()
    said(site.enrol(maker.make(*ec("P-256")).pem, ALICE, *told))
    notices = [message for _, message in outbox.take()]
    assert len(notices) == 2
    assert b"Another S/MIME certificate was set up for you" in notices[0]
    assert b"Whoever has that key can read it." in card.decrypt(notices[0])
    assert b"Whoever has that key can read it." not in notices[0]
