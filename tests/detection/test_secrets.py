"""Secret keys are found in whatever they were put into, and nothing else is taken for one."""

import base64
import binascii
import bz2
import gzip
import html
import io
import itertools
import json
import lzma
import quopri
import random
import re
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter.detection import secrets
from sieve_filter.enrolment import request
from tests.support.samples import Home, home, multipart, noise, old_packet, packet, part

__all__ = ["home"]


PLAIN = ("--passphrase", "")
KINDS = {
    "RSA": ("rsa2048", "rsa2048"),
    "RSA in plain": ("rsa1024", "rsa1024", *PLAIN),
    "DSA and Elgamal": ("dsa1024", "elg1024", *PLAIN),
    "Ed25519": ("ed25519", "cv25519"),
    "Ed25519 in plain": ("ed25519", "cv25519", *PLAIN),
    "NIST in plain": ("nistp256", "nistp256", *PLAIN),
    "Brainpool": ("brainpoolP384r1", "brainpoolP384r1"),
}


class Keys(dict[str, tuple[bytes, bytes]]):
    """Of each kind of key the binary public and secret key, as gpg exports them."""

    def __repr__(self) -> str:
        """Short enough for Hypothesis to show."""
        return "keys"


@pytest.fixture(scope="session")
def keys(home: Home) -> Keys:
    made = Keys()
    for name, (primary, subkey, *options) in KINDS.items():
        user_id = f"{name}@example.org".replace(" ", "-")
        home.gpg(*options, "--quick-generate-key", f"<{user_id}>", primary, "sign", "never")
        listing = home.gpg("--with-colons", "--list-keys", user_id).decode()
        fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        home.gpg(*options, "--quick-add-key", fingerprint, subkey, "encr", "never")
        secret = home.gpg(*options, "--export-secret-keys", fingerprint)
        made[name] = (home.gpg("--export", fingerprint), secret)
    return made


def armor(data: bytes, label: str = "PUBLIC KEY BLOCK", end: bytes = b"\n") -> bytes:
    lines = base64.b64encode(data)
    cut = end.join(lines[start : start + 64] for start in range(0, len(lines), 64))
    begin, finish = (f"-----{word} PGP {label}-----".encode() for word in ("BEGIN", "END"))
    return end.join([begin, b"", cut, finish, b""])


def uuencoded(data: bytes) -> bytes:
    lines = [binascii.b2a_uu(data[start : start + 45]) for start in range(0, len(data), 45)]
    return b"begin 644 key.gpg\n" + b"".join(lines) + b"`\nend\n"


def yencoded(data: bytes) -> bytes:
    """As yEnc's draft 1.3 has it: 42 more than each octet, and 64 more behind an equals sign for some."""
    shifted = [octet + 42 & 255 for octet in data]
    lines = [
        b"".join(
            bytes([61, one + 64]) if one in (0, 10, 13, 61) else bytes([one]) for one in shifted[start : start + 128]
        )
        for start in range(0, len(data), 128)
    ]
    head = b"=ybegin line=128 size=%d name=key.gpg\r\n" % len(data)
    return head + b"\r\n".join(lines) + b"\r\n=yend size=%d\r\n" % len(data)


def in_rtf(text: bytes) -> bytes:
    """As word processors write it: lines that end anywhere, control words and escapes in their middle."""

    def escaped(piece: bytes) -> bytes:
        return re.sub(rb"([\\{}])", rb"\\\1", piece)

    lines = [
        escaped(line[:7])
        + b"{\\*\\bkmkstart one}\r\n"
        + escaped(line[7:20]).replace(b"/", b"\\'2f")
        + b"\\b0\\fs20 "
        + escaped(line[20:])
        for line in text.replace(b"\r", b"").split(b"\n")
    ]
    return b"{\\rtf1\\ansi{\\fonttbl{\\f0 Arial;}}\\pard " + b"\\par\r\n".join(lines) + b"}"


def in_utf_7(text: bytes) -> bytes:
    """Each third character by its number (RFC 2152)."""
    decoded = text.decode("latin-1")

    def shifted(one: str) -> str:
        return "+" + base64.b64encode(one.encode("utf-16-be")).decode().rstrip("=") + "-"

    return "".join(
        shifted(one) if at % 3 == 0 and one > " " else one.replace("+", "+-") for at, one in enumerate(decoded)
    ).encode("latin-1")


def in_quoted_printable(data: bytes, quote_spaces: bool = False) -> bytes:
    """As text, where the ends of its lines survive that, else as octets (RFC 2045 section 6.7, rule 4)."""
    encoded = quopri.encodestring(data, quotetabs=quote_spaces)
    return encoded if quopri.decodestring(encoded) == data else binascii.b2a_qp(data, quote_spaces, istext=False)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "Here it is.\n" * 20)
        archive.writestr("key.gpg", data)
    return file.getvalue()


