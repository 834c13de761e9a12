"""Names for whom enveloped data (RFC 5652 section 6, RFC 5083) is, as a key ID names an OpenPGP recipient. Pure.

CMS names a certificate by its issuer and serial number, which are long, or by its key. The ID is the beginning of the
SHA-256 of that.
"""

from collections.abc import Iterator
from hashlib import sha256

from sieve_filter import limits
from sieve_filter.smime import der
from sieve_filter.smime.der import Value

_AGREEMENT = der.CONTEXT | 1


def key_id(name: bytes) -> str:
    """The ID of a certificate: 16 hexadecimal digits. `name` is issuer and serial number, in DER."""
    return sha256(name).hexdigest()[:16].upper()


def key_ids(data: bytes) -> tuple[str, ...]:
    """The IDs of those whom `data` is for, which is enveloped data, each once; none where that cannot be told."""
    try:
        content = der.parts(der.only(data, der.SEQUENCE, ber=True), ber=True)
        der.expect(content, der.OID)
        envelope = der.parts(der.only(der.expect(content, der.CONTEXT).content, der.SEQUENCE, ber=True), ber=True)
        recipients = next(one for one in envelope if one.identifier == der.SET)
        names = [name for one in der.parts(recipients, ber=True) for name in _names(one)]
    except (ValueError, StopIteration):
        return ()
    return tuple(dict.fromkeys(map(key_id, names[: limits.X509_CERTIFICATES])))


def _names(recipient: Value) -> Iterator[bytes]:
    """The name of the certificate in a RecipientInfo; of several in one for key agreement."""
    fields = der.parts(recipient, ber=True)
    der.expect(fields, der.INTEGER)
    if recipient.identifier == der.SEQUENCE:
        yield next(fields).content
    elif recipient.identifier == _AGREEMENT:
        keys = [one for one in fields if one.identifier == der.SEQUENCE][-1:]
        for one in der.parts(keys[0], ber=True) if keys else ():
            yield next(der.parts(one, ber=True)).content
    else:  # a password, or a key that both have
        yield recipient.content
