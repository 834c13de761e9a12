"""Owners bring S/MIME certificates by saving a message that they signed, or attached one to."""

import base64
import re
from collections.abc import Callable
from email import message_from_bytes, policy

import pytest

from lab.keys import Owner
from sieve_filter.enrolment import request
from sieve_filter.smime import certificate
from tests.support.enrolment import letter, program
from tests.support.filtered import MESSAGE
from tests.support.samples import multipart, part
from tests.support.server import ALICE, Outbox, Server, run
from tests.support.x509 import Card, Maker, card, ec, maker, openssl

__all__ = ["card", "maker"]

TEXT = part(b"text/plain", b"Here it is.\n")


def attached(media_type: bytes, data: bytes) -> bytes:
    encoded = part(media_type, base64.encodebytes(data), b"Content-Transfer-Encoding: base64")
    return multipart(b"multipart/mixed", TEXT, encoded)


def bag(*cards: Card, form: str = "DER") -> bytes:
    """The certificates in PKCS #7, as a file of .p7b has them."""
    files = [part for one in cards for part in ("-certfile", str(one.directory / "cert.pem"))]
    return openssl("crl2pkcs7", "-nocrl", "-outform", form, *files)


def answer(server: Server, message: bytes, **options: object) -> tuple[str, bytes]:
    """The Subject and the words of what the owner is told."""
    done = program(server, message, **options)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    told = message_from_bytes(done.stdout, policy=policy.default)
    return str(told["Subject"]), b" ".join(done.stdout.split())


def give(server: Server, *cards: Card) -> None:
    (server.home / ".cryptomail").mkdir(mode=0o700, exist_ok=True)
    (server.home / ".cryptomail/smime.pem").write_bytes(b"".join(one.pem for one in cards))


def in_use(server: Server, *cards: Card) -> bool:
    """Whether mail is encrypted to all of these."""
    stored = server.filter(MESSAGE).stdout
    return all(one.decrypt(stored) == MESSAGE for one in cards)


FORMS: "dict[str, Callable[[Card, Card], bytes]]" = {
    "signed": lambda card, authority: card.signed(),
    "signed, with the authority's": lambda card, authority: card.signed(
        "-certfile", str(authority.directory / "cert.pem")
    ),
    "signed, in BER": lambda card, authority: card.signed("-stream", "-indef"),
    "signed, the message in it": lambda card, authority: card.signed("-nodetach"),
    "attached in PEM": lambda card, authority: attached(b"application/x-x509-user-cert", card.pem),
    "attached in DER": lambda card, authority: attached(
        b"application/pkix-cert", openssl("x509", "-outform", "DER", data=card.pem)
    ),
    "attached, of no type": lambda card, authority: attached(
        b"application/octet-stream", openssl("x509", "-outform", "DER", data=card.pem)
    ),
    "attached in PKCS #7": lambda card, authority: attached(b"application/x-pkcs7-certificates", bag(card, authority)),
    "attached in PKCS #7 and PEM": lambda card, authority: attached(
        b"application/octet-stream", bag(card, authority, form="PEM")
    ),
    "in the text": lambda card, authority: part(b"text/plain", b"My certificate:\n" + card.pem + b"-- \nAlice\n"),
}


@pytest.fixture(scope="module")
def authority(maker: Maker) -> Card:
    return maker.make(name="Authority", address="", usage="keyCertSign")


@pytest.fixture(scope="module")
def issued(maker: Maker, authority: Card) -> Card:
    return maker.make(issuer=authority)


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_is_found_wherever_mail_programs_put_it(form: str, issued: Card, authority: Card) -> None:
    found = request.read(FORMS[form](issued, authority))
    assert [one.der for one in found.smime or found.signers] == [
        one.der for one in certificate.read(issued.pem).certificates
    ]
    assert bool(found.signers) == form.startswith("signed")
    assert found == request.KeyMail(smime=found.smime, signers=found.signers)


def test_saving_a_signed_message_is_enough(server: Server, card: Card, outbox: Outbox) -> None:
    subject, words = answer(server, card.signed(), sendmail=outbox.program)
    assert subject == "Your S/MIME certificate is set up"
    assert f"remove {card.fingerprint}".encode() in words
    assert in_use(server, card)
    [(_, sent)] = outbox.take()
    assert b"If your mail program shows that this message was encrypted" in sent
    assert answer(server, card.signed())[0] == "Your S/MIME certificate was set up already"


