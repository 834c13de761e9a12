"""Mail that is encrypted already."""

import base64
import quopri

from tests.support.samples import ARMORED, CIPHERTEXT, CONTROL, armor, multipart, packet, part, pgp_mime

BASE64 = b"Content-Transfer-Encoding: base64"
QUOTED = b"Content-Transfer-Encoding: quoted-printable"
OCTETS = part(b"application/octet-stream", ARMORED)
INLINE = part(b"text/plain", ARMORED)
ENCRYPTED = {
    "PGP/MIME": pgp_mime(),
    "PGP/MIME with CRLF": pgp_mime().replace(b"\n", b"\r\n"),
    "PGP/MIME in binary": pgp_mime(CIPHERTEXT),
    "PGP/MIME with a preamble": pgp_mime(preamble=b"This is an OpenPGP/MIME encrypted message (RFC 4880 and 3156)"),
    "PGP/MIME as Exchange leaves it": multipart(b"multipart/mixed", part(b"text/plain", b""), CONTROL, OCTETS),
    "PGP/MIME as Exchange leaves it, HTML": multipart(
        b"multipart/mixed",
        part(b"text/html", b" \r\n"),
        CONTROL,
        OCTETS,
        preamble=b"This is a multi-part message in MIME format.",
    ),
    "PGP/MIME as multipart/mixed": multipart(b"multipart/mixed", CONTROL, OCTETS),
    "inline": INLINE,
    "inline with CRLF": INLINE.replace(b"\n", b"\r\n"),
    "inline without a type": b"Subject: s\n\n" + ARMORED,
    "inline without any header": b"\n" + ARMORED,
    "inline below empty lines": part(b"text/plain", b"\n \n\t\n" + ARMORED),
    "inline in base64": part(b"text/plain", base64.encodebytes(ARMORED), BASE64),
    "inline in base64 with CRLF": part(b"text/plain", base64.encodebytes(ARMORED), BASE64).replace(b"\n", b"\r\n"),
    "inline in quoted-printable": part(b"text/plain", quopri.encodestring(ARMORED), QUOTED),
    "inline in quoted-printable, all escaped": part(
        b"text/plain", b"".join(b"=%02X=\n" % octet for octet in ARMORED), QUOTED
    ),
    "inline with a marker before it": part(b"text/plain", armor(packet(10, b"PGP") + CIPHERTEXT)),
    "inline with attachments": multipart(b"multipart/mixed", INLINE, OCTETS),
    "inline with attachments in base64": multipart(
        b"multipart/mixed",
        part(b"text/plain", base64.encodebytes(ARMORED), BASE64),
        part(b"application/pdf", base64.encodebytes(CIPHERTEXT), BASE64),
    ),
}
