"""Whose message it is: the mailbox owner, as the delivering program names them in the environment. Pure."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from sieve_filter.errors import UsageError

# RFC 5321 section 4.5.3.1 allows an address 320 octets; Linux allows a path 4,096.
_MOST = {"USER": 320, "HOME": 4096, "RECIPIENT": 1024, "ORIG_RECIPIENT": 1024, "SENDER": 1024}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Owner(NamedTuple):
    """A mailbox owner: Dovecot's user name, the home directory, and the addresses that are known to be theirs (lower
    case). A user without a domain has that name in any: see `has`.

    `uid` is the system user as whom Dovecot delivers to them; None where it was not asked.
    """

    user: str
    home: str
    addresses: frozenset[str]
    uid: int | None = None

    @property
    def anywhere(self) -> str:
        """The local part that is this owner's in every domain; empty for users who have a domain."""
        return "" if "@" in self.user else self.user.lower()

    def has(self, address: str) -> bool:
        """Whether `address`, in lower case, is this owner's.

        Who asks does not matter: a delivery knows a recipient's domain, `keys check` knows of none.
        """
        local, at, _ = address.rpartition("@")
        return address in self.addresses or bool(at and local == self.anywhere)


def identify(environment: Mapping[str, str], aliases: Mapping[str, tuple[str, ...]]) -> Owner:
    """The owner named by USER and HOME in `environment`; not by RECIPIENT, which sieve-filter copies from the message.

    `aliases` maps a user name to further addresses. Raises UsageError where a value is missing, or is nothing that
    Dovecot could have set.
    """
    values = {name: _checked(name, environment.get(name, "")) for name in _MOST}
    user, home = values["USER"], values["HOME"]
    if not user:
        raise UsageError("USER is not set: set it to the mailbox owner's name, or use --user")
    if "/" in user or not {".", ".."}.isdisjoint(user.partition("@")):
        raise UsageError("USER is not a user name: it must not be a path")
    if not home.startswith("/") or ".." in home.split("/"):
        raise UsageError("HOME is not an absolute path: set it to the mailbox owner's home, or use --home")

    addresses = {address.lower() for address in aliases.get(user, ())}
    if "@" in user:
        addresses.add(user.lower())
    return Owner(user, home, frozenset(addresses))


def expand(template: str, owner: Owner) -> str:
    """`template` with Dovecot's variables filled in: %u user, %n local part, %d domain, %h home, %% a percent sign.

    %w, which Dovecot does not have, is the local part as a Web Key Directory writes it.
    """
    local, _, domain = owner.user.partition("@")
    values = {"u": owner.user, "n": local, "d": domain, "h": owner.home, "%": "%"}
    if "%w" in template:
        from sieve_filter.openpgp.wkd import key_name  # hashlib takes longer to load than the rest of this

        values["w"] = key_name(local)
    return re.sub("%(.)", lambda match: values[match[1]], template)


def _checked(name: str, value: str) -> str:
    if len(value) > _MOST[name]:
        raise UsageError(f"{name} is longer than {_MOST[name]} characters: it cannot be right")
    if _CONTROL.search(value):
        raise UsageError(f"{name} holds a control character: it cannot be right")
    return value


def without_detail(address: str, delimiter: str) -> str:
    """`address` without the +detail of RFC 5233."""
    local, at, domain = address.rpartition("@")
    if delimiter and not local.startswith(delimiter):
        local = local.partition(delimiter)[0]
    return local + at + domain