def test_a_renewed_one_serves_beside_the_old_one_whose_owner_is_told(
    server: Server, card: Card, maker: Maker, outbox: Outbox
) -> None:
    give(server, card)
    renewed = maker.make(*ec("P-256"), days=400)
    subject, words = answer(server, attached(b"application/pkix-cert", renewed.pem), sendmail=outbox.program)
    assert subject == "Your S/MIME certificate is set up"
    assert b"and to these, as before" in words
    assert in_use(server, card, renewed)
    notice, _ = [message for _, message in outbox.take()]
    assert b"Subject: Another S/MIME certificate was set up for you" in notice
    assert b"Whoever has that key can read it." in card.decrypt(notice)


def test_a_message_that_somebody_else_signed_brings_nothing(server: Server, maker: Maker) -> None:
    bob = maker.make(address="bob@example.org")
    assert answer(server, bob.signed())[0] == "No OpenPGP key found"
    assert answer(server, attached(b"application/pkix-cert", bob.pem))[0] == "Your S/MIME certificates were NOT changed"
    assert server.filter(MESSAGE).stdout == MESSAGE


def test_of_two_certificates_the_one_for_encryption_is_taken(server: Server, maker: Maker, card: Card) -> None:
    signing = maker.make(usage="digitalSignature")
    assert answer(server, signing.signed("-certfile", str(card.directory / "cert.pem")))[0].endswith("is set up")
    assert in_use(server, card)


def test_one_that_is_for_signatures_alone_is_refused_in_words(server: Server, maker: Maker) -> None:
    subject, words = answer(server, maker.make(usage="digitalSignature").signed())
    assert subject == "Your S/MIME certificates were NOT changed"
    assert b"it is not for encryption" in words
    assert server.filter(MESSAGE).stdout == MESSAGE


SECRETS: "dict[str, Callable[[Card], bytes]]" = {
    "PKCS #12": lambda card: openssl("pkcs12", "-export", *files(card), "-passout", "pass:secret"),
    "PKCS #12 of old": lambda card: openssl(
        *("pkcs12", "-export", *files(card), "-passout", "pass:", "-legacy", "-certpbe", "PBE-SHA1-3DES"),
        *("-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"),
    ),
    "PEM": lambda card: card.pem + card.key.read_bytes(),
    "PKCS #8": lambda card: openssl("pkcs8", "-topk8", "-nocrypt", "-outform", "DER", data=card.key.read_bytes()),
    "PKCS #8, encrypted": lambda card: openssl(
        "pkcs8", "-topk8", "-passout", "pass:secret", "-outform", "DER", data=card.key.read_bytes()
    ),
    "traditional": lambda card: openssl("pkey", "-traditional", "-outform", "DER", data=card.key.read_bytes()),
}


def files(card: Card) -> tuple[str, ...]:
    return ("-inkey", str(card.key), "-in", str(card.directory / "cert.pem"))


@pytest.mark.parametrize("kind", ["RSA", "P-256", "P-521"])
@pytest.mark.parametrize("form", SECRETS)
def test_a_secret_key_is_noticed_and_not_kept(server: Server, maker: Maker, card: Card, form: str, kind: str) -> None:
    secret = SECRETS[form](card if kind == "RSA" else maker.make(*ec(kind)))
    message = attached(b"application/x-pkcs12", secret)
    assert request.read(message) == request.KeyMail(secret=True)
    if kind == "RSA":
        subject, _ = answer(server, message)
        assert subject == "WARNING: you sent your SECRET key"
        assert list(server.home.iterdir()) == []


def test_no_certificate_and_no_signature_is_taken_for_a_secret_key(card: Card, maker: Maker) -> None:
    for one in (card, maker.make(*ec("P-256"))):
        for message in (one.signed(), one.signed("-nodetach"), attached(b"application/pkix-cert", one.pem)):
            assert not request.read(message).secret


def test_an_openpgp_key_that_is_saved_does_not_put_a_certificate_out_of_use(
    server: Server, card: Card, new_owner: Callable[[], Owner]
) -> None:
    give(server, card)
    thief = new_owner()
    thief.make_key(ALICE)
    subject, words = answer(server, letter(thief))
    assert subject == "Your OpenPGP keys were NOT changed"
    assert b"mail for you becomes S/MIME" in words
    assert in_use(server, card)


def test_a_certificate_that_is_saved_does_not_put_an_openpgp_key_out_of_use(enrolled: Server, card: Card) -> None:
    enrolled.config.write_text('[keyrings]\nprefer = "smime"\n')
    subject, words = answer(enrolled, card.signed(), config=enrolled.config)
    assert subject == "Your S/MIME certificates were NOT changed"
    assert b"mail for you becomes OpenPGP" in words
    assert b"multipart/encrypted" in enrolled.filter(MESSAGE).stdout


