"""`cryptomail keys export`: an owner's certificates, or a Web Key Directory of everybody's."""

import argparse
import functools
import os
from pathlib import Path

from sieve_filter.cli.site import Failure, Rest, Site, as_owner, finish, in_chunks, names, owners
from sieve_filter.delivery import inventory
from sieve_filter.errors import (
    CryptomailError,
    FileError,
    RefusedKeyError,
    UsageError,
)
from sieve_filter.keys import status as keyreport
from sieve_filter.openpgp import armor_writer, blocks, certificate, wkd
from sieve_filter.system import pool, stdio


def export(options: argparse.Namespace, site: Site) -> int:
    if bool(options.all) != bool(options.wkd):
        raise UsageError("keys export: --wkd DIR goes with --all, and --user without it")
    keyrings = site.settings.keyrings
    if options.user:
        whose = site.owner(options.user)
        keys = as_owner(whose, functools.partial(inventory.export, whose, keyrings))
        pem = as_owner(whose, functools.partial(inventory.export_smime, whose, keyrings))
        if not keys and not pem:
            raise RefusedKeyError(f"{whose.user} has no key in {site.keyring(whose)}")
        stdio.write((armor_writer.armored(blocks.PUBLIC_KEY, b"".join(keys.values())) if keys else b"") + pem)
        return os.EX_OK
    written = 0
    domains: set[str] = set()
    rest = Rest()
    work = functools.partial(inventory.export, keyrings=keyrings)
    for whose, found in pool.each(in_chunks(owners(names(options, site), options, site, rest), lambda _: 1), work):
        if isinstance(found, CryptomailError):
            rest.failures.append(Failure(whose.user, found))
            continue
        # Section 3.1 of the draft: a file holds keys with that address only.
        fits = [one for one in found.values() if whose.user.lower() in _addresses(one)]
        if fits and "@" in whose.user:
            _put(Path(options.wkd, wkd.key_path(whose.user)), b"".join(fits))
            domains.add(whose.user.rpartition("@")[2])
            written += 1
    for domain in domains:
        _put(Path(options.wkd, wkd.policy_path(domain)), wkd.POLICY)
    whose_keys = "1 user's keys" if written == 1 else f"{written} users' keys"
    stdio.tell(f"{whose_keys} written to {options.wkd}, for {keyreport.counted(len(domains), 'domain')}")
    return finish(rest.failures)


def _addresses(packets: bytes) -> frozenset[str]:
    return frozenset(address for one in certificate.read(packets).certificates for address in one.addresses)


def _put(path: Path, content: bytes) -> None:
    """Write a file that a web server shows to everybody."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
