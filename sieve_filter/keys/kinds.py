"""What follows from a key's kind: whether a quantum computer could read mail to it, and most programs can. Pure.

GnuPG and Thunderbird are most: docs/developer/interop.md says which program reads what.
"""

from sieve_filter.gpg.colons import Key, Subkey
from sieve_filter.keys.usable import POST_QUANTUM
from sieve_filter.openpgp.packets import VERSION_6_DIGITS

# RFC 9580 section 9.1: the algorithms from there on came with it, and with RFC 9980. GnuPG knows none of them.
_FIRST_NEWER = 25


def is_post_quantum(chosen: Subkey) -> bool:
    """Whether no quantum computer is known to open what is encrypted to that subkey."""
    return chosen.algorithm in POST_QUANTUM


def rare(key: Key, chosen: Subkey) -> str:
    """In words why few programs can read what is encrypted to the subkey `chosen` of `key`; empty where most can.

    GnuPG 2.4 makes keys of version 5, whose fingerprints are as long as those of version 6, and nobody else knows them.
    """
    newer = max(key.subkeys[0].algorithm, chosen.algorithm) >= _FIRST_NEWER
    if len(key.fingerprint) == VERSION_6_DIGITS and chosen != key.subkeys[0]:
        return "it is of version 6" if newer or not chosen.grip else "it is of GnuPG's own version 5"
    if is_post_quantum(chosen):
        return "it has a post-quantum subkey"
    return "it is of a kind that came with RFC 9580" if newer else ""
