"""Composes the encrypted message (RFC 3156). Pure."""

from sieve_filter.mail.protection import MARK, MARK_VALUE, Protected


def frame(protected: Protected, boundary: bytes) -> tuple[bytes, bytes, bytes]:
    """What is around the armor in a PGP/MIME message with `protected.outside` in its header section, for an armor with
    `protected.eol` as line ends, the last one too: the header section, the empty line behind it included; what is
    before the armor in the body; and what is behind it.

    `boundary` is random, 1 to 70 octets, and holds an underscore: no line of armor has one (RFC 9580 section 6), so
    it cannot occur in the content.
    """
    header = (
        MARK + b": " + MARK_VALUE,
        b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted";',
        b' boundary="' + boundary + b'"',
        b"",
        b"",
    )
    before = (
        b"--" + boundary,
        b"Content-Type: application/pgp-encrypted",
        b"Content-Description: PGP/MIME version identification",
        b"",
        b"Version: 1",
        b"",
        b"--" + boundary,
        b'Content-Type: application/octet-stream; name="encrypted.asc"',
        b"Content-Description: OpenPGP encrypted message",
        b'Content-Disposition: inline; filename="encrypted.asc"',
        b"",
        b"",
    )
    behind = (b"", b"--" + boundary + b"--", b"")
    eol = protected.eol
    return protected.outside + eol.join(header), eol.join(before), eol.join(behind)
