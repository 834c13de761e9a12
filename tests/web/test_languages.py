"""What the page says, in each language."""

import ast
import re
from pathlib import Path

import pytest

from sieve_filter.web import languages, letters

PAGE = Path(languages.__file__).parent


def said() -> set[str]:
    """All that the page has translated, as the code and the templates have it."""
    found = {text for path in PAGE.glob("templates/*.html") for text in re.findall(r'_\("([^"]+)"\)', path.read_text())}
    for node in ast.walk(ast.parse((PAGE / "app.py").read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "words":
            found |= {str(one.value) for one in node.args if isinstance(one, ast.Constant)}
    return found


@pytest.mark.parametrize("language", [one for one in languages.known() if one != languages.ENGLISH])
def test_nothing_is_left_in_english(language: str) -> None:
    words = languages.words(language)
    assert len(said()) > 50

    assert {one for one in said() if words.gettext(one) == one} == set()
    assert words.gettext("Your OpenPGP key is set up") != "Your OpenPGP key is set up"


def test_what_cannot_be_translated_is_shown_as_it_is() -> None:
    assert languages.known() == ("en", "de", "es", "fr", "pt")
    assert languages.words("de").gettext("who knows") == "who knows"
    assert languages.words("en").gettext("Sign in") == "Sign in"


@pytest.mark.parametrize("raw", [b"", b"\xff\n\n\xff", b"Content-Type: multipart/mixed\n\n", b"Subject: a\n b\n\n[]"])
def test_any_answer_can_be_read(raw: bytes) -> None:
    assert letters.answer(raw).facts == {}


def test_no_name_puts_a_field_into_a_letter() -> None:
    made = letters.letter("a@b.example\r\nBcc: x@y", "status", "ab" * 16)
    assert b"Bcc" not in made
    with pytest.raises(ValueError, match="no word"):
        letters.letter("a@b.example", "status", "ab>\r\nBcc: x")
