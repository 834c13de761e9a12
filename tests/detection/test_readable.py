"""What a sender wants to have stored readable is not taken for ciphertext, wherever in an encrypted message it is.

What real programs encrypt is, however small or large it is.
"""

import base64
import codecs
import random
import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sieve_filter.detection.classify import classify
from sieve_filter.mail.message import split
from sieve_filter.openpgp.encrypted import encrypted_message
from sieve_filter.smime.cms import enveloped
from tests.support.asn1 import (
    AES,
    AUTH_ENVELOPED,
    CONTENT,
    DATA,
    ISSUER,
    RECIPIENT,
    RECIPIENTS,
    VERSION,
    ber,
    der,
    info,
)
from tests.support.samples import (
    ARMORED,
    CIPHERTEXT,
    CONTROL,
    PKESK,
    SEIPD,
    Home,
    Smime,
    armor,
    home,
    mpi,
    multipart,
    noise,
    packet,
    part,
    partial_packet,
    pgp_mime,
    pkesk,
    smime,
)

__all__ = ["home", "smime"]

PROSE = (
    b"Meet me at noon, where the old road crosses the river. Bring the papers, and tell nobody. If I am late, wait in\n"
    b"the inn on the other side; its keeper knows my name, and will let you have the room above the door.\n"
) * 5
BASE64 = b"Content-Transfer-Encoding: base64"
OCTETS = b"application/octet-stream"
INLINE = part(b"text/plain", ARMORED)
ENCRYPTED_TYPE = b'multipart/encrypted; protocol="application/pgp-encrypted"'
CYRILLIC = "Встретимся в полдень у старого вокзала. Никому не говори об этом, и возьми с собой все бумаги. " * 11  # noqa: RUF001
CHINESE = "我们中午在老火车站见面请带上所有文件不要告诉任何人关于这次谈话的内容明天早上我在同一个地方等你" * 20


