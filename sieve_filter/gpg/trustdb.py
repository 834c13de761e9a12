"""Reads what matters to encryption of GnuPG's trust database (trustdb.gpg): whether there is a disabled key. Pure.

The format is that of GnuPG's g10/tdbio.c: records of 40 octets, of which the first octet is the type.
"""

NAME = "trustdb.gpg"

_RECORD = 40
_HEAD = b"\x01gpg\x03"  # the first record, of version 3
_TRUST = 12
_OWNERTRUST, _DISABLED = 22, 0x80  # where in such a record the owner's trust is, and the bit of it
_TYPES = frozenset({0, 1, 10, 11, _TRUST, 13, 254})  # not used, version, hash table, hash list, trust, validity, free


def may_disable(data: bytes) -> bool:
    """Whether GnuPG may find a key there that somebody disabled; so, too, where this is no trust database."""
    records = [data[start : start + _RECORD] for start in range(0, len(data), _RECORD)]
    if not data.startswith(_HEAD) or len(records[-1]) != _RECORD or not {one[0] for one in records} <= _TYPES:
        return True
    return any(one[0] == _TRUST and one[_OWNERTRUST] & _DISABLED for one in records)
