"""Words to mailbox owners about what they asked for by a Subject, and the codes that confirm it. Pure, as `notices`."""

from collections.abc import Sequence
from datetime import UTC, datetime

from sieve_filter.notify.notices import Current, KeyFacts, Words, described, grouped, still

_THIEF = (
    "If you did not ask for this, somebody knows your mail password: change it now, and tell your mail administrator."
)


def with_code(words: Words, code: str, folder: str) -> Words:
    """A test message with a code that says that it was read; the same where there is no code."""
    if not code:
        return words
    return words._replace(
        paragraphs=(
            *words.paragraphs,
            f"To let the server know that you could read this, save a message in the folder {folder} whose Subject is",
            f"  confirm {code}",
        )
    )


def key_code(keys: Sequence[KeyFacts], code: str, folder: str) -> Words:
    """What goes to an owner encrypted to keys that are not set up yet: whoever reads it has the code."""
    return Words(
        "Can you read this? A test message for your S/MIME certificate"
        if any(one.smime for one in keys)
        else "Can you read this? A test message for your OpenPGP key",
        (
            "If you can read this, your key works. Nothing has changed yet. To have your mail encrypted to",
            *map(described, keys),
            f"save a message in the folder {folder} whose Subject is",
            f"  confirm {code}",
            "The code is good for a day.",
            _THIEF,
        ),
    )


def removal_code(fingerprint: str, until: int, code: str, folder: str, smime: bool = False) -> Words:
    """What goes to an owner encrypted to a key that is to be taken away; in clear without a code."""
    return Words(
        f"Your S/MIME certificate will be removed on {_moment(until)}"
        if smime
        else f"Your OpenPGP key will be removed on {_moment(until)}",
        (
            "Somebody who knows your mail password asked that this key of yours be taken away:",
            f"  {grouped(fingerprint)}",
            f"It will be, on {_moment(until)}, and mail for you is not encrypted to it from then on.",
            f"To keep it, save a message in the folder {folder} whose Subject is",
            "  keep",
            _THIEF,
            *(("If it was you and you do not want to wait, save a message there whose Subject is",) if code else ()),
            *((f"  confirm {code}",) if code else ()),
        ),
    )


def tried(keys: Sequence[KeyFacts], current: Current, folder: str) -> Words:
    """The answer where a test message went to keys that are not set up yet."""
    return Words(
        "Now see whether you can read the test message",
        (
            "Nothing has changed yet. A test message is on its way to your inbox, encrypted to",
            *map(described, keys),
            f"It has a code of six digits. If you can read it, save a message in the folder {folder} whose Subject is "
            "“confirm” and the code, such as “confirm 123456”: from then on, your mail is encrypted. If you cannot, "
            "nothing is lost.",
            *still(current),
        ),
    )


def not_sent(reason: str, current: Current) -> Words:
    """The answer where a test message could not be delivered."""
    return Words(
        "The test message could not be delivered",
        (
            "Nothing was changed, because the server could not deliver a test message. Tell your mail administrator:",
            f"  {reason}",
            *still(current),
        ),
    )


def test_sent(current: Current, folder: str) -> Words:
    """The answer where a test message was handed in as all mail is."""
    return Words(
        "A test message is on its way to your inbox",
        (
            "Open it: it says how to see whether your mail is encrypted. It has a code of six digits: if you can read "
            f"it, save a message in the folder {folder} whose Subject is “confirm” and the code.",
            *still(current),
        ),
    )


def could_read(current: Current) -> Words:
    """The answer to the code of a test message."""
    return Words("You can read your mail", ("The code was right: you could read the test message.", *still(current)))


def ahead(fingerprints: Sequence[str], until: int, current: Current, folder: str, smime: bool = False) -> Words:
    """The answer where keys are to be taken away, and that waits."""
    return Words(
        f"Your S/MIME certificate will be removed on {_moment(until)}"
        if smime
        else f"Your OpenPGP key will be removed on {_moment(until)}"
        if len(fingerprints) == 1
        else f"Your OpenPGP keys will be removed on {_moment(until)}",
        (
            f"This was asked for, and will be done on {_moment(until)}, so that nobody who steals your password can do "
            "it unseen:",
            *(f"  remove {grouped(one)}" for one in fingerprints),
            "A message about it, encrypted to each key, is on its way to your inbox. If you do not want to wait, open "
            f"it: it has a code of six digits. Save a message in the folder {folder} whose Subject is “confirm” and "
            "the code. If you have changed your mind, save one whose Subject is “keep”.",
            *still(current),
        ),
    )


def choice_code(choice: str, code: str, folder: str) -> Words:
    """What goes to an owner encrypted to their keys, where they chose what makes mail less safe."""
    return Words(
        "Did you choose this? It makes your mail less safe",
        (
            "Somebody who knows your mail password chose this for your mail:",
            f"  choose {choice}",
            f"Nothing has changed yet. If it was you, save a message in the folder {folder} whose Subject is",
            f"  confirm {code}",
            "The code is good for a day.",
            _THIEF,
        ),
    )


def choice_waits(choice: str, current: Current, folder: str) -> Words:
    """The answer where such a message is on its way."""
    return Words(
        "Confirm your choice with the code in the message to you",
        (
            f"“{choice}” makes your mail less safe. Nothing has changed yet. A message with a code of six digits is on "
            f"its way to your inbox, encrypted: save a message in the folder {folder} whose Subject is “confirm” and "
            "the code.",
            *still(current),
        ),
    )


def chosen(rows: Sequence[tuple[str, str, str]], current: Current) -> Words:
    """The answer to a choice: the name of each setting, its value, and the level that it comes from."""
    lines = "\n".join(f"  {name}: {value} ({level})" for name, value, level in rows)
    return Words("Your choice counts from now on", ("This counts for your mail now:", lines, *still(current)))


def off(current: Current) -> Words:
    """The answer where there was no key that waits, and those that there were are gone."""
    return Words("Encryption is off", still(current))


def kept(fingerprints: Sequence[str], current: Current) -> Words:
    """The answer where no key is to be removed any more."""
    return Words(
        "Your OpenPGP keys stay",
        (
            "These will not be removed:" if fingerprints else "No key of yours was to be removed.",
            *(f"  {grouped(one)}" for one in fingerprints),
            *still(current),
        ),
    )


def state(current: Current, ahead: Sequence[tuple[str, int]], read: int) -> Words:
    """The answer to what happens to the owner's mail; `ahead` are keys that are to be removed, and when."""
    lines = "\n".join(f"  on {_moment(until)}: {grouped(one)}" for one, until in ahead)
    confirmed = f"On {_moment(read)}, you could read a test message." if read else ""
    return Words(
        "What happens to your mail",
        (
            *still(current),
            *(
                ("These keys will be removed; to keep them, save a message whose Subject is “keep”:", lines)
                if ahead
                else ()
            ),
            *((confirmed,) if confirmed else ()),
        ),
    )


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
