"""What a saved message asks for."""

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.enrolment.request import Command, KeyMail, read
from sieve_filter.openpgp import certificate
from tests.support.certificates import ALICE, FINGERPRINT, KEY, MINE, NAME, SECRET_KEY, armored
from tests.support.samples import ARMORED, multipart, packet, part, pgp_mime

BOB = packet(6, KEY[:-1] + b"o") + packet(13, b"bob@example.org")
SECRET = packet(SECRET_KEY, KEY + b"\x00secret") + NAME + MINE
CERTIFICATES = certificate.read(ALICE).certificates
TEXT = part(b"text/plain", b"Here it is.\n")
IN_HTML = b"<p>My key:</p><p>" + armored(ALICE).replace(b"\n", b"<br>\n ").replace(b"+", b"&#43;") + b"</p>"


def base64_part(media_type: bytes, body: bytes) -> bytes:
    return part(media_type, base64.encodebytes(body), b"Content-Transfer-Encoding: base64")


def autocrypt(data: bytes, attributes: bytes = b"addr=Alice@example.org; prefer-encrypt=mutual; ") -> bytes:
    folded = base64.encodebytes(data).strip().replace(b"\n", b"\n ")
    return b"Autocrypt: " + attributes + b"keydata=" + folded + b"\n"


@pytest.mark.parametrize(
    "raw",
    [
        part(b"application/pgp-keys", ALICE),
        part(b"text/plain", b"My key:\n\n" + armored(ALICE) + b"\n-- \nAlice\n"),
        b"Subject: no type at all\n\n" + armored(ALICE),
        multipart(b"multipart/mixed", TEXT, part(b"application/pgp-keys; name=k.asc", armored(ALICE))),
        multipart(b"multipart/mixed", TEXT, base64_part(b"application/pgp-keys", ALICE)),
        multipart(b"multipart/mixed", TEXT, base64_part(b"application/octet-stream", armored(ALICE))),
        multipart(b"multipart/mixed", TEXT, base64_part(b"application/octet-stream", ALICE)),
        multipart(b"multipart/mixed", TEXT, base64_part(b"text/plain; name=key.asc", armored(ALICE))),
        multipart(b"multipart/mixed", base64_part(b"application/x", armored(ALICE).decode().encode("utf-16"))),
        part(b"text/plain", armored(ALICE).replace(b"=", b"=3D"), b"Content-Transfer-Encoding: quoted-printable"),
        part(b"text/html", IN_HTML),
        multipart(b"multipart/alternative", part(b"text/plain", armored(ALICE)), part(b"text/html", IN_HTML)),
        part(b"message/rfc822", part(b"text/plain", armored(ALICE))),
        multipart(b"multipart/mixed", part(b"application/pgp-keys", ALICE), part(b"text/plain", armored(ALICE))),
    ],
)
def test_a_key_is_found_wherever_mail_programs_put_it(raw: bytes) -> None:
    for form in (raw, raw.replace(b"\n", b"\r\n") if ALICE not in raw else raw):
        assert read(form) == KeyMail(certificates=CERTIFICATES)


def test_several_keys_are_found_in_their_order() -> None:
    raw = multipart(b"multipart/mixed", part(b"text/plain", armored(BOB)), part(b"application/pgp-keys", ALICE))
    found = [one.addresses for one in read(raw).certificates]
    assert found == [{"bob@example.org"}, {"alice@example.org"}]


@pytest.mark.parametrize(
    "raw",
    [
        part(b"text/plain", armored(SECRET, b"PRIVATE KEY BLOCK")),
        part(b"text/plain", b"> " + armored(SECRET, b"PRIVATE KEY BLOCK").replace(b"\n", b"\n> ")),
        part(b"text/html", b"<p>" + armored(SECRET, b"PRIVATE KEY BLOCK").replace(b"\n", b"<br>")),
        part(b"text/plain", armored(SECRET)),
        part(b"application/octet-stream", SECRET),
        multipart(b"multipart/mixed", base64_part(b"application/pgp-keys", ALICE + SECRET)),
        multipart(b"multipart/mixed", base64_part(b"application/octet-stream", SECRET)),
        base64_part(b"application/x", armored(SECRET, b"PRIVATE KEY BLOCK").decode().encode("utf-16")),
        base64_part(b"text/plain", armored(SECRET, b"SECRET KEY BLOCK")) + b"!",
        part(b"message/rfc822", base64_part(b"text/plain", armored(SECRET, b"PRIVATE KEY BLOCK"))),
        multipart(b"multipart/mixed", part(b"application/pgp-keys", ALICE), base64_part(b"application/x", SECRET)),
        autocrypt(SECRET) + b"Subject: hello\n\n",
        b"Subject: remove " + b"A" * 40 + b"\n\n" + armored(SECRET, b"PRIVATE KEY BLOCK"),
    ],
)
def test_a_secret_key_is_noticed_and_nothing_else_is_told(raw: bytes) -> None:
    assert read(raw) == KeyMail(secret=True)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (part(b"text/plain", armored(ALICE)[:-60]), "its armor is cut short"),
        (part(b"application/pgp-keys", b"hello"), "there is no OpenPGP certificate in it"),
        (part(b"application/pgp-keys", ALICE[:-3]), "it is cut short"),
        (part(b"text/plain", armored(ALICE) * (limits.KEY_MAIL_PARTS + 1)), "more than 100 blocks"),
    ],
)
def test_what_cannot_be_read_is_told(raw: bytes, problem: str) -> None:
    assert any(problem in one for one in read(raw).problems)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"Subject: hello\n\nA letter that says -----BEGIN PGP PUBLIC KEY BLOCK----- and no more.\n",
        b"Subject: please remove " + b"A" * 40 + b"\n\n",
        multipart(b"multipart/mixed", TEXT, base64_part(b"image/png", b"\x89PNG\r\n" + bytes(range(256)))),
    ],
)
def test_other_mail_asks_for_nothing(raw: bytes) -> None:
    assert read(raw) == KeyMail()


