"""The command `cryptomail sieve-script`: writes an owner's Sieve script with the key in it, and uploads it."""

import argparse
import difflib
import os
import re
import sys
import time

from sieve_filter import limits
from sieve_filter.cli import files, passwords
from sieve_filter.errors import RefusedKeyError, ScriptError, ServiceError, UsageError
from sieve_filter.gpg import keybox
from sieve_filter.keys import usable, vetting
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.openpgp import certificate
from sieve_filter.openpgp.certificate import Certificate
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN, Settings
from sieve_filter.sieve import managesieve, owner_script
from sieve_filter.sieve.managesieve import Session
from sieve_filter.sieve.owner_script import Choices
from sieve_filter.system import pool, stdio

_NAME = "cryptomail"  # of a script where there is none yet
_SMALLER = "give a copy with one user ID (gpg --export-filter keep-uid=...)"
_SERVER = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?")


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add what may follow `cryptomail sieve-script`."""
    parser.add_argument("--key", metavar="FILE", help="your public key, armored or binary; - for standard input")
    parser.add_argument("--exclude-lists", action="store_true", help="leave mail from mailing lists as it is")
    parser.add_argument("--exclude-spam", action="store_true", help="leave what a spam filter has marked as it is")
    parser.add_argument("--header-policy", choices=list(POLICIES), help="which header fields stay readable")
    parser.add_argument(
        "--on-expired", choices=(ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN), help="what to do when the key has expired"
    )
    parser.add_argument("--upload", metavar="HOST[:PORT]", help="put it into your active script, over ManageSieve")
    parser.add_argument("--remove", action="store_true", help="with --upload: take it out again")
    parser.add_argument("--user", metavar="NAME", help="with --upload: who you are there")
    parser.add_argument("--password-file", metavar="FILE", help="with --upload: its first line is the password")
    parser.add_argument("--ca-file", metavar="FILE", help="with --upload: trust these certificates (PEM), no others")
    parser.add_argument("--dry-run", action="store_true", help="with --upload: show what would change")
    parser.add_argument("--yes", action="store_true", help="with --upload: do not ask before a script is changed")
    parser.set_defaults(run=_run)


def minimal_key(data: bytes, address: str | None, minimum_bits: int) -> tuple[str, bytes]:
    """The fingerprint and the smallest copy of the certificate in `data` (armored or binary) that mail can be sent to.

    It has one user ID (that with `address`, if there is one), the encryption subkeys that are usable, and the owner's
    own signatures. Raises RefusedKeyError where there is not exactly one certificate, or it cannot be encrypted to.
    """
    reading = certificate.read(data)
    if reading.secret:
        raise RefusedKeyError("it holds a SECRET key, which must never leave you: give the public one (gpg --export)")
    if reading.problems:
        raise RefusedKeyError("; ".join(reading.problems))
    if len(reading.certificates) != 1:
        raise RefusedKeyError(f"it has {len(reading.certificates)} keys: give one (gpg --export FINGERPRINT)")
    vetted = _vet(reading.certificates[0], minimum_bits)
    subkeys = usable.encryption_subkeys(vetted.key, minimum_bits, int(time.time()))
    names = {one.fingerprint for one in subkeys}
    # A user ID that was revoked, or that the owner never signed, has not come through the quarantine or has no address.
    wanted = address.lower() if address else None
    if wanted not in vetted.key.addresses:
        wanted = next(iter(sorted(vetted.key.addresses)), None)
    small = certificate.reduce(keybox.packets(vetted.blob), names, wanted)
    (reduced,) = certificate.read(small).certificates
    again = _vet(reduced, minimum_bits)
    if again.subkey.fingerprint != vetted.subkey.fingerprint:
        raise RefusedKeyError(f"key {vetted.key.fingerprint} cannot be made smaller without a change: {_SMALLER}")
    return vetted.key.fingerprint, reduced.packets


def _vet(one: Certificate, minimum_bits: int) -> vetting.Vetted:
    verdict = vetting.vet([one], minimum_bits)[one]
    if isinstance(verdict, vetting.Newer):
        raise RefusedKeyError(f"GnuPG cannot read key {one.fingerprint}: have it set up on the server instead")
    if not isinstance(verdict, vetting.Vetted):
        reason = verdict if isinstance(verdict, str) else verdict.reason
        raise RefusedKeyError(f"mail cannot be encrypted to key {one.fingerprint}: {reason}")
    return verdict


def _run(options: argparse.Namespace, _config_file: str) -> int:
    pool.stop_on_signals()
    _check(options)
    block = "" if options.remove else _block(options)
    if not options.upload:
        stdio.write(block.encode())
        return os.EX_OK
    host, port = _server(options.upload)
    password = passwords.ask(options.user, options.password_file)
    with managesieve.login(host, port, options.user, password, options.ca_file) as session:
        if options.remove:
            _take_out(session, options, host)
        else:
            _put_in(session, block, options, host)
    return os.EX_OK


def _check(options: argparse.Namespace) -> None:
    if not options.upload:
        names = ("remove", "user", "password_file", "ca_file", "dry_run", "yes")
        if given := [name for name in names if getattr(options, name)]:
            raise UsageError(f"--{given[0].replace('_', '-')} goes with --upload")
    elif not options.user:
        raise UsageError("--upload needs --user NAME")
    if bool(options.key) == options.remove:
        raise UsageError("--remove needs no --key" if options.remove else "name your public key: --key FILE")


def _block(options: argparse.Namespace) -> str:
    address = options.user if options.user and "@" in options.user else None
    name = "standard input" if options.key == "-" else options.key
    try:
        fingerprint, small = minimal_key(files.read(options.key), address, Settings().keyrings.minimum_bits)
    except RefusedKeyError as error:
        raise RefusedKeyError(f"{name}: {error}") from error
    given = (("--header-policy", options.header_policy), ("--on-expired", options.on_expired))
    choices = Choices(
        options.exclude_lists,
        options.exclude_spam,
        tuple(word for name, value in given if value for word in (name, value)),
    )
    return owner_script.block(small, fingerprint, choices)


def _put_in(session: Session, block: str, options: argparse.Namespace, host: str) -> None:
    missing = sorted(set(owner_script.EXTENSIONS) - session.extensions())
    if missing:
        raise ServiceError(f"{host} does not offer {', '.join(missing)}: is cryptomail installed there?")
    active = session.active()
    name = active.name or _NAME
    exists = active.name is not None or _NAME in active.others
    old = session.get(name) if exists else ""
    new = owner_script.insert(old, block)
    if len(new.encode()) > limits.SIEVE_SCRIPT_OCTETS:
        raise ScriptError(f"the script {name!r} would have more than {limits.SIEVE_SCRIPT_OCTETS} octets")
    if new == old and active.name is not None:
        stdio.tell(f"nothing to do: the active script {name!r} has this already")
        return
    if options.dry_run:
        session.check(new)
        _show(old, new, name)
        return
    if exists:
        _confirm(f"Change the script {name!r} of {options.user} on {host}?", options.yes)
    session.put(name, new)
    if active.name is None:
        session.activate(name)
    stdio.tell(f"the script {name!r} on {host} is active, and encrypts mail for {options.user}")


def _take_out(session: Session, options: argparse.Namespace, host: str) -> None:
    name = session.active().name
    old = session.get(name) if name is not None else ""
    new = owner_script.remove(old)
    if name is None or new is None:
        stdio.tell(
            f"nothing to do: {options.user} has no active script on {host} that cryptomail sieve-script has changed"
        )
        return
    if options.dry_run:
        _show(old, new, name)
        return
    _confirm(f"Take the encryption out of the script {name!r} of {options.user} on {host}?", options.yes)
    if owner_script.is_empty(new):
        session.activate("")
        session.delete(name)
        stdio.tell(f"the script {name!r} on {host} had nothing else in it, and is deleted")
        return
    session.put(name, new)
    stdio.tell(f"the script {name!r} on {host} encrypts no more; the rest of it is as it was")


def _server(text: str) -> tuple[str, int]:
    match = _SERVER.fullmatch(text)
    port = int(match["port"] or managesieve.PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise UsageError(f"--upload {text!r} is not HOST or HOST:PORT")
    return match["v6"] or match["host"], port


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Say so with --yes, or look at it first with --dry-run")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was changed")


def _show(old: str, new: str, name: str) -> None:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), f"{name} (now)", f"{name} (then)", lineterm="")
    stdio.tell("\n".join(lines))
