"""Where clear text is left behind when a message is removed, as far as a server's files and settings show it.

Backups, snapshots of a file system, copies for spam training and other programs' indexes are not looked for.
"""

import os
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sieve_filter.dovecot import doveadm
from sieve_filter.errors import UnknownUserError

# Dovecot's cache of header fields and previews. Its head has the major version in the first octet, and from octet 24 on
# how many records of removed messages are still in there: struct mail_cache_header of mail-cache-private.h.
_CACHE, _CACHE_HEAD, _CACHE_VERSION = "dovecot.index.cache", struct.Struct("=B23xI4x"), 1
_MDBOX = "dovecot.map.index"
# Directories in which there is nothing but messages.
_PASSED_OVER = {"cur", "new", "tmp"}
# Of both versions: each passes over the other one's without a word.
_SETTINGS = ("mail_plugins", "plugin/lazy_expunge", "lazy_expunge_mailbox", "fts_driver", "plugin/fts")


class Files(NamedTuple):
    """What is found below the directories of a mailbox: caches with so many records of messages that were removed, and
    whether messages are in files with many (mdbox), which keep what was removed until they are purged.
    """

    caches: tuple[tuple[str, int], ...]
    mdbox: bool


def files(directories: Sequence[str]) -> Files:
    """Look through these directories, as the user whose they are."""
    caches: dict[str, int] = {}
    mdbox = False
    for directory in directories:
        for path in _walk(directory):
            mdbox = mdbox or path.name == _MDBOX
            if path.name == _CACHE and (removed := _removed(path)):
                caches[str(path)] = removed
    return Files(tuple(sorted(caches.items())), mdbox)


def words(found: Files) -> tuple[str, ...]:
    """The same for people, with what to do."""
    said = [
        f"{path} may have the Subject or the first words of {count} removed messages: doveadm mailbox cache purge"
        for path, count in found.caches
    ]
    if found.mdbox:
        said.append("mdbox keeps what is removed until doveadm purge")
    return tuple(said)


def everywhere(configuration: str) -> tuple[str, ...]:
    """What Dovecot's settings keep of what all users remove, in words; what cannot be known, too."""
    try:
        listing = doveadm.settings_of("imap", configuration, _SETTINGS)
    except UnknownUserError as error:
        return (f"it cannot be known whether Dovecot keeps what is removed (lazy_expunge, fts): {error}",)
    said = []
    if place := re.search(r"^ *(?:plugin/)?lazy_expunge(?:_mailbox)? = *(\S.*)$", listing, re.MULTILINE):
        said.append(f"lazy_expunge keeps what is removed in {place[1]}")
    if re.search(r"^ *(?:plugin/)?fts(?:_driver)? = *\S|^ *fts = yes|^mail_plugins = .*\bfts", listing, re.MULTILINE):
        said.append("the full-text index (fts) has words of mail that was in clear: doveadm fts rescan")
    return tuple(said)


def _walk(directory: str) -> Iterator[Path]:
    for place, directories, names in os.walk(directory):
        directories[:] = [one for one in directories if one not in _PASSED_OVER]
        yield from (Path(place, name) for name in names if name in (_CACHE, _MDBOX))


def _removed(cache: Path) -> int:
    try:
        with cache.open("rb") as file:
            version, removed = _CACHE_HEAD.unpack(file.read(_CACHE_HEAD.size))
    except (OSError, struct.error):  # it has just been taken away, or is empty
        return 0
    return int(removed) if version == _CACHE_VERSION else 0