def test_the_key_of_an_autocrypt_header_is_told_apart() -> None:
    found = read(autocrypt(ALICE) + b"Subject: hello\n\nText.\n").autocrypt
    assert found == ("alice@example.org", CERTIFICATES)


@pytest.mark.parametrize(
    "header",
    [
        autocrypt(ALICE) * 2,  # Autocrypt Level 1: then none counts
        autocrypt(ALICE, b"addr=alice@example.org; critical=1; "),
        autocrypt(ALICE, b""),
        autocrypt(ALICE, b"addr=alice; "),
        b"Autocrypt: addr=alice@example.org; keydata=%%%\n",
        b"Autocrypt: addr\n",
    ],
)
def test_an_autocrypt_header_that_does_not_follow_its_rules_is_none(header: bytes) -> None:
    assert read(header + b"\n") == KeyMail()


def test_an_autocrypt_header_says_nothing_beside_a_key_or_a_command() -> None:
    assert read(autocrypt(BOB) + part(b"application/pgp-keys", ALICE)).autocrypt is None
    assert read(autocrypt(BOB) + b"Subject: remove " + FINGERPRINT.encode() + b"\n\n").autocrypt is None


@pytest.mark.parametrize("subject", ["remove %s", "Remove  %s ", "REMOVE 0x%s"])
def test_the_subject_says_which_key_to_remove(subject: str) -> None:
    for fingerprint in ("A1" * 20, "b2" * 32, " ".join(["C3D4"] * 10)):
        raw = f"Subject: {subject % fingerprint}\r\n\r\n".encode()
        assert read(raw) == KeyMail(command=Command("remove", fingerprint.replace(" ", "").upper()))


@pytest.mark.parametrize(
    "prefix",
    [
        "Re: ",
        "RE:",
        "AW: ",
        "Fwd: Re: ",
        "RV: ",
        "re[2]: ",
        "Rép : ",
        "=?utf-8?Q?R=C3=A9p?= : ",
        "=?utf-8?B?w4TCoDog?=",
    ],
)
def test_what_mail_programs_put_before_a_subject_does_not_matter(prefix: str) -> None:
    spaced = "c3d4 " * 10
    for fingerprint in (spaced, spaced.replace(" ", "\u00a0"), spaced.replace(" ", ":").rstrip(":"), "C3D4" * 10):
        assert read(f"Subject: {prefix}Remove {fingerprint}\r\n\r\n".encode()) == KeyMail(
            command=Command("remove", "C3D4" * 10)
        )


def test_a_long_subject_is_no_command() -> None:
    assert read(b"Subject: " + b"a:" * 100_000 + b"remove " + b"A" * 40 + b"\n\n") == KeyMail()


@pytest.mark.parametrize(
    "raw",
    [
        pgp_mime(),
        part(b"text/plain", ARMORED),
        multipart(b"multipart/mixed", TEXT, part(b"application/octet-stream", ARMORED)),
        base64_part(b"application/pkcs7-mime; smime-type=enveloped-data", b"0\x80"),
    ],
)
def test_an_encrypted_message_is_told_from_one_without_a_key(raw: bytes) -> None:
    assert read(raw) == KeyMail(encrypted=True)


@pytest.mark.parametrize(
    "subject", ["remove", "Re: remove", "remove all", "remove " + "A" * 16, "remove " + "A" * 39 + "G"]
)
def test_a_key_to_remove_must_be_named_whole(subject: str) -> None:
    found = read(f"Subject: {subject}\r\n\r\n".encode())
    assert (found.command.word, "full fingerprint" in found.problems[0]) == ("", True)


@given(st.binary(max_size=300))
def test_any_octets_can_be_read(data: bytes) -> None:
    for form in (data, part(b"application/pgp-keys", data), part(b"text/html", data), b"Autocrypt: " + data):
        read(form)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_text_around_it_hides_an_armored_secret_key(before: bytes, behind: bytes) -> None:
    armor = armored(SECRET, b"PRIVATE KEY BLOCK")
    assert read(before + armor + behind).secret
    assert read(
        part(b"text/plain", base64.encodebytes(before + armor + behind), b"Content-Transfer-Encoding: base64")
    ).secret


@pytest.mark.parametrize(
    "raw",
    [
        part(b"text/html", b"<" * 1_000_000),
        part(b"text/html", b"\n " * 500_000),
        part(b"text/plain", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n" * 30_000),
        part(b'multipart/mixed; boundary="a"', b"\n--a\nContent-Type: multipart/mixed; boundary=a\n" * 20_000),
        b"Autocrypt: " + b"a=b;" * 250_000,
        b"Autocrypt: addr=a@b; keydata=AAAA\n" * 20_000,
    ],
)
def test_a_megabyte_of_anything_takes_a_second_or_two(raw: bytes) -> None:
    started = time.process_time()
    read(raw)
    assert time.process_time() - started < 3
