"""Reads the configuration file: the only module that knows its syntax."""

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sieve_filter import limits
from sieve_filter.errors import ConfigError
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.policy.levels import CHOICES, FOR_DOMAINS
from sieve_filter.policy.settings import (
    AUTO,
    CBC,
    ENCRYPT_ANYWAY,
    GCM,
    GNUPG,
    OAEP,
    OPENPGP,
    PKCS1,
    REFUSE,
    SEQUOIA,
    SMIME,
    STORE_PLAIN,
    UNFINISHED,
    Settings,
)


def load(path: str, trusted_owners: frozenset[int] | None = None) -> Settings:
    """The settings in the file `path`.

    `trusted_owners`, where given, are the user IDs to which the file may belong: a user's Sieve script can name any
    file, and must not get the configuration that the user wrote. Raises ConfigError, which names file and line;
    FileNotFoundError where there is no such file.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path!r}: {error}") from error
    version = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_uid, status.st_mode)
    return _load(path, version, trusted_owners)


@lru_cache(maxsize=16)
def _load(path: str, _version: tuple[int, ...], trusted_owners: frozenset[int] | None) -> Settings:
    """As `load`, for one version of the file; a process that stays reads it once."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if trusted_owners is not None and (status.st_uid not in trusted_owners or status.st_mode & 0o022):
                raise ConfigError(f"{path} is not trusted: it must belong to root, and nobody else may write to it")
            content = file.read(limits.CONFIG_OCTETS + 1)
            if len(content) > limits.CONFIG_OCTETS:
                raise ConfigError(f"{path} is too long for a configuration file")
            text = content.decode("utf-8")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    try:
        return parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}, {error}") from error.__cause__


def parse(text: str) -> Settings:
    """The settings that `text` (TOML) makes. Raises ConfigError, which names the line."""
    if all(not line.strip() or line.startswith("#") for line in text.splitlines()):
        return Settings()  # the file as it is installed: spares each delivery the import below
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"which is not TOML: {error}") from error
    settings: dict[str, Any] = {}
    keyrings: dict[str, Any] = {}
    for table, name, value in _flatten(document, text):
        rule = _RULES.get((table, name))
        if rule is None:
            raise ConfigError(f"{_line(text, table, name)}: there is no such setting: {_full(table, name)}")
        holds, must_be = rule
        if not holds(value):
            raise ConfigError(f"{_line(text, table, name)}: {_full(table, name)} must be {must_be}")
        into = keyrings if table == "keyrings" else settings
        into[name] = tuple(value) if isinstance(value, list) else value
    settings["given"] = frozenset(settings)
    settings["domains"] = {name.lower(): section for name, section in document.get("domain", {}).items()}
    settings["aliases"] = {user: tuple(addresses) for user, addresses in document.get("aliases", {}).items()}
    return Settings(**settings, keyrings=Settings().keyrings._replace(**keyrings))


_Rule = tuple[Callable[[Any], bool], str]  # whether a value is right, and what it must be


def _is_whole_number(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _one_of(*names: str) -> _Rule:
    return (
        lambda value: isinstance(value, str) and value in names,
        "one of " + ", ".join(f'"{name}"' for name in names),
    )


def _is_homes(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, str) and one.startswith(("/", "%h/")) and not re.sub("%[undhw%]", "", one).count("%")
        for one in value
    )


def _is_addresses(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and "@" in one for one in value)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one for one in value)


def _is_choices(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one in CHOICES for one in value)


def _is_folders(value: Any) -> bool:
    """Whether they can be named in Dovecot's configuration as they are, and hold no drafts."""
    return _is_names(value) and all(
        one.isprintable()
        and one == one.strip()
        and not set(one) & set('"\\*%?$')
        and re.split("[/.]", one.lower())[-1] not in UNFINISHED
        for one in value
    )


_DECISION = _one_of(STORE_PLAIN, REFUSE)
_HOMES = (_is_homes, "a list of GnuPG homes or key files: absolute paths, in which %u, %n, %d, %h and %w are filled in")

