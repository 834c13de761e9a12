"""`make demo`: three deliveries to a private Dovecot; for each what was sent, what is on disk, what its owner reads."""

import re
import shutil
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

from lab import client, keys, server

COLUMN = 31
ROWS = 20
_SECRET = b"Meet me at the old mill at nine."
_SHOWN_FIELDS = (b"from:", b"to:", b"subject:", b"x-cryptomail:", b"content-type:")
_ARMOR = re.compile(rb"-----BEGIN PGP MESSAGE-----.*?-----END PGP MESSAGE-----", re.DOTALL)


def main() -> int:
    """Returns the exit code, 0 if each of the three went as it should."""
    directory = Path(tempfile.mkdtemp(prefix="cryptomail-demo-", dir="/tmp"))
    try:
        print("Installing cryptomail into a temporary directory and starting a private Dovecot ...")
        server.start(directory, "sealed")
        try:
            with keys.owner() as alice:
                return _show(client.Lab.load(directory), alice)
        finally:
            server.stop(directory)
    finally:
        shutil.rmtree(directory)


def _show(lab: client.Lab, alice: keys.Owner) -> int:
    fingerprint = alice.make_key(lab.address("alice"))
    keys.give(lab, "alice", alice.public(lab.address("alice")))
    print(f"Dovecot delivers to {lab.address('alice')} (key {fingerprint[-16:]}) and {lab.address('bob')} (no key).")

    def decrypt(stored: bytes) -> bytes:
        armor = _ARMOR.search(stored)
        return alice.gpg("--decrypt", data=armor[0]) if armor else b"(alice's key opens nothing here)"

    ciphertext = alice.gpg("--armor", "--trust-model", "always", "--encrypt", "-r", fingerprint, data=_plain("alice"))
    encrypted = _encrypted("alice", ciphertext)
    results = [
        _case(lab, "1. A plain message to alice is stored encrypted", "alice", _plain("alice"), decrypt, _is_encrypted),
        _case(lab, "2. A message that is encrypted already stays as it is", "alice", encrypted, decrypt, _same_body),
        _case(lab, "3. A message to bob, who has no key, stays as it is", "bob", _plain("bob"), bytes, _same_body),
    ]
    return 0 if all(results) else 1


def _case(
    lab: client.Lab,
    title: str,
    user: str,
    sent: bytes,
    read: Callable[[bytes], bytes],
    as_promised: Callable[[bytes, bytes], bool],
) -> bool:
    """Deliver `sent` and show it. Right is: accepted, on disk `as_promised`, and the owner reads the secret."""
    before = set(lab.stored(user))
    [reply] = client.lmtp(lab, sent, [lab.address(user)])
    [stored] = set(lab.stored(user)) - before or {b""}
    shown = read(stored)
    passed = reply.code == 250 and as_promised(sent, stored) and _SECRET in shown
    print(f"\n{title}: {'PASS' if passed else 'FAIL'} (Dovecot said {reply.code})\n")
    titles = [b"SENT", b"ON DISK", b"WHAT THE OWNER READS"]
    columns = [[title, b"-" * COLUMN, *_lines(text)] for title, text in zip(titles, (sent, stored, shown), strict=True)]
    for row in zip_longest(*columns, fillvalue=b""):
        print("  ".join(line.decode(errors="replace").expandtabs().ljust(COLUMN)[:COLUMN] for line in row).rstrip())
    return passed


def _is_encrypted(_sent: bytes, stored: bytes) -> bool:
    return _SECRET not in stored and _ARMOR.search(stored) is not None


def _same_body(sent: bytes, stored: bytes) -> bool:
    """Whether the bodies are the same; a maildir has LF for CRLF."""
    return sent.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1] == stored.split(b"\n\n", 1)[1]


def _lines(message: bytes) -> list[bytes]:
    """What fits on a screen: the header fields that matter, and the beginning of the body."""
    head, _, body = message.replace(b"\r\n", b"\n").partition(b"\n\n")
    fields = [line for line in head.splitlines() if line.lower().startswith(_SHOWN_FIELDS)]
    return [*fields, b"", *body.splitlines()][:ROWS]


def _plain(user: str) -> bytes:
    body = b"Dear %b,\n\n%b\n\nYours, Mallory\n" % (user.encode(), _SECRET)
    return _message(user, b"Content-Type: text/plain; charset=utf-8", body)


def _encrypted(user: str, ciphertext: bytes) -> bytes:
    """PGP/MIME (RFC 3156), as a mail client sends it."""
    content_type = b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=part'
    control = b"Content-Type: application/pgp-encrypted\n\nVersion: 1\n"
    body = b"--part\n%b\n--part\nContent-Type: application/octet-stream\n\n%b\n--part--\n"
    return _message(user, content_type, body % (control, ciphertext))


def _message(user: str, content_type: bytes, body: bytes) -> bytes:
    head = b"From: Mallory <mallory@example.com>\nTo: %b@example.org\nSubject: Tonight\nMIME-Version: 1.0\n%b\n"
    return (head % (user.encode(), content_type) + b"\n" + body).replace(b"\n", b"\r\n")
