"""Words to mailbox owners about their keys, as whole messages. Pure: what happened in, messages out."""

import re
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import NamedTuple

from sieve_filter.mail.message import Message, split
from sieve_filter.mail.protection import MARK
from sieve_filter.system.stdio import on_one_line

CONFIRMATION = b"confirmation"
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,320}")
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,250}>")  # RFC 5322 section 3.6.4, without comments
_WIDTH = 76
_USER_ID_LENGTH = 200
_EOL = b"\r\n"


# The words are Thunderbird's own, versions 78 to 140.
_HOW_TO_RENEW = (
    "In Thunderbird, open Account Settings, End-To-End Encryption, “OpenPGP Key Manager”, then the key's “Key "
    "Properties”, and choose “Change Expiration Date”. On a command line: gpg --quick-set-expire FINGERPRINT 2y, and "
    "the same once more with '*' behind it, for the subkeys."
)


class Stamp(NamedTuple):
    """What makes a message one of its own: the time, in seconds since 1970, and a random word."""

    seconds: int
    word: str


class KeyFacts(NamedTuple):
    """What owners are told of a key: `expires` is in seconds since 1970, None for never; `note` a warning or empty.

    `smime` says that it is an S/MIME certificate.
    """

    fingerprint: str
    user_ids: tuple[str, ...]
    expires: int | None
    note: str = ""
    smime: bool = False


# The keys that mail is encrypted to; None where mail waits, because there is none that it may be encrypted to.
Current = Sequence[KeyFacts] | None


class Words(NamedTuple):
    """A Subject, and paragraphs; a paragraph that begins with a space keeps its lines. `facts` are the same in JSON,
    for programs, if there are any.
    """

    subject: str
    paragraphs: tuple[str, ...]
    facts: str = ""


def message(user: str, words: Words, stamp: Stamp, original: bytes | None = None, mark: bytes = b"notice") -> bytes:
    """A message from the mail server to `user`, Dovecot's name of the owner; `original` is attached byte for byte."""
    text = _body(words)
    content = b"Content-Type: text/plain; charset=utf-8" + _EOL + b"Content-Transfer-Encoding: 8bit" + _EOL
    if original is not None:
        boundary = b"_cryptomail_" + stamp.word.encode("ascii")
        content, text = _with_original(content, text, original, boundary, words.facts)
    to = _address(user)
    head = (
        f"From: cryptomail <{to}>",
        f"To: <{to}>",
        f"Subject: {words.subject}",
        f"Date: {format_datetime(datetime.fromtimestamp(stamp.seconds, UTC))}",
        f"Message-ID: {message_id(user, stamp)}",
        "Auto-Submitted: auto-generated",  # RFC 3834 section 5: nobody's vacation message answers it
        "MIME-Version: 1.0",
    )
    lines = [line.encode("ascii", "replace") for line in head]
    if original is not None and (answered := _MESSAGE_ID.fullmatch(_field(original, b"message-id"))):
        lines.append(b"In-Reply-To: " + answered[0])
    return _EOL.join([*lines, MARK + b": " + mark, content]) + _EOL + text


def _field(raw: bytes, name: bytes) -> bytes:
    fields = split(raw).named(name)
    return fields[0].value.strip() if len(fields) == 1 else b""


def message_id(user: str, stamp: Stamp) -> str:
    """The Message-ID of a message to `user` with that stamp, in angle brackets."""
    to = _address(user)
    return f"<{stamp.word}.cryptomail@{to.rpartition('@')[2] if '@' in to else 'localhost'}>"


def _address(user: str) -> str:
    return user if _ADDRESS.fullmatch(user) else "cryptomail"


def is_confirmation(one: Message) -> bool:
    """Whether it says that it is an answer of ours. Anybody can say so: nothing may be done because of it."""
    return any(field.value == CONFIRMATION for field in one.named(MARK.lower()))


def enrolled(
    keys: Sequence[KeyFacts], others: Sequence[KeyFacts], folder: str, posted: str, gone: Sequence[str] = ()
) -> Words:
    """The answer where `keys` were set up; `others` serve beside them, and those of the fingerprints `gone`, which
    were revoked, do not any more. `posted`: see `_about_test`.
    """
    return Words(
        "Your S/MIME certificate is set up" if _smime(keys) else "Your OpenPGP key is set up",
        (
            "From now on, mail for you is encrypted as it arrives, to " + ("this key:" if len(keys) == 1 else "these:"),
            *map(described, keys),
            *_beside(others),
            *_revoked(gone),
            _about_test(posted),
            *_how_to_turn_off(folder, keys),
        ),
    )