def tarred(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("key.gpg")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def in_html(text: bytes) -> bytes:
    """As editors write it: a mark in each line, in its middle too, and entities."""

    def escaped(piece: bytes) -> bytes:
        return html.escape(piece.decode("latin-1")).encode("latin-1").replace(b"+", b"&#43;")

    lines = [
        escaped(line[:9])
        + b'<span style="x: 1 > 0">'
        + escaped(line[9:20])
        + b"</span><!-- a > b -->"
        + escaped(line[20:])
        for line in text.split(b"\n")
    ]
    return b"<html><p>Hello,</p><pre>" + b"&nbsp;<br>\n".join(lines) + b"</pre></html>"


Wrap = Callable[[bytes], bytes]

# What makes text of anything, and what needs text.
TO_TEXT: dict[str, Wrap] = {
    "armor of a public key": armor,
    "armor of a message": lambda data: armor(data, "MESSAGE", b"\r\n"),
    "base64 without armor lines": base64.encodebytes,
    "base64 on one line": base64.b64encode,
    "base64 for URLs": base64.urlsafe_b64encode,
    "uuencode": uuencoded,
    "hexadecimal digits": lambda data: data.hex(" ", 2).encode(),
}
OF_TEXT: dict[str, Wrap] = {
    "UTF-16 with a mark": lambda text: text.decode("latin-1").encode("utf-16"),
    "UTF-16 without a mark": lambda text: text.decode("latin-1").encode("utf-16-le"),
    "UTF-16, big end first": lambda text: text.decode("latin-1").encode("utf-16-be"),
    "UTF-32": lambda text: text.decode("latin-1").encode("utf-32"),
    "HTML": in_html,
    "JSON": lambda text: json.dumps({"key": text.decode("latin-1")}).encode(),
    "a URL": lambda text: b"data:," + quote(text).encode(),
    "RTF": in_rtf,
    "UTF-7": in_utf_7,
    "a quotation": lambda text: b"> " + text.replace(b"\n", b"\n> "),
}
OF_ANYTHING: dict[str, Wrap] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zlib": zlib.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "ZIP": zipped,
    "tar": tarred,
    "a compressed packet": lambda data: b"\xa3\x01" + zlib.compress(data, wbits=-15),
    "yEnc": yencoded,
    "a literal packet": lambda data: packet(11, b"b\x03key\x00\x00\x00\x00" + data),
    "quoted-printable": lambda data: in_quoted_printable(data, quote_spaces=True),
    "a message as text": lambda data: part(b"text/plain", data),
    "a base64 part": lambda data: multipart(
        b"multipart/mixed", part(b"application/x", base64.encodebytes(data), b"Content-Transfer-Encoding: base64")
    ),
    "a quoted-printable part": lambda data: part(
        b"text/html", in_quoted_printable(data), b"Content-Transfer-Encoding: quoted-printable"
    ),
    "an attached message": lambda data: part(b"message/rfc822", part(b"application/octet-stream", data)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_secret_key_is_found_and_no_public_key_is(kind: str, keys: Keys) -> None:
    public, secret = keys[kind]
    assert secrets.found(secret)
    assert not secrets.found(public)


@pytest.mark.parametrize("around", [*OF_TEXT, *OF_ANYTHING])
@pytest.mark.parametrize("form", ["binary", *TO_TEXT])
def test_no_form_of_a_saved_secret_key_is_overlooked(form: str, around: str, keys: Keys) -> None:
    if form == "binary" and around in OF_TEXT:
        pytest.skip("octets are no text")
    public, secret = keys["RSA"]
    for data, expected in ((secret, True), (public, False)):
        text = TO_TEXT[form](data) if form in TO_TEXT else data
        wrapped = (OF_TEXT | OF_ANYTHING)[around](text)
        assert request.read(b"Subject: my key\nContent-Type: text/plain\n\nHello,\n\n" + wrapped).secret == expected


WRAPS = TO_TEXT | OF_TEXT | OF_ANYTHING
LAYERS = st.one_of(
    st.tuples(st.sampled_from(list(OF_ANYTHING))),
    st.tuples(st.sampled_from(list(TO_TEXT))),
    st.tuples(st.sampled_from(list(TO_TEXT)), st.sampled_from(list(OF_TEXT))),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(KINDS)), st.lists(LAYERS, max_size=2), st.binary(max_size=60), st.binary(max_size=60))
def test_no_pile_of_encodings_hides_a_secret_key_or_makes_one_of_a_public_key(
    keys: Keys, kind: str, layers: list[tuple[str, ...]], before: bytes, behind: bytes
) -> None:
    public, secret = keys[kind]
    for name in itertools.chain.from_iterable(layers):
        public, secret = WRAPS[name](public), WRAPS[name](secret)
    assert secrets.found(before + b"\n" + secret + b"\n" + behind)
    assert not secrets.found(before + b"\n" + public + b"\n" + behind)


def test_the_beginning_of_a_secret_key_is_one(keys: Keys) -> None:
    for _, secret in keys.values():
        assert secrets.found(secret[: len(secret) // 2])
        assert secrets.found(base64.encodebytes(secret[: len(secret) // 2]))


FIXED = b"\x65\x00\x00\x00\x1b" + b"k" * 32


def test_backslashes_that_are_a_part_of_a_key_s_text_are_kept() -> None:
    octets = b"\xf3\xcf\x3c" * 3 + b"\x00" + b"\xf3\xcf\x3c" * 3 + b"\x00" + b"\xf3\xcf\x3c" * 4
    text = uuencoded(packet(5, b"\x04\x65\x00\x00\x00\x1b" + octets + b"\x00" + b"s" * 32 + b"\x0e\x60"))
    assert text.count(b"\\") >= 8
    assert secrets.found(json.dumps({"key": text.decode()}).encode())


PLAIN_KEY = packet(5, b"\x04" + FIXED + b"\x00" + b"s" * 32 + b"\x0e\x60")


def compressed(fits: Callable[[bytes], bool], compress: Wrap) -> bytes:
    """A compressed secret key, which is lost with a single octet that is wrong, with so much behind it that it fits."""
    made = (compress(PLAIN_KEY + noise(octets)) for octets in itertools.count(20))
    return next(one for one in made if fits(one))


def test_the_last_line_of_quoted_uuencoding_is_read_whatever_its_length_is_written_as() -> None:
    # A line of 30 octets begins with ">", as what is quoted does.
    text = uuencoded(compressed(lambda made: len(made) % 45 == 30, bz2.compress))
    assert secrets.found(b"> " + text.replace(b"\n", b"\n> "))


def test_base64_for_urls_is_known_by_a_single_letter_of_it() -> None:
    def fits(made: bytes) -> bool:
        return len(re.findall(rb"[-_]", base64.urlsafe_b64encode(made))) == 1

    assert secrets.found(base64.urlsafe_b64encode(compressed(fits, bz2.compress)))


@pytest.mark.parametrize(
    "body",
    [
        b"\x04" + FIXED + b"\x00" + b"s" * 32 + b"\x12\x34",  # the checksum is another
        b"\x04" + FIXED + b"\x00" + b"s" * 31 + b"\x0e\x60",
        b"\x04" + FIXED + b"\xfe\x09\x03\x08" + b"s" * 8 + b"\x60" + b"i" * 16 + b"s" * 90,  # more than it can be
        b"\x04" + FIXED + b"\xfd\x09\x04" + b"s" * 84,  # there are no such nonces
    ],
)
def test_what_only_begins_like_a_secret_key_and_does_not_fit_is_none(body: bytes) -> None:
    assert not secrets.found(packet(5, body))


NATIVE = b"\x04" + FIXED
RSA = b"\x04\x65\x00\x00\x00\x01\x04\x00" + b"\xa5" * 128


@pytest.mark.parametrize(
    "octets",
    [
        b"\x97" + NATIVE + b"\x07",  # its length is not told
        b"\xc5\xe5" + NATIVE + b"\xfe\x09\x03\x08",
        b"\x94\x6e" + NATIVE + b"\x07",  # no cipher is named so for keys on curves
        b"\x94\x6e" + NATIVE + b"\xfe\x09\x03\x08",  # it is longer than it can be
        b"\x95\x02\x00" + RSA + b"\x04\x00" + b"\xa5" * 128 + b"\x07",  # no exponent is as long as a modulus
        b"\x95\x7f\xff" + RSA + b"\x00\x11\x01\x00\x01\x07",
    ],
)
def test_octets_that_begin_like_a_secret_key_by_chance_are_none(octets: bytes) -> None:
    assert not secrets.found(octets + noise(300))


@pytest.mark.parametrize("algorithm", [1, 16, 17, 18, 22, 25, 26, 27, 28, 35])
def test_noise_behind_what_a_secret_key_begins_with_is_none(algorithm: int) -> None:
    pieces = (noise(200, seed) for seed in range(10_000))
    headers = itertools.cycle([(b"\x94", 1), (b"\x95", 2), (b"\x97", 0), (b"\xc5", 1)])  # and octets of a length
    made = [
        tag + piece[:octets] + b"\x04" + piece[2:6] + bytes([algorithm]) + piece[6:]
        for (tag, octets), piece in zip(headers, pieces, strict=False)
    ]
    assert not secrets.found(b"".join(made))


@pytest.mark.parametrize(
    ("layers", "seed"),
    [
        (("uuencode", "JSON"), 1420),
        (("uuencode", "UTF-7", "base64 on one line"), 2211),
        (("armor of a public key", "UTF-7", "armor of a message", "UTF-7"), 11),
    ],
)
def test_what_is_undone_by_mistake_makes_no_secret_key_of_a_public_one(layers: tuple[str, ...], seed: int) -> None:
    random_octets = noise(520, seed)
    material = b"\x08\x00\xa5" + random_octets[:255] + b"\x00\x11\x01\x00\x01"
    signature = b"\x04\x13\x01\x0a" + bytes(4) + random_octets[255:257] + b"\x08\x00\xa5" + random_octets[257:512]
    key = old_packet(6, b"\x04\x65\x00\x00\x00\x01" + material)
    data = key + old_packet(13, b"<me@example.org>") + old_packet(2, signature)
    for name in layers:
        data = WRAPS[name](data)
    assert not secrets.found(data)


@pytest.mark.parametrize(
    "body",
    [
        b"\x04" + FIXED + b"\x00" + b"s" * 32 + b"\x0e\x60",
        b"\x04" + FIXED + b"\xfe\x09\x03\x08" + b"s" * 8 + b"\x60" + b"i" * 16 + b"s" * 52,
        b"\x06\x65\x00\x00\x00\x1b\x00\x00\x00\x20" + b"k" * 32 + b"\x00" + b"s" * 32,
        b"\x06\x65\x00\x00\x00\x1b\x00\x00\x00\x20" + b"k" * 32 + b"\xfd\x26\x09\x02\x14\x04" + b"s" * 84,
        b"\x06\x65\x00\x00\x00\x23\x00\x00\x04\xc0" + b"k" * 1216 + b"\x00" + b"s" * 96,
        b"\x03\x30\x00\x00\x00\x00\x00\x01\x02\x00\x80" + b"n" * 63 + b"\x00\x05\x11\x01" + b"i" * 8 + b"s" * 200,
    ],
)
def test_secret_keys_of_other_versions_are_found(body: bytes) -> None:
    for made in (packet(5, body), old_packet(7, body)):
        assert secrets.found(b"text " + made)


def test_a_secret_subkey_behind_a_public_key_is_found(keys: Keys) -> None:
    public, _ = keys["Ed25519"]
    assert secrets.found(public + packet(7, b"\x04" + FIXED + b"\x00" + b"s" * 32 + b"\x0e\x60"))


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQdamaged",
        b"-----BEGIN <b>PGP</b> PRIVATE&nbsp;KEY BLOCK-----\n\nlQdamaged",
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIC",
        b"Created: 20240101T000000\nKey: (protected-private-key (rsa (n #00C0",
        b"(21:protected-private-key(3:rsa(1:n257:",
    ],
)
def test_what_says_that_it_is_a_secret_key_is_one(text: bytes) -> None:
    assert secrets.found(b"Subject: my key\n\nHere it is.\n\n" + text)
    assert secrets.found(text.ljust(90).decode().encode("utf-16-le"))


def test_noise_and_letters_are_no_keys() -> None:
    noise = random.Random(5).randbytes(1_000_000)  # noqa: S311  # the same each time
    letter = b"Dear friend, how do you keep your private key? Mine begins with lQOYBF. " * 5_000
    for one in (noise, letter, base64.encodebytes(noise), gzip.compress(letter), b"Subject: x\n\n" + letter + noise):
        assert not secrets.found(one)


# Made in the test, not while tests are collected: the compressed ones take seconds, and one holds the time of day.
MEGABYTES: dict[str, Callable[[], bytes]] = {
    "packets": lambda: b"\x95\x01\x00\x04\x65\x00\x00\x00\x01" * 100_000,
    "gzip in gzip": lambda: gzip.compress(gzip.compress(b"\x00" * 300_000_000)),
    "bzip2": lambda: bz2.compress(b"\x00" * 300_000_000),
    "comments": lambda: b"<!--" * 250_000,
    "attributes": lambda: b'="' * 500_000,
    "words": lambda: b"ab " * 63 * 5_000 + b"x",
    "partial lengths": lambda: b"\xa3\x01" * 500_000,
    "entities": lambda: b"&amp;" * 200_000,
    "soft line breaks": lambda: b"=3D%3D\\n<" * 100_000,
    "uuencode": lambda: b"M" + b"=" * 1_000_000,
    "UTF-7": lambda: b"+AD0+-+\\" * 150_000,
    "RTF": lambda: b"{\\rtf{\\*" * 120_000,
    "RTF's braces": lambda: b"{\\rtf" + b"{\\*x" * 250_000,
    "yEnc": lambda: b"=ybegin \n=" * 100_000,
}


@pytest.mark.parametrize("kind", MEGABYTES)
def test_a_megabyte_of_anything_takes_a_few_seconds(kind: str) -> None:
    raw = MEGABYTES[kind]()
    started = time.process_time()
    assert not secrets.found(raw)
    assert time.process_time() - started < 10
