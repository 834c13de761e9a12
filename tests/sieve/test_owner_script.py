"""Sieve scripts: what is written, and what is put into scripts of others' making."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter import limits
from sieve_filter.errors import RefusedKeyError, ScriptError
from sieve_filter.sieve import owner_script
from sieve_filter.sieve.owner_script import BEGIN, END, Choices, insert, remove

CERTIFICATE = bytes(range(256)) * 8
BLOCK = owner_script.block(CERTIFICATE, "A" * 40, Choices())
OTHER = owner_script.block(CERTIFICATE[::-1], "B" * 40, Choices(exclude_spam=True))

RULES = 'redirect "someone@example.org";\n'
REQUIRES = 'require ["fileinto",\n  "imap4flags"]; # what I need\n'

# Scripts as people and programs write them, and what comes near to one.
PARTS = st.sampled_from(
    [
        *(
            "require",
            "REQUIRE",
            '"fileinto"',
            "[",
            "]",
            ";",
            "\n",
            " ",
            "# x\n",
            "/* ; */",
            "keep",
            "if true { stop; }",
        ),
        *(
            '"a \\" b"',
            "text:\nrequire\n.\n",
            "text: # c\r\n..\r\n.\r\n",
            '"# BEGIN cryptomail\n"',
            "\r\n",
            "ä",
            "{",
            "}",
        ),
    ]
)
SCRIPTS = st.lists(PARTS, max_size=30).map("".join)


def arguments(script: str) -> list[str]:
    return re.findall(r'"([A-Za-z0-9+/=]{60,})"', script)


def test_arguments_are_the_certificate_and_none_is_longer_than_pigeonhole_takes() -> None:
    found = arguments(BLOCK)
    assert base64.b64decode("".join(found)) == CERTIFICATE
    assert max(map(len, found)) <= 1024
    assert len(found) == 3


def test_key_that_does_not_fit_is_refused_with_a_way_out() -> None:
    most = limits.KEYDATA_ARGUMENTS * limits.SIEVE_ARGUMENT_OCTETS * 3 // 4
    assert len(owner_script.pieces(b"x" * most)) == limits.KEYDATA_ARGUMENTS
    with pytest.raises(RefusedKeyError, match="make a smaller one"):
        owner_script.pieces(b"x" * (most + 1))


def test_options_stand_before_the_key_for_it_takes_all_that_follows() -> None:
    script = owner_script.block(CERTIFICATE, "A" * 40, Choices(options=("--header-policy", "shy")))
    assert re.search(r'"--require",\s+"--header-policy",\s+"shy",\s+"--keydata",\s+"[A-Za-z0-9+/]', script)


def test_block_stands_behind_the_requires_and_before_the_rules() -> None:
    assert insert(REQUIRES + RULES, BLOCK) == REQUIRES + BLOCK + RULES
    assert insert(RULES, BLOCK) == BLOCK + RULES
    assert (
        insert("# mine\n" + REQUIRES + "/* x */\n" + RULES, BLOCK)
        == "# mine\n" + REQUIRES + BLOCK + "/* x */\n" + RULES
    )
    assert insert('require "a"; require "b"; keep;', BLOCK) == f'require "a"; require "b"; \n{BLOCK}keep;'
    assert insert("", BLOCK) == BLOCK


def test_newer_block_takes_the_older_ones_place() -> None:
    script = REQUIRES + BLOCK + RULES
    assert insert(script, OTHER) == REQUIRES + OTHER + RULES


def test_marker_in_a_string_is_a_string() -> None:
    script = f'require "vacation";\nvacation text:\n{BEGIN}\n{END}\n.\n;\n'
    assert insert(script, BLOCK) == script.replace("vacation text", f"{BLOCK}vacation text")
    assert remove(script) is None


@pytest.mark.parametrize(
    "script", [f"{BEGIN}\nkeep;\n", f"{END}\n{BEGIN}\n", f"{BLOCK}{BLOCK}", f"{BEGIN}: x\n{BLOCK}"]
)
def test_markers_that_are_not_a_pair_are_left_to_their_owner(script: str) -> None:
    with pytest.raises(ScriptError, match="mend it by hand"):
        insert(script, BLOCK)
    with pytest.raises(ScriptError, match="mend it by hand"):
        remove(script)


@pytest.mark.parametrize("script", ['keep;\nredirect "x', "/* x", "text:\nno end", 'require "x'])
def test_script_that_does_not_end_is_left_alone(script: str) -> None:
    with pytest.raises(ScriptError):
        insert(script, BLOCK)


def test_script_of_comments_is_empty() -> None:
    assert owner_script.is_empty("# x\n/* y; */\r\n")
    assert not owner_script.is_empty("# x\nkeep;")


@given(SCRIPTS | st.text(max_size=60))
def test_whatever_is_put_in_can_be_taken_out_again(script: str) -> None:
    try:
        once = insert(script, BLOCK)
    except ScriptError:
        return
    assert once.count(BLOCK) == 1
    assert insert(once, BLOCK) == once
    assert insert(insert(once, OTHER), BLOCK) == once
    without = remove(once)
    assert without is not None
    # A line end, where the script had none in that place, is all that may stay.
    assert without.replace("\n", "") == script.replace("\n", "")
    assert len(without) <= len(script) + 1


@given(st.binary(max_size=20_000))
def test_every_certificate_comes_back_from_its_arguments(certificate: bytes) -> None:
    assert base64.b64decode("".join(owner_script.pieces(certificate))) == certificate
