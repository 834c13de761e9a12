"""Whose will counts: the program's, the administrator's, their section for a domain, or an owner's choice. Pure.

Each level takes the place of those before it; an owner's choice only where the administrator lets owners choose, and
only where it is safer than what the others say.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN, Settings

# What owners may choose, if they may: the values, the safest last.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "header_policy": tuple(POLICIES),
    "no_key": (STORE_PLAIN, REFUSE),
    "unusable_key": (STORE_PLAIN, REFUSE),
}
# What a domain's section may have.
FOR_DOMAINS: Mapping[str, tuple[str, ...]] = {**CHOICES, "expired_key": (STORE_PLAIN, REFUSE, ENCRYPT_ANYWAY)}

DEFAULT, FILE, DOMAIN, OWNER = "default", "file", "domain", "owner"


class Effective(NamedTuple):
    """The settings that count for an owner; and of each of those in FOR_DOMAINS, the level that it comes from."""

    settings: Settings
    levels: Mapping[str, str]


def for_owner(settings: Settings, user: str, chosen: Mapping[str, str] | None) -> Effective:
    """What counts for `user`, who has `chosen` that; None where it cannot be read, which counts as the safest."""
    levels = {name: FILE if name in settings.given else DEFAULT for name in FOR_DOMAINS}
    values = {name: str(getattr(settings, name)) for name in FOR_DOMAINS}
    section = settings.domains.get(user.rpartition("@")[2].lower(), {}) if "@" in user else {}
    levels |= dict.fromkeys(section, DOMAIN)
    values |= section
    for name in settings.owners_may:
        wish = CHOICES[name][-1] if chosen is None else chosen.get(name, "")
        if wish and CHOICES[name].index(wish) > CHOICES[name].index(values[name]):
            levels[name], values[name] = OWNER, wish
    return Effective(settings._replace(**values), levels)  # type: ignore[arg-type]  # these are all text