def unchanged(keys: Sequence[KeyFacts], folder: str) -> Words:
    """The answer where `keys` were there already."""
    return Words(
        "Your S/MIME certificate was set up already" if _smime(keys) else "Your OpenPGP key was set up already",
        (
            "Nothing was changed: mail for you is encrypted to it.",
            *map(described, keys),
            *_how_to_turn_off(folder, keys),
        ),
    )


def kept(fingerprints: Sequence[str], current: Current, folder: str) -> Words:
    """The answer where S/MIME certificates were set up, and do not count, because their owner has OpenPGP keys."""
    return Words(
        "Your S/MIME certificate was kept, but is not used yet",
        (
            "This certificate was put beside your OpenPGP key:",
            *(f"  {grouped(one)}" for one in fingerprints),
            "Each message is encrypted to one kind only. To have this kind, take your OpenPGP key away: save a message "
            f"in the folder {folder} with the Subject: remove FINGERPRINT",
            *still(current),
        ),
    )


def refused(reasons: Sequence[str], current: Current, expired: bool = False, smime: bool = False) -> Words:
    """The answer where nothing was set up; `expired`: because a key has expired, which its owner can change. With
    `smime`, certificates were to be.
    """
    return Words(
        "Your S/MIME certificates were NOT changed" if smime else "Your OpenPGP keys were NOT changed",
        (
            "What you asked for was not done:",
            *(f"  - {on_one_line(reason)}" for reason in reasons),
            *(
                (f"An expired key can be renewed: {_HOW_TO_RENEW} Then save the new public key here.",)
                if expired
                else ()
            ),
            *still(current),
        ),
    )


def revoked(fingerprints: Sequence[str], reasons: Sequence[str], current: Current) -> Words:
    """The answer where keys were revoked that mail was encrypted to; `reasons` say what else was not done."""
    return Words(
        "Your OpenPGP key was revoked",
        (
            *_revoked(fingerprints),
            *(("The rest of what you asked for was not done:",) if reasons else ()),
            *(f"  - {on_one_line(reason)}" for reason in reasons),
            *still(current),
        ),
    )


def failed(reason: str) -> Words:
    """The answer where something went wrong on the server."""
    return Words(
        "Something went wrong with your OpenPGP keys",
        (
            "Something went wrong on the mail server. Tell your mail administrator:",
            f"  {on_one_line(reason)}",
            "Your message is attached, unchanged.",
        ),
    )


def refused_secret() -> Words:
    """The answer to a secret key."""
    return Words(
        "WARNING: you sent your SECRET key",
        (
            "The message that you saved here held a SECRET key. Nothing was set up, and this answer takes the "
            "message's place: the key is not kept here. But it was on its way through the network and this server, "
            "and your mail program may have another copy, in a folder for sent messages or drafts: delete that.",
            "Whoever has the key and its passphrase can read your mail. If you are not sure that nobody else has, "
            "revoke the key and make a new one.",
            "What belongs here is the PUBLIC key. In Thunderbird: Account Settings, End-To-End Encryption, the key's "
            "“Export Public Key”. On a command line: gpg --armor --export YOUR-ADDRESS. Of an S/MIME certificate: a "
            "message that you signed with it.",
        ),
    )


def no_key(address: str, current: Current, folder: str) -> Words:
    """The answer to a message without a key; `address` is that of an Autocrypt header field, not the owner's."""
    why = (
        "There is no OpenPGP public key, and no S/MIME certificate of yours, in the message that you saved here. It is "
        "attached, unchanged."
    )
    if address:
        why += (
            f" (The key in its Autocrypt header field is {on_one_line(address)}'s, so it was not taken for yours. If "
            "it is yours, attach it.)"
        )
    return Words(
        "No OpenPGP key found",
        (
            why,
            f"To have your mail encrypted, save a message with your public key attached in the folder {folder}, or one "
            "that you signed with your S/MIME certificate. To have a key taken away, save one there with the Subject: "
            "remove FINGERPRINT",
            *still(current),
        ),
    )


