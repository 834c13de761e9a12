"""What owners are told, as messages."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.mail.message import split
from sieve_filter.notify import notices
from sieve_filter.notify.notices import KeyFacts, Stamp, Words

STAMP = Stamp(1_800_000_000, "0123456789abcdef")
KEY = KeyFacts("AB" * 20, ("Alice <alice@example.org>",), 1_900_000_000)


def parsed(message: bytes) -> EmailMessage:
    read = message_from_bytes(message, policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert not read.defects
    return read


def text(words: Words) -> str:
    body = parsed(notices.message("alice@example.org", words, STAMP)).get_body(("plain",))
    assert body is not None
    content: str = body.get_content()
    return " ".join(content.split())


def test_a_key_is_told_with_fingerprint_user_ids_and_expiry() -> None:
    said = text(notices.enrolled([KEY], [], "OpenPGP", ""))
    assert "Fingerprint ABAB ABAB ABAB ABAB ABAB ABAB ABAB ABAB ABAB ABAB" in said
    assert "User ID Alice <alice@example.org>" in said
    assert "Expires 2030-03-17" in said
    assert "whose Subject is remove " + "AB" * 20 in said


def test_where_owners_cannot_save_keys_they_are_sent_to_their_administrator() -> None:
    for words in (notices.trial([KEY], ""), notices.key_trial([KEY], ""), notices.expiring(KEY, 7, "")):
        assert "your mail administrator" in text(words)
        assert "folder" not in text(words)


def test_nobody_answers_a_notice() -> None:
    message = parsed(notices.message("alice@example.org", notices.addition_notice([KEY], instead=False), STAMP))
    assert message["Auto-Submitted"] == "auto-generated"


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_stranger_s_text_makes_a_line_or_a_field_of_its_own(user: str, user_id: str) -> None:
    words = notices.enrolled([KeyFacts("AB" * 20, (user_id,), None, user_id)], [], "OpenPGP", user_id)
    plain = notices.enrolled([KeyFacts("AB" * 20, ("x",), None, "x")], [], "OpenPGP", "")
    message = split(notices.message(user, words, STAMP))
    assert [field.name for field in message.fields] == [
        field.name for field in split(notices.message("alice", plain, STAMP)).fields
    ]
    assert not any(line.startswith("remove") for line in message.body.decode().splitlines())


@given(st.binary(max_size=200))
def test_an_attached_original_keeps_every_byte(original: bytes) -> None:
    message = notices.message("alice@example.org", notices.no_key("", [], "OpenPGP"), STAMP, original)
    assert message.count(b"\r\n\r\n" + original + b"\r\n--_cryptomail_") == 1


def test_only_an_answer_counts_as_one() -> None:
    words = notices.refused_secret()
    answer = notices.message("alice", words, STAMP, None, notices.CONFIRMATION)
    assert notices.is_confirmation(split(answer))
    assert not notices.is_confirmation(split(notices.message("alice", words, STAMP)))


def test_a_message_that_is_encrypted_gets_told_so_and_how_to_save_it_otherwise() -> None:
    said = text(notices.encrypted([], "OpenPGP"))
    assert "The message that you saved here is encrypted" in said
    assert "“Do Not Encrypt”" in said


def test_the_owner_of_an_expired_key_is_told_how_to_renew_it() -> None:
    renewal = "“Key Properties”, and choose “Change Expiration Date”"
    assert renewal in text(notices.refused(["it expired on 2021-01-01"], [], expired=True))
    assert renewal in text(notices.expiring(KEY, 7, "OpenPGP"))
    assert renewal not in text(notices.refused(["it was revoked"], []))
