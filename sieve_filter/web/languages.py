"""The words of the page in the owner's language, from the files of gettext in `languages`."""

import ast
import gettext
import re
from functools import cache
from importlib import resources

ENGLISH = "en"
_ENTRY = re.compile(r'^(msgid|msgstr) ((?:".*"\n?)+)', re.MULTILINE)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


class _Words(gettext.NullTranslations):
    """The words of one language, as they are in a .po file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._said: dict[str, str] = {}
        original = ""
        for kind, strings in _ENTRY.findall(text):
            value = "".join(ast.literal_eval(one) for one in _STRING.findall(strings))
            if kind == "msgid":
                original = value
            elif original and value:
                self._said[original] = value

    def gettext(self, message: str) -> str:
        return self._said.get(message, message)


@cache
def known() -> tuple[str, ...]:
    """The languages that there are, English first."""
    files = resources.files("sieve_filter.web").joinpath("languages").iterdir()
    return (ENGLISH, *sorted(file.name.removesuffix(".po") for file in files if file.name.endswith(".po")))


@cache
def words(language: str) -> gettext.NullTranslations:
    """The words of that language, which is one of `known`."""
    if language == ENGLISH:
        return gettext.NullTranslations()
    file = resources.files("sieve_filter.web").joinpath("languages", f"{language}.po")
    return _Words(file.read_text("utf-8"))