def encrypted(current: Current, folder: str) -> Words:
    """The answer to a message that is encrypted, so that nobody here can tell whether there is a key in it."""
    return Words(
        "Your message is encrypted, so no OpenPGP key was found",
        (
            "The message that you saved here is encrypted: the server cannot look for a key in it. It is attached, "
            "unchanged. Mail programs encrypt drafts by themselves once they have a key.",
            f"Save it in the folder {folder} once more, not encrypted. In Thunderbird: while you write it, choose “Do "
            "Not Encrypt” under OpenPGP; or turn off “Store draft messages in encrypted format” in Account Settings, "
            "End-To-End Encryption.",
            *still(current),
        ),
    )


def removed(fingerprint: str, current: Current, smime: bool = False) -> Words:
    """The answer where a key, or with `smime` a certificate, was taken away."""
    return Words(
        "Your S/MIME certificate was removed" if smime else "Your OpenPGP key was removed",
        ("This key of yours was taken away:", f"  {grouped(fingerprint)}", *still(current)),
    )


def removal_notice(fingerprint: str, current: Current, smime: bool = False) -> Words:
    """What the owner of a key, or with `smime` of a certificate, is told, encrypted to it, when it was taken away."""
    return Words(
        "Your S/MIME certificate was removed" if smime else "Your OpenPGP key was removed",
        (
            "This key of yours was just taken away: mail for you is no longer encrypted to it.",
            f"  {grouped(fingerprint)}",
            *still(current),
            "If that was neither you nor your mail administrator, somebody knows your mail password: change it now, "
            "tell your mail administrator, and set the key up again.",
        ),
    )


def revocation_notice(fingerprints: Sequence[str], current: Current) -> Words:
    """What an owner is told, encrypted to other keys if there are any, when keys that were in use were revoked."""
    return Words(
        "Your OpenPGP key was revoked",
        (
            *_revoked(fingerprints),
            *still(current),
            "Only somebody who has the secret key can revoke it. If that was not you, somebody else has it, and "
            "your mail up to now can be read with it: tell your mail administrator.",
        ),
    )


def trial(keys: Sequence[KeyFacts], folder: str) -> Words:
    """What an owner gets in clear, delivered like other mail, to see whether that is encrypted. No secret is in it."""
    return Words(
        "Is your mail encrypted? A test message",
        (
            "Your mail server sent this message to you as an ordinary one, to show you what becomes of your mail.",
            "If your mail program shows that this message was encrypted, then your mail is stored encrypted, to",
            *map(described, keys),
            "If it shows it as an ordinary message, your key is fine, but nothing encrypted this message. If a Sieve "
            "script of your own is to encrypt your mail, this only means that it does not do so yet. Otherwise tell "
            "your mail administrator.",
            *_how_to_turn_off(folder, keys),
        ),
    )


def key_trial(keys: Sequence[KeyFacts], folder: str) -> Words:
    """What an owner gets encrypted to keys, to see that they work, where no message can be handed in as mail is."""
    return Words(
        "A test message for your S/MIME certificate" if _smime(keys) else "A test message for your OpenPGP key",
        (
            "If you can read this, your key works: your mail server encrypted this message to",
            *map(described, keys),
            "It does not show whether other mail is encrypted as it arrives. Have somebody write to you, and look "
            "whether your mail program shows that that message was encrypted.",
            *_how_to_turn_off(folder, keys),
        ),
    )


def addition_notice(new: Sequence[KeyFacts], instead: bool) -> Words:
    """What an owner is told, encrypted to the keys that were there before, when others come to them, or `instead`."""
    return Words(
        "Another S/MIME certificate was set up for you" if _smime(new) else "Another OpenPGP key was set up for you",
        (
            f"From now on, mail for you is encrypted to this key {'instead of yours' if instead else 'too'}:",
            *map(described, new),
            "Whoever has that key can read it. If that was neither you nor your mail administrator, somebody knows "
            "your mail password: change it now, tell your mail administrator, and have the key removed.",
        ),
    )


