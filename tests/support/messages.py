"""Hypothesis strategies for mail as it really comes: sound, damaged and hostile."""

from hypothesis import strategies as st

_FIELDS = st.sampled_from(
    [
        b"Subject: hello",
        b"Subject: \xf0\x9f\x98\x80 raw UTF-8",
        b"subject:second",
        b"From: Alice <alice@example.org>",
        b"From:",
        b"To: undisclosed-recipients:;",
        b"Date: Mon, 1 Jan 2024 12:00:00 +0200",
        b"Date: yesterday",
        b"MIME-Version: 1.0",
        b"MIME-Version: RFC-XXXX",
        b"Content-Type: text/plain; charset=utf-8",
        b'CONTENT-type:\r\n\tmultipart/mixed;\r\n boundary="b"',
        b"Content-Type: multipart/encrypted; boundary=b",
        b"Content-Type: (a comment) text/html",
        b"Content-Type:",
        b"Content-Transfer-Encoding: base64",
        b"HP-Outer: Subject: forged",
        b"X-Cryptomail: encrypted-at-delivery",
        b"X-Cryptomail-Inserted: 0+5",
        b"X-Long: " + b"x" * 5000,
        b"X-Folded: a\r\n b\n\tc",
        b"Name With Spaces: no field",
        b"Subject : space before the colon",
        b"Content-Type\t: text/html",
        b"HP-Outer : Subject: forged",
        b">From a@b Thu Jan  1 00:00:00 1970",
        b"From somebody who writes letters",
        b"no field at all",
        b"From a@b Thu Jan  1 00:00:00 1970",
        b"NUL: \x00",
        b" continues",
    ]
)
_LINE_ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\n", b"\r", b"\r\r\n", b""])
_BODIES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"",
            b"text",
            b"text\r\n",
            b"--b\r\n\r\npart\r\n--b--\r\n",
            b"-----BEGIN PGP MESSAGE-----\r\nHi!",
            b".\r\n.\r\n",
        ]
    ),
)
_HEADERS = st.lists(st.tuples(_FIELDS, _LINE_ENDS).map(b"".join), max_size=8).map(b"".join)

built = st.builds(lambda header, end, body: header + end + body, _HEADERS, _LINE_ENDS, _BODIES)
any_message = st.one_of(st.binary(max_size=200), built)
