"""What must hold for any bytes at all. `make fuzz` looks for bytes that break it; `make test` checks the corpus."""

import base64
import itertools
import os

from sieve_filter.delivery import sealing
from sieve_filter.detection import classify, secrets
from sieve_filter.detection.stream import Skim
from sieve_filter.dovecot import script_protocol
from sieve_filter.enrolment import request as keymail
from sieve_filter.errors import CryptomailError, UsageError
from sieve_filter.gpg import colons
from sieve_filter.keys import decision, usable
from sieve_filter.keys.recipients import Found, Holding, Home
from sieve_filter.mail import mime, protection
from sieve_filter.mail.header_policy import POLICIES
from sieve_filter.mail.message import split
from sieve_filter.mail.randomness import Randomness
from sieve_filter.openpgp import encrypted, pgpmime
from sieve_filter.owners import owner
from sieve_filter.policy.settings import ENCRYPT_ANYWAY, REFUSE, STORE_PLAIN
from sieve_filter.smime import certificate, cms, envelope, recipients

# More than the names and comments that may be around ciphertext.
PROSE = b"Meet me at noon, where the old road crosses the river. Bring the papers, and tell nobody. " * 8

# An Ed25519 secret key that no passphrase protects (RFC 9580 section 5.5.3).
SECRET_KEY = bytes.fromhex("9458045000000016092b06010401da470f01010740" + "5a" * 32 + "000100" + "a5" * 32 + "14a0")
NOW = 1_800_000_000
_EXPIRED = (STORE_PLAIN, REFUSE, ENCRYPT_ANYWAY)


def check(data: bytes) -> None:
    """Raise AssertionError, or anything else, where a promise about `data` is broken."""
    _message(data)
    _ciphertext(data)
    _environment(data)
    _request(data)
    _secret(data)


def _message(data: bytes) -> None:
    message = split(data)
    assert message.header_end <= message.body_start <= len(data)
    verdict = classify.classify(message)
    if verdict.encrypted:
        assert message.agreed
        assert all(classify.may_be_encrypted(split(data[:end])) for end in range(message.body_start, len(data), 50))
        # Ciphertext has no room for a word more, and none for text in its place.
        assert not classify.classify(split(data + b"\r\nThis can be read.\r\n")).encrypted
        for start in range(message.body_start, len(data) + 1, 1 + len(message.body) // 5):
            for text in (PROSE, base64.b64encode(PROSE)):
                for end in (start, start + len(text)):
                    assert not classify.classify(split(data[:start] + text + data[end:])).encrypted
    for length in range(message.body_start, len(data), 1 + len(data) // 10):
        beginning = split(data[:length])
        if beginning.settled:
            skim = Skim(beginning)
            for start in range(length, len(data), 7):
                skim.feed(data[start : start + 7])
            assert skim.finish() in (None, verdict)
    for policy in POLICIES.values():
        protected = protection.protect(message, policy)
        assert protection.restore(protected.inside) == data
        header, before, behind = pgpmime.frame(protected, b"_b_")
        stored = split(header + before + b"-----BEGIN-----\n" + behind)
        assert stored.body_start == len(header)
        assert [field.value[:19] for field in stored.named(b"content-type")] == [b"multipart/encrypted"]
        assert protection.marked(stored)
        assert [field.value[:1] for field in stored.named(b"mime-version")] in ([b"1"], [b"("])
        assert stored.agreed
        assert not stored.strays
        inside = split(protected.inside)
        assert inside.agreed
        assert not inside.strays
    protection.restore(data)
    asked = keymail.read(data)
    assert not (asked.secret and (asked.certificates or asked.smime or asked.signers or asked.command.word))
    assert data.endswith(sealing.without_trace(data))


def _ciphertext(data: bytes) -> None:
    if encrypted.encrypted_message(data) is not None:
        assert encrypted.encrypted_message(data + b"x") is None
    encrypted.encrypted_payload(data)
    walker = encrypted.Walker()
    for start in range(0, len(data), 7):
        walker.feed(data[start : start + 7])
    assert walker.finish() == encrypted.encrypted_message(data)
    whole, cut = Randomness(), Randomness()
    whole.feed(data)
    for start in range(0, len(data), 7):
        cut.feed(data[start : start + 7])
    assert cut.finish() == whole.finish()
    if cms.enveloped(data):
        assert not cms.enveloped(data + b"x")
    followed, whole_one = envelope.Walker(), envelope.Walker()
    whole_one.feed(data)
    for start in range(0, len(data), 7):
        followed.feed(data[start : start + 7])
    assert followed.finish() == whole_one.finish()
    if followed.finish() is not None:
        whole_one.feed(b"x")
        assert whole_one.finish() is None
    recipients.key_ids(data)
    for form in (data, b"0" + data, b"-----BEGIN CERTIFICATE-----\n" + data + b"-----END CERTIFICATE-----"):
        read = certificate.read(form)
        assert read.certificates or read.secret or read.problems
    mime.content_type(data)
    for encoding in (b"base64", b"quoted-printable"):
        mime.decode(data, encoding)


def _environment(data: bytes) -> None:
    text = os.fsdecode(data)
    try:
        found = owner.identify({"USER": text, "HOME": "/home/" + text, "RECIPIENT": text}, {})
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert "/" not in found.user
        assert ".." not in owner.expand("%h/%d/%n/%u", found).split("/")
    try:
        keys = colons.parse(data)
    except (ValueError, IndexError):
        return
    for key in keys:
        usable.choose(key, 2048, NOW)
    _decision(tuple(keys))


def _decision(keys: tuple[colons.Key, ...]) -> None:
    found = Found("alice", (Holding(Home("/home/alice/.cryptomail", ()), keys),) if keys else ())
    for unusable, expired, required in itertools.product((STORE_PLAIN, REFUSE), _EXPIRED, (False, True)):
        rules = decision.Rules(2048, unusable, unusable, expired, required)
        match decision.decide(found, rules, NOW):
            case decision.Encrypt(to):
                subkeys = {subkey.fingerprint: subkey for key in keys for subkey in key.subkeys}
                assert to.fingerprints
                assert all(subkeys[fingerprint].encrypts for fingerprint in to.fingerprints)
                assert to.expired_after is None or (expired == ENCRYPT_ANYWAY and to.expired_after < NOW)
            case decision.StoreClear():
                assert not required
                assert STORE_PLAIN in (unusable, expired)
            case decision.Wait(error):
                assert isinstance(error, CryptomailError)


def _request(data: bytes) -> None:
    try:
        parts = script_protocol.split_head(data)
        request = None if parts is None else script_protocol.parse(parts[0])
    except script_protocol.ProtocolError as error:
        assert "\n" not in str(error)
        return
    if parts is None:
        assert b"\n\n" not in data
    else:
        assert parts[0] + b"\n\n" + parts[1] == data
        assert request is not None
        assert all(isinstance(value, str) for value in (*request.environment.values(), *request.arguments))


def _secret(data: bytes) -> None:
    """A secret key is found whatever comes before it, and behind it."""
    secrets.found(data)
    for form in (SECRET_KEY, base64.encodebytes(SECRET_KEY), SECRET_KEY.hex().encode()):
        assert secrets.found(data + b"\n" + form)
        assert secrets.found(form + b"\n" + data)