def words(count: int) -> list[bytes]:
    """The prose in so many pieces, one for each place where there is room for a few words."""
    size = -(-len(PROSE) // count)
    return [PROSE[start : start + size] for start in range(0, len(PROSE), size)]


def numbered(text: bytes) -> bytes:
    return (len(text) * 8 - 1).to_bytes(2) + text  # the highest bit of a letter is 0


ENCODED = {
    "ASCII": PROSE,
    "UTF-16": codecs.encode(PROSE.decode(), "utf-16"),
    "UTF-32": codecs.encode(PROSE.decode(), "utf-32-be"),
    "EBCDIC": codecs.encode(PROSE.decode(), "cp037"),
    "base64": base64.b64encode(noise(1_000)),
    "quoted-printable": b"".join(b"=%02X" % octet for octet in PROSE),
    "hexadecimal": PROSE.hex().encode(),
    "half octets": bytes(half for octet in PROSE for half in (octet >> 4, octet & 15)),
    "Cyrillic in UTF-8": CYRILLIC.encode(),
    "Cyrillic in UTF-16": CYRILLIC.encode("utf-16-le"),
    "Cyrillic in KOI8-R": CYRILLIC.encode("koi8-r"),
    "Chinese in UTF-8": CHINESE.encode(),
    "Chinese in UTF-16": CHINESE.encode("utf-16-be"),
    "Chinese in GB 18030": CHINESE.encode("gb18030"),
    "letters of the armor itself": base64.b64decode(re.sub(rb"[^A-Za-z]", b"", PROSE * 3)[:2_000]),
    "zeros": bytes(100),
    "between octets that are random": b"".join(PROSE[at : at + 30] + noise(30, at) for at in range(0, len(PROSE), 30)),
}


def with_data(text: bytes) -> bytes:
    return PKESK + packet(18, b"\x01" + text)


OPENPGP = {
    **{f"data is text, {name}": with_data(text) for name, text in ENCODED.items()},
    "text among much data": with_data(noise(20_000) + PROSE[:40] + noise(20_000)),
    "Cyrillic among much data": with_data(noise(20_000) + CYRILLIC.replace(" ", "")[:24].encode() + noise(20_000)),
    "text at the end of the data": with_data(noise(20_000) + PROSE),
    "data in chunks of a letter": PKESK
    + partial_packet(18, b"\x01" + noise(511), *(PROSE[at : at + 1] for at in range(len(PROSE))), b"."),
    "session keys are text": b"".join(packet(1, pkesk(material=numbered(piece))) for piece in words(4)) + SEIPD,
    "recipients' key IDs are text": b"".join(
        packet(1, pkesk(piece.ljust(8)[:8].hex(), 18, b"\x01\x07\x40" + b"x" * 32 + b"\x18" + noise(24)))
        for piece in words(140)
    )
    + SEIPD,
    "points of elliptic curves are text": b"".join(
        packet(1, pkesk(algorithm=25, material=piece.ljust(32)[:32] + b"\x19\x09" + noise(24))) for piece in words(34)
    )
    + SEIPD,
    "wrapped keys are text": b"".join(
        packet(1, pkesk(algorithm=18, material=mpi(33) + b"\x40" + piece.ljust(64)[:64])) for piece in words(17)
    )
    + SEIPD,
    "passphrases' salts and keys are text": b"".join(
        packet(3, b"\x04\x09\x03\x08" + piece[:8].ljust(8) + b"\x60" + piece[8:41].ljust(33)) for piece in words(26)
    )
    + SEIPD,
    "padding is text": packet(21, PROSE) + CIPHERTEXT,
    "padding between": PKESK + packet(21, PROSE) + SEIPD,
    "a marker is text": packet(10, PROSE) + CIPHERTEXT,
    "no integrity protection": PKESK + packet(9, PROSE),
    "GnuPG's OCB": PKESK + packet(20, b"\x01\x09\x02\x10" + PROSE),
}


@pytest.mark.parametrize("name", OPENPGP)
def test_readable_text_in_openpgp_is_not_ciphertext(name: str) -> None:
    armored = armor(OPENPGP[name])
    assert not classify(split(pgp_mime(armored))).encrypted
    assert not classify(split(pgp_mime(OPENPGP[name]))).encrypted
    assert not classify(split(part(b"text/plain", armored))).encrypted
    attached = part(b"application/octet-stream", base64.encodebytes(OPENPGP[name]), BASE64)
    assert not classify(split(multipart(b"multipart/mixed", part(b"text/plain", ARMORED), attached))).encrypted


def in_letters(before: int) -> bytes:
    """Octets whose base64, where so many stand before them, is words and random letters by turns, forty of each."""
    words = re.sub(rb"[^A-Za-z]", b"", PROSE * 3)[:2_000]
    turns = (words[at : at + 40] + base64.b64encode(noise(30, at)) for at in range(0, len(words), 40))
    return noise(-before % 3) + base64.b64decode(b"".join(turns))


def spaced(text: bytes) -> bytes:
    """The base64 of these octets with a space here and there, as between words."""
    encoded = base64.encodebytes(text)
    return b" ".join(encoded[at : at + 5] for at in range(0, len(encoded), 5))


def test_words_in_the_letters_of_base64_are_not_ciphertext() -> None:
    data = with_data(in_letters(len(with_data(b""))))
    armored = armor(data)
    assert re.search(rb"(?i)meetmeatnoonwheretheoldroadcrosses", armored.replace(b"\n", b""))
    before = info(VERSION, RECIPIENTS, der(0x30, DATA, AES, der(0x80, bytes(3_100))))
    content = in_letters(len(before) - 3_100)
    sealed = info(VERSION, RECIPIENTS, der(0x30, DATA, AES, der(0x80, content + noise(3_100 - len(content)))))
    for raw in (
        pgp_mime(armored),
        pgp_mime(armor(data, checksum=False).replace(b"th", b"t h")),
        part(b"text/plain", armored),
        multipart(ENCRYPTED_TYPE, CONTROL, part(OCTETS, base64.encodebytes(data), BASE64)),
        multipart(b"multipart/mixed", INLINE, part(OCTETS, spaced(data), BASE64)),
        part(b"application/pkcs7-mime", base64.encodebytes(sealed), BASE64),
    ):
        assert not classify(split(raw)).encrypted


ROOM = [der(0x04, PROSE), der(0x0C, PROSE), der(0x30, der(0x13, PROSE)), der(0x03, b"\0" + PROSE)]
LETTERS = b"".join(bytes([letter, 0]) for letter in PROSE if letter & 0x1F != 0x1F)  # identifiers without a content
ATTRIBUTES = [der(0x31, der(0x30, b"\x06\x03\x55\x04\x0d", der(0x31, value))) for value in [*ROOM, LETTERS]]


def named(text: bytes) -> bytes:
    return der(0x30, der(0x30, der(0x31, der(0x30, b"\x06\x03\x55\x04\x03", der(0x0C, text)))), der(0x02, noise(16)))


KEY = der(0x04, noise(40))
CMS = {
    **{
        f"content is text, {name}": info(VERSION, RECIPIENTS, der(0x30, DATA, AES, der(0x80, text)))
        for name, text in ENCODED.items()
    },
    "content in pieces of a letter": info(
        VERSION, RECIPIENTS, der(0x30, DATA, AES, ber(0xA0, *(der(0x04, bytes([letter])) for letter in PROSE)))
    ),
    **{
        f"unprotected attributes, {number}": info(VERSION, RECIPIENTS, CONTENT, b"\xa1" + attributes[1:])
        for number, attributes in enumerate(ATTRIBUTES)
    },
    **{
        f"originator, {number}": info(VERSION, der(0xA0, value), RECIPIENTS, CONTENT)
        for number, value in enumerate([*ROOM, LETTERS])
    },
    **{
        f"unauthenticated attributes, {number}": info(
            VERSION, RECIPIENTS, CONTENT, der(0x04, noise(16)), b"\xa2" + attributes[1:], kind=AUTH_ENVELOPED
        )
        for number, attributes in enumerate(ATTRIBUTES)
    },
    "authentication code": info(VERSION, RECIPIENTS, CONTENT, der(0x04, PROSE), kind=AUTH_ENVELOPED),
    "parameters of the cipher": info(
        VERSION, RECIPIENTS, der(0x30, DATA, der(0x30, b"\x06\x01\x2a", der(0x04, PROSE)), der(0x80, noise(32)))
    ),
    "version": info(der(0x02, PROSE), RECIPIENTS, CONTENT),
    "issuer": info(VERSION, der(0x31, der(0x30, VERSION, named(PROSE), AES, KEY)), CONTENT),
    "issuers of many recipients": info(
        VERSION, der(0x31, *(der(0x30, VERSION, named(piece), AES, KEY) for piece in words(60))), CONTENT
    ),
    "serial number": info(
        VERSION, der(0x31, der(0x30, VERSION, der(0x30, der(0x30), der(0x02, PROSE)), AES, KEY)), CONTENT
    ),
    "encrypted keys": info(
        VERSION, der(0x31, *(der(0x30, VERSION, ISSUER, AES, der(0x04, piece)) for piece in words(20))), CONTENT
    ),
    "user keying material": info(
        VERSION, der(0x31, der(0xA1, VERSION, der(0xA0, ISSUER), der(0xA1, der(0x04, PROSE)), AES, KEY)), CONTENT
    ),
    "originator's public key": info(
        VERSION, der(0x31, der(0xA1, VERSION, der(0xA0, der(0xA1, AES, der(0x03, b"\0" + PROSE))), AES, KEY)), CONTENT
    ),
    "identifier of a shared key": info(
        VERSION, der(0x31, RECIPIENT, der(0xA2, VERSION, der(0x30, der(0x04, PROSE)), AES, KEY)), CONTENT
    ),
    "attribute of a shared key": info(
        VERSION, der(0x31, RECIPIENT, der(0xA2, VERSION, der(0x30, KEY, ROOM[1]), AES, KEY)), CONTENT
    ),
    "salt of a password": info(
        VERSION, der(0x31, der(0xA3, VERSION, der(0xA0, b"\x06\x01\x2a", der(0x30, ROOM[0])), AES, KEY)), CONTENT
    ),
    "recipient of another kind": info(VERSION, der(0x31, RECIPIENT, der(0xA4, b"\x06\x01\x2a", ROOM[1])), CONTENT),
    "recipient of identifiers": info(VERSION, der(0x31, der(0x30, VERSION, LETTERS)), CONTENT),
    "object identifiers": info(
        VERSION, der(0x31, der(0x30, VERSION, *(der(0x06, piece) for piece in words(70)))), CONTENT
    ),
}


@pytest.mark.parametrize("name", CMS)
def test_readable_text_in_smime_is_not_ciphertext(name: str) -> None:
    raw = part(b"application/pkcs7-mime; smime-type=enveloped-data", base64.encodebytes(CMS[name]), BASE64)
    assert not classify(split(raw)).encrypted


def described(*values: bytes) -> list[bytes]:
    return [b"Content-Description: " + value.replace(b"\n", b" ") for value in values]


COMMENTS = [b"Comment: " + piece.replace(b"\n", b" ") for piece in words(7)]
LINES = {
    "armor header lines": pgp_mime(armor(CIPHERTEXT, *COMMENTS)),
    "armor header lines, inline": part(b"text/plain", armor(CIPHERTEXT, *COMMENTS)),
    "armor header lines of many attachments": multipart(
        b"multipart/mixed", INLINE, *(part(OCTETS, armor(CIPHERTEXT, comment)) for comment in COMMENTS)
    ),
    "armor header lines of many attachments in base64": multipart(
        b"multipart/mixed",
        INLINE,
        *(part(OCTETS, base64.encodebytes(armor(CIPHERTEXT, comment)), BASE64) for comment in COMMENTS),
    ),
    "descriptions of a part": multipart(
        b"multipart/encrypted", part(b"application/pgp-encrypted", b"Version: 1", *described(*words(2))), INLINE
    ),
    "descriptions of many attachments": multipart(
        b"multipart/mixed", INLINE, *(part(OCTETS, ARMORED, *described(piece)) for piece in words(40))
    ),
    "names of fields": multipart(
        b"multipart/encrypted",
        CONTROL,
        part(OCTETS, ARMORED, *(b"Content-" + piece.replace(b" ", b"-") + b": 1" for piece in PROSE[:100].split())),
    ),
    "nine fields of hundreds of attachments": multipart(
        b"multipart/mixed", INLINE, *[part(OCTETS, ARMORED, *described(*words(9)[:9]))] * 300
    ),
    "names of files": multipart(
        b"multipart/mixed",
        INLINE,
        *(
            part(OCTETS, ARMORED, b'Content-Disposition: attachment; filename="' + piece.replace(b"\n", b" ") + b'"')
            for piece in words(30)
        ),
    ),
    "parameters of types": multipart(
        b"multipart/mixed",
        INLINE,
        *(part(OCTETS + b'; x="' + piece.replace(b"\n", b" ") + b'"', ARMORED) for piece in words(30)),
    ),
    "types": multipart(
        b"multipart/mixed", INLINE, *(part(b"x/" + b"-".join(piece.split()), ARMORED) for piece in words(30))
    ),
    "identifiers": multipart(
        b"multipart/mixed",
        INLINE,
        *(part(OCTETS, ARMORED, b"Content-ID: <" + b".".join(piece.split()) + b">") for piece in words(30)),
    ),
    "preamble": pgp_mime(preamble=PROSE),
    "epilogue": pgp_mime(epilogue=PROSE),
    "boundary": pgp_mime().replace(b"frontier", PROSE[:900].replace(b"\n", b" ").rstrip()),
    "binary as text": part(b"text/plain", CIPHERTEXT),
    "binary as text in base64": part(b"text/plain", base64.encodebytes(CIPHERTEXT), BASE64),
    "binary as text with an encrypted attachment": multipart(
        b"multipart/mixed", part(b"text/plain", CIPHERTEXT), part(OCTETS, ARMORED)
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_readable_text_around_the_ciphertext_is_bounded(name: str) -> None:
    assert not classify(split(LINES[name])).encrypted


VERSIONS = [
    [b"Version: GnuPG v2.0.22 (GNU/Linux)", b"Comment: Using GnuPG with Thunderbird - http://www.enigmail.net/"],
    [b"Version: Mailvelope v4.4.1", b"Comment: https://www.mailvelope.com"],
    [b"Version: FlowCrypt 8.1.5 Gmail Encryption", b"Comment: Seamlessly send and receive encrypted email"],
    [b"Comment: GPGTools - https://gpgtools.org"],
    [b"Version: ProtonMail", b"Comment: https://protonmail.com"],
    [b"Charset: utf-8", b"Version: BCPG v1.46"],
]
EXCHANGE = (
    b"Content-Description: ATT00001.asc",
    b'Content-Disposition: attachment; filename="ATT00001.asc"; size=5123;\n'
    b'\tcreation-date="Tue, 07 May 2024 09:15:02 GMT";\n\tmodification-date="Tue, 07 May 2024 09:15:02 GMT"',
    b"Content-ID: <2C0F5E3B5F0B5D4AB5F3C0A2B0C9D1E2@eurprd03.prod.outlook.com>",
    BASE64,
)


@pytest.mark.parametrize("headers", VERSIONS, ids=lambda headers: headers[0].decode())
def test_armor_header_lines_of_mail_programs_are_no_text(headers: list[bytes]) -> None:
    armored = armor(CIPHERTEXT, *headers)
    attached = part(b'application/octet-stream; name="report of May.pdf.asc"', armored)
    assert classify(split(pgp_mime(armored))).encrypted
    assert classify(split(multipart(b"multipart/mixed", part(b"text/plain", armored), *[attached] * 3))).encrypted


def test_parts_as_mail_programs_write_them_are_no_text() -> None:
    exchange = multipart(
        b"multipart/mixed",
        part(b'text/plain; charset="us-ascii"', b"\n", b"Content-ID: <A1B2@eurprd03.prod.outlook.com>"),
        part(b'application/pgp-encrypted; name="ATT00001.asc"', base64.encodebytes(b"Version: 1\n"), *EXCHANGE),
        part(b'application/octet-stream; name="ATT00001.asc"', base64.encodebytes(ARMORED), *EXCHANGE),
    )
    assert classify(split(exchange)).encrypted
    names = [b"a rather long name of a document, with its date 2024-05-%02d.pdf.gpg" % day for day in range(1, 8)]
    attached = [
        part(b'application/octet-stream; name="' + name + b'"', base64.encodebytes(CIPHERTEXT), BASE64, disposition)
        for name in names
        for disposition in [b'Content-Disposition: attachment; filename="' + name + b'"']
    ]
    assert classify(split(multipart(b"multipart/mixed", INLINE, *attached))).encrypted


def test_smime_to_many_recipients_of_some_authorities_is_encrypted() -> None:
    names = [b"Verein zur Foerderung eines Netzes e. V., Issuing CA %d" % number for number in range(5)]
    recipients = [
        der(0x30, VERSION, named(name), AES, der(0x04, noise(256, seed))) for seed, name in enumerate(names * 20)
    ]
    assert enveloped(info(VERSION, der(0x31, *recipients), CONTENT))


def test_what_gnupg_writes_never_looks_like_text(home: Home) -> None:
    """Small ones in all sizes, the two kinds of keys, hidden recipients, passphrases, uncompressed and not, text."""
    options = [[], ["--throw-keyids"], ["-z", "0"], ["--rfc2440", "--disable-mdc"]]
    sizes = [0, 20, 1_000, 100_000]
    to = [(["-r", "elliptic@example.org"], sizes), (["-r", "rsa@example.org"], sizes)]
    to.append((["-r", "rsa@example.org", "-c"], [0, 1_000]))  # a passphrase takes gpg a third of a second
    for option, (recipient, size) in product(options, [(one, size) for one, these in to for size in these]):
        for data in (noise(size), PROSE * (size // len(PROSE)) + PROSE[: size % len(PROSE)]):
            written = home.gpg("--encrypt", *option, *recipient, data=data)
            assert classify(split(pgp_mime(armor(written)))).encrypted
            assert classify(split(part(b"text/plain", armor(written)))).encrypted


@pytest.mark.parametrize(
    "options",
    ["-aes256", "-aes128 -stream", "-aes-256-gcm", "-des3", "-camellia256", "-keyid", "-keyopt rsa_padding_mode:oaep"],
)
def test_what_openssl_writes_never_looks_like_text(smime: Smime, options: str) -> None:
    for size in (1, 16, 100, 1_000, 100_000):
        recipient = ["-recip", "cert.pem", *options.split()]
        written = smime.cms("-encrypt", "-outform", "DER", *recipient, data=PROSE[:1] * size)
        assert enveloped(written)


@settings(max_examples=2_000, deadline=None)
@given(st.integers(40, 6_000), st.integers(0, 1 << 64))
def test_random_octets_never_look_like_text(size: int, seed: int) -> None:
    assert encrypted_message(with_data(random.Random(seed).randbytes(size))) is not None  # noqa: S311