def test_an_owner_with_an_openpgp_key_chooses_by_taking_that_away(enrolled: Server, card: Card) -> None:
    enrolled.config.write_text("removal_delay = 0\n")
    subject, words = answer(enrolled, card.signed())
    assert subject == "Your S/MIME certificate was kept, but is not used yet"
    assert b"with the Subject: remove FINGERPRINT" in words
    assert b"multipart/encrypted" in enrolled.filter(MESSAGE).stdout
    [state] = run_list(enrolled)
    subject, words = answer(enrolled, f"Subject: remove {state}\r\n\r\n".encode(), config=enrolled.config)
    assert subject == "Your OpenPGP key was removed"
    assert in_use(enrolled, card)


def run_list(server: Server) -> list[str]:
    """The fingerprints of the keys that count."""
    options = ("--user", ALICE, "--home", str(server.home))
    listed = run("keys", "show", *options, environment={"PATH": "/usr/bin:/bin"})
    return [line.split()[1].decode() for line in listed.stdout.splitlines() if line.startswith(b"  key:")]


def test_an_owner_can_have_a_certificate_taken_away_whether_it_counts_or_not(
    server: Server, enrolled: Server, card: Card
) -> None:
    assert server is enrolled
    give(enrolled, card)
    command = f"Subject: remove {card.fingerprint}\r\n\r\n".encode()
    assert answer(enrolled, command)[0] == "Your S/MIME certificate was removed"
    assert not (enrolled.home / ".cryptomail/smime.pem").exists()
    assert answer(enrolled, command)[0] == "Your OpenPGP keys were NOT changed"
    assert b"multipart/encrypted" in enrolled.filter(MESSAGE).stdout


def test_a_certificate_in_use_waits_for_its_removal_and_its_owner_has_a_code(
    server: Server, card: Card, outbox: Outbox
) -> None:
    give(server, card)
    subject, _ = answer(server, f"Subject: remove {card.fingerprint}\r\n\r\n".encode(), sendmail=outbox.program)
    assert subject.startswith("Your S/MIME certificate will be removed on ")
    assert in_use(server, card)
    [(_, notice)] = outbox.take()
    code = re.search(rb"  confirm ([0-9]{6})", card.decrypt(notice))
    assert code is not None
    assert code[1] not in notice
    assert answer(server, b"Subject: confirm " + code[1] + b"\r\n\r\n")[0] == "Your S/MIME certificate was removed"
    assert server.filter(MESSAGE).stdout == MESSAGE


def test_off_takes_certificates_away_too_that_did_not_count(enrolled: Server, card: Card) -> None:
    enrolled.config.write_text("removal_delay = 0\n")
    give(enrolled, card)
    assert answer(enrolled, b"Subject: off\r\n\r\n", config=enrolled.config)[0] == "Encryption is off"
    assert enrolled.filter(MESSAGE).stdout == MESSAGE


def test_a_certificate_can_be_tried_before_it_counts(server: Server, card: Card, outbox: Outbox) -> None:
    tried = card.signed().replace(b"Subject: my key", b"Subject: try")
    assert answer(server, tried, sendmail=outbox.program)[0] == "Now see whether you can read the test message"
    assert server.filter(MESSAGE).stdout == MESSAGE
    [(_, notice)] = outbox.take()
    code = re.search(rb"  confirm ([0-9]{6})", card.decrypt(notice))
    assert code is not None
    assert answer(server, b"Subject: confirm " + code[1] + b"\r\n\r\n")[0] == "Your S/MIME certificate is set up"
    assert in_use(server, card)


def test_one_that_is_saved_does_not_put_those_in_another_place_out_of_use(
    server: Server, card: Card, maker: Maker
) -> None:
    server.config.write_text('[keyrings]\ncertificates = ["%h/.cryptomail/smime.pem", "%h/other.pem"]\n')
    (server.home / "other.pem").write_bytes(card.pem)
    another = maker.make(*ec("P-256"))
    assert answer(server, another.signed(), config=server.config)[0] == "Your S/MIME certificate is set up"
    assert in_use(server, card, another)


def test_a_message_with_both_kinds_is_refused(server: Server, card: Card, alice: Owner) -> None:
    key = alice.gpg("--armor", "--export", ALICE)
    both = multipart(b"multipart/mixed", part(b"application/pgp-keys", key), part(b"application/pkix-cert", card.pem))
    subject, words = answer(server, both)
    assert subject == "Your OpenPGP keys were NOT changed"
    assert b"send one message" in words
    assert server.filter(MESSAGE).stdout == MESSAGE
