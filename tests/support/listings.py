"""Listings of keys, as gpg prints them with --with-colons."""

PRIMARY = "A" * 40
SUBKEY = "B" * 40
NEWER = "C" * 40


def listing(
    *,
    primary: str = "u",
    capabilities: str = "scESC",
    user_id: str = "u",
    name: str = "<a@example.org>",
    subs: str = "",
) -> bytes:
    return (
        f"tru::1:1:0:3:1:5\n"
        f"pub:{primary}:255:22:{PRIMARY[-16:]}:1600000000:::u:::{capabilities}:::::ed25519:::0:\n"
        f"fpr:::::::::{PRIMARY}:\n"
        f"uid:{user_id}::::1600000000::HASH::{name}::::::::::0:\n"
        f"{subs}"
    ).encode()


def sub(fingerprint: str, *, state: str = "u", created: int = 1600000000, expires: str = "", bits: int = 255) -> str:
    algorithm = 18 if bits < 1024 else 1
    return (
        f"sub:{state}:{bits}:{algorithm}:{fingerprint[-16:]}:{created}:{expires}:::::e:::::cv25519::\n"
        f"fpr:::::::::{fingerprint}:\n"
    )
