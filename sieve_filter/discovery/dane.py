"""Asks a validating resolver on this machine for OPENPGPKEY records (RFC 7929), by dnspython."""

import ipaddress
import re
from typing import NamedTuple

from sieve_filter import limits
from sieve_filter.errors import ServiceError, UsageError

_RESOLVER = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<v4>[0-9.]+))(?::(?P<port>[0-9]{1,5}))?")
_PORT = 53


class Resolver(NamedTuple):
    """The address and port of a resolver that checks DNSSEC signatures."""

    host: str
    port: int


def resolver(text: str) -> Resolver:
    """The resolver that an administrator names. Raises UsageError unless it is on this machine.

    That it has checked the signatures, it says with one bit (AD, RFC 4035 section 3.2.3), which anybody on the way
    could set: so there must be no way.
    """
    match = _RESOLVER.fullmatch(text)
    try:
        host = ipaddress.ip_address((match["v6"] or match["v4"]) if match else text)
    except ValueError:
        raise UsageError(f"--resolver {text!r} is not an address, as 127.0.0.1, 127.0.0.1:5353 or [::1]") from None
    port = int((match["port"] if match else None) or _PORT)
    if not host.is_loopback or not 0 < port < 65536:
        raise UsageError(f"--resolver {text!r} is not on this machine: what it says could be changed on the way")
    return Resolver(str(host), port)


def openpgpkeys(name: str, where: Resolver) -> bytes | None:
    """The certificates in the OPENPGPKEY records of `name`; None where it is proven that there are none.

    Raises ServiceError where the resolver cannot be asked, or the answer was not validated.
    """
    import dns.exception
    import dns.flags
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    def ask(flags: int) -> dns.message.Message:
        question = dns.message.make_query(name, dns.rdatatype.OPENPGPKEY, want_dnssec=True)
        question.flags |= flags
        # TCP at once: a key seldom fits into a datagram.
        return dns.query.tcp(question, where.host, limits.FETCH_SECONDS, where.port)

    server = f"the resolver {where.host}"
    try:
        answer = ask(dns.flags.AD)
        code = answer.rcode()
        if code == dns.rcode.SERVFAIL and ask(dns.flags.CD).rcode() != dns.rcode.SERVFAIL:
            raise ServiceError(f"the DNSSEC signatures of {name} are bogus: the key is not used")
    except (dns.exception.DNSException, OSError, EOFError) as error:
        raise ServiceError(f"cannot ask {server}: {type(error).__name__}; is it up?") from error
    if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise ServiceError(f"{server} cannot find out about {name}: {dns.rcode.to_text(code)}")
    if not answer.flags & dns.flags.AD:
        raise ServiceError(
            f"the answer for {name} is not validated by DNSSEC: the zone is not signed, or {server} does not validate"
        )
    keys = [record.key for rrset in answer.answer if rrset.rdtype == dns.rdatatype.OPENPGPKEY for record in rrset]
    return b"".join(keys) if keys else None
