"""The layout of a Web Key Directory (draft-koch-openpgp-webkey-service, section 3.1). Pure."""

import hashlib

# z-base-32: https://philzimmermann.com/docs/human-oriented-base-32-encoding.txt
_ALPHABET = "ybndrfg8ejkmcpqxot1uwisza345h769"

POLICY = b"# This domain offers its users' OpenPGP keys, as cryptomail exported them.\n"


def policy_path(domain: str) -> str:
    """Where a domain's policy file is, by the advanced method: relative to the directory that the web server shows."""
    return f"openpgpkey/{domain.lower()}/policy"


def key_path(address: str) -> str:
    """Where the key for an address is: under the hash of its local part in lower case (section 3.1)."""
    local, _, domain = address.rpartition("@")
    return f"openpgpkey/{domain.lower()}/hu/{key_name(local)}"


def key_name(local: str) -> str:
    """The name of the file with the key for an address with that local part (section 3.1)."""
    # SHA-1 here is only a way to make a file name, which the draft names.
    digest = hashlib.sha1(_ascii_lower(local).encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return zbase32(digest)


def zbase32(data: bytes) -> str:
    """`data`, five bits a character, in that alphabet."""
    bits = "".join(f"{octet:08b}" for octet in data)
    return "".join(_ALPHABET[int(bits[start : start + 5].ljust(5, "0"), 2)] for start in range(0, len(bits), 5))


def _ascii_lower(text: str) -> str:
    """Section 3.1: only the letters of US-ASCII are mapped."""
    return "".join(char.lower() if char.isascii() else char for char in text)