def expiring(key: KeyFacts, days: int, folder: str) -> Words:
    """What an owner is told of a key that expires in so many days, 0 for within the next."""
    when = f"expires in {days} day{'s' if days != 1 else ''}" if days else "expires within a day"
    if key.smime:
        return Words(
            f"Your S/MIME certificate {when}",
            (
                f"Mail for you is encrypted to this certificate, which {when}:",
                described(key),
                "Get a new one from who issued it, and set it up in your mail program. "
                + (f"Then save a message that you signed with it in the folder {folder}, or " if folder else "Then ")
                + "give it to your mail administrator.",
                "Keep the old one, with its secret key, in your mail program for good: the new one has another key, "
                "and cannot open the mail that you have already.",
            ),
        )
    return Words(
        f"Your OpenPGP key {when}",
        (
            f"Mail for you is encrypted to this key, which {when}:",
            described(key),
            f"Renew it: {_HOW_TO_RENEW}",
            (f"Then save a message with the new public key attached in the folder {folder}, or " if folder else "Then ")
            + "give the new public key to your mail administrator. It takes the old one's place by itself.",
        ),
    )


def grouped(fingerprint: str) -> str:
    """A fingerprint as people compare it."""
    return " ".join(fingerprint[start : start + 4] for start in range(0, len(fingerprint), 4))


def _smime(keys: Sequence[KeyFacts]) -> bool:
    return any(key.smime for key in keys)


def described(key: KeyFacts) -> str:
    expires = "never" if key.expires is None else f"{datetime.fromtimestamp(key.expires, UTC):%Y-%m-%d}"
    lines = [f"  Fingerprint  {grouped(key.fingerprint)}"]
    lines += [f"  User ID      {on_one_line(one)[:_USER_ID_LENGTH]}" for one in key.user_ids]
    lines += [f"  Expires      {expires}"]
    lines += [f"  Note         {on_one_line(key.note)}"] if key.note else []
    return "\n".join(lines)


def _beside(others: Sequence[KeyFacts]) -> tuple[str, ...]:
    if not others:
        return ()
    return ("and to these, as before, until you have them removed:", *map(described, others))


def _revoked(fingerprints: Sequence[str]) -> tuple[str, ...]:
    if not fingerprints:
        return ()
    lines = "\n".join(f"  {grouped(one)}" for one in fingerprints)
    return ("This was revoked, and mail is not encrypted to it any more:", lines)


def still(current: Current) -> tuple[str, ...]:
    if current is None:
        return ("Mail for you waits, because none of your keys can be used, or because you have none: set one up.",)
    if not current:
        return ("Mail for you is not encrypted now.",)
    return ("Mail for you is encrypted to:", *map(described, current))


def _about_test(posted: str) -> str:
    """`posted` says why there is no test message, and is empty where there is one."""
    if posted:
        return (
            f"There is no test message, because the server could not deliver one ({on_one_line(posted)}): send one "
            "to yourself, and see whether you can read it."
        )
    return (
        "A test message is on its way to your inbox. Open it: it says how to see whether your mail is encrypted. If "
        "you cannot read it, do as follows."
    )


def _how_to_turn_off(folder: str, keys: Sequence[KeyFacts]) -> tuple[str, ...]:
    if not folder:
        return ("To turn this off again, ask your mail administrator.",)
    commands = "\n".join(f"  remove {key.fingerprint}" for key in keys)
    return (
        f"To turn this off again, save a message in the folder {folder} whose Subject is",
        commands,
        "Moving or deleting this message changes nothing.",
    )


def _body(words: Words) -> bytes:
    paragraphs = [
        one if one.startswith(" ") else textwrap.fill(one, _WIDTH, break_long_words=False, break_on_hyphens=False)
        for one in words.paragraphs
    ]
    return "\r\n\r\n".join(one.replace("\n", "\r\n") for one in paragraphs).encode("utf-8", "replace") + _EOL


def _with_original(content: bytes, text: bytes, original: bytes, boundary: bytes, facts: str) -> tuple[bytes, bytes]:
    # RFC 2046 section 5.2.1 allows nothing else, and nothing else leaves it as it is.
    encoding = b"Content-Transfer-Encoding: " + (b"binary" if b"\x00" in original else b"8bit") + _EOL
    head = b'Content-Type: multipart/mixed; boundary="' + boundary + b'"' + _EOL + encoding
    delimiter = b"--" + boundary
    attached = b"Content-Type: message/rfc822" + _EOL + b"Content-Disposition: attachment; filename=saved.eml" + _EOL
    attached += encoding + _EOL
    programs = b""
    if facts:
        data = facts.encode("ascii")
        programs = delimiter + _EOL + b"Content-Type: application/json" + _EOL * 2 + data + _EOL
    end = delimiter + b"--" + _EOL
    return head, b"".join(
        (delimiter, _EOL, content, _EOL, text, programs, delimiter, _EOL, attached, original, _EOL, end)
    )
