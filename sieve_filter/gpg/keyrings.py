"""Reads and changes whole keyrings with GnuPG: for `cryptomail keys` and its like, never during a delivery."""

from pathlib import Path
from typing import NamedTuple

import gnupg

from sieve_filter.errors import KeyringError
from sieve_filter.gpg import runner
from sieve_filter.gpg.runner import Ended

# What is not imported: other people's signatures, and the owner's own that newer ones replace.
_CLEANING = "import-minimal,import-clean,self-sigs-only"


class Imported(NamedTuple):
    """What gpg did with certificates: each fingerprint, and whether that key was new; and its last complaint.

    `listing` is as that of `runner.list_keys`, of these certificates alone, where it was asked for.
    """

    new: dict[str, bool]
    changed: frozenset[str]
    complaint: str
    listing: bytes


def import_keys(home: str, certificates: bytes, *, listed: bool = False) -> Imported:
    """Import binary certificates into the GnuPG home `home`, with the owners' own signatures only.

    What gpg does not take is missing in the result. `listed` is for a home without keys: for others, gpg then does not
    say what it did. Raises KeyringError where gpg cannot be run, or does not get to the end of the certificates.
    """
    # GnuPG 2.4 takes user IDs that nobody signed, unless told: anybody could give a key anybody's address, and an
    # expired key a new life, because its end is in that signature.
    arguments = ["--no-allow-non-selfsigned-uid", "--import-options", _CLEANING]
    if listed:
        # GnuPG 2.2 that trusts always cannot show an expired key in a home without a trust database.
        arguments += ["--import-options", "import-show", *runner.FINGERPRINTS, "--trust-model", "direct"]
    ended, listing = _visit(home, [*arguments, "--import"], certificates)
    if "IMPORT_RES" not in dict(ended.reports):
        raise KeyringError(f"gpg cannot import keys: {ended.complaint}")
    result = gnupg.ImportResult(None)
    for keyword, value in ended.reports:
        result.handle_status(keyword, value)
    codes = {one["fingerprint"]: int(one["ok"]) for one in result.results if one.get("ok") is not None}
    return Imported(
        {fingerprint: bool(code & 1) for fingerprint, code in codes.items()},
        frozenset(fingerprint for fingerprint, code in codes.items() if code),
        ended.complaint,
        listing,
    )


def export_keys(home: str) -> bytes:
    """The certificates in the GnuPG home `home`, binary. Raises KeyringError."""
    ended, data = _visit(home, ["--export-options", "export-minimal", "--export"])
    if ended.code != 0:
        raise KeyringError(f"cannot export the keys in {home}: {ended.complaint}")
    return data


def _visit(home: str, arguments: list[str], source: bytes = b"") -> tuple[Ended, bytes]:
    """Run gpg once with `home`. Returns how it ended, and its standard output. Raises KeyringError."""
    output = bytearray()
    # What keyboxd keeps, it alone can read. Nothing here needs an agent.
    autostart = [] if Path(home, runner.KEYBOXD).is_dir() else ["--no-autostart"]
    try:
        ended = runner.run(home, [*autostart, *arguments], [source] if source else (), output.extend)
    except (OSError, ValueError) as error:
        raise KeyringError(f"cannot run gpg: {error}") from error
    return ended, bytes(output)