# Table and name of each setting (the table "" is the top of the file), and what its value has to be.
_RULES: Mapping[tuple[str, str], _Rule] = {
    ("", "header_policy"): _one_of(*POLICIES),
    ("", "engine"): _one_of(AUTO, GNUPG, SEQUOIA),
    ("", "compression"): _one_of("none", "zlib"),
    ("", "smime_cipher"): _one_of(CBC, GCM),
    ("", "smime_padding"): _one_of(PKCS1, OAEP),
    ("", "recipient_delimiter"): (
        lambda value: isinstance(value, str) and len(value) <= 1,
        "one character, or empty for none",
    ),
    ("", "size_limit"): (_is_whole_number(0), "a whole number of octets (0: no limit)"),
    ("", "time_limit"): (_is_whole_number(1), "a whole number of seconds, 1 or more"),
    ("", "not_owners"): (_is_names, "a list of user names, which may have * and ? in them"),
    ("", "saved_folders"): (
        _is_folders,
        'a list of folder names without any of "\\*%?$, none of them for drafts, templates or outgoing mail',
    ),
    ("", "owners_may"): (_is_choices, "a list of " + ", ".join(f'"{name}"' for name in CHOICES)),
    ("", "removal_delay"): (_is_whole_number(0), "a whole number of seconds (0: at once)"),
    ("keyrings", "owner"): _HOMES,
    ("keyrings", "shared"): _HOMES,
    ("keyrings", "certificates"): (
        _is_homes,
        "a list of files: absolute paths, in which %u, %n, %d, %h and %w are filled in",
    ),
    ("keyrings", "prefer"): _one_of(OPENPGP, SMIME),
    ("keyrings", "minimum_bits"): (_is_whole_number(0), "a whole number of bits"),
    ("on", "no_key"): _DECISION,
    ("on", "unusable_key"): _DECISION,
    ("on", "expired_key"): _one_of(ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN),
    ("on", "too_large"): _DECISION,
}
_TABLES = ("keyrings", "on", "aliases", "domain")


def _flatten(document: Mapping[str, Any], text: str) -> list[tuple[str, str, Any]]:
    """Each setting as (table, name, value). Raises ConfigError where a table is something else."""
    flat: list[tuple[str, str, Any]] = []
    for name, value in document.items():
        if name not in _TABLES:
            flat.append(("", name, value))
        elif not isinstance(value, dict):
            raise ConfigError(f"{_line(text, '', name)}: {name} must be a table: [{name}]")
        elif name == "aliases":
            _check_aliases(value, text)
        elif name == "domain":
            _check_domains(value, text)
        else:
            flat += [(name, key, inner) for key, inner in value.items()]
    return flat


def _check_aliases(aliases: Mapping[str, Any], text: str) -> None:
    for user, addresses in aliases.items():
        if not _is_addresses(addresses):
            raise ConfigError(f"{_line(text, 'aliases', user)}: the aliases of {user} must be a list of addresses")


def _check_domains(domains: Mapping[str, Any], text: str) -> None:
    for domain, section in domains.items():
        if not isinstance(section, dict):
            raise ConfigError(f"{_line(text, 'domain', domain)}: {domain!r} must be a table of settings")
        for name, value in section.items():
            place = f"{_line(text, 'domain', domain)}: for the domain {domain!r}"
            if name not in FOR_DOMAINS:
                raise ConfigError(f"{place}, there is no such setting: {name!r}")
            if value not in FOR_DOMAINS[name]:
                raise ConfigError(f"{place}, {name} must be {_one_of(*FOR_DOMAINS[name])[1]}")


def _full(table: str, name: str) -> str:
    return f"{table}.{name}" if table else name


def _line(text: str, table: str, name: str) -> str:
    """Where `name` is set: tomllib keeps no positions. The line of its table where it is written in an unusual way."""
    current = ""
    best = 1
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*[\"']?([^\]\"']+?)[\"']?\s*\]", line):
            current = header[1]
            if current in (table, name):
                best = number
        elif current == table and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return f"line {number}"
    return f"line {best}"
