"""The configuration file: what it may say, and how it is told that it says something else."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sieve_filter.errors import ConfigError
from sieve_filter.policy.config_file import load, parse
from sieve_filter.policy.settings import Settings

EXAMPLE = Path(__file__).parents[2] / "config.toml.example"


def test_every_setting_is_read() -> None:
    settings = parse(
        'header_policy = "shy"\nengine = "gnupg"\ncompression = "zlib"\n'
        'smime_cipher = "aes-256-gcm"\nsmime_padding = "oaep"\n'
        'recipient_delimiter = ""\nsize_limit = 1\ntime_limit = 2\nremoval_delay = 3\n'
        'owners_may = ["no_key"]\n'
        'not_owners = ["nobody", "sys-*"]\n'
        'saved_folders = ["Sent", "Archiv/Gelöscht"]\n'
        '[keyrings]\nowner = ["/keys/%d/%n"]\nshared = []\nminimum_bits = 3072\n'
        'certificates = ["/smime/%u.pem"]\nprefer = "smime"\n'
        '[on]\nno_key = "refuse"\nunusable_key = "store-plain"\nexpired_key = "refuse"\n'
        'too_large = "store-plain"\n'
        '[aliases]\n"a@b" = ["c@d", "e@f"]\n'
        '[domain."Example.org"]\nno_key = "store-plain"\n'
    )
    assert settings._asdict() == {
        "header_policy": "shy",
        "engine": "gnupg",
        "compression": "zlib",
        "recipient_delimiter": "",
        "size_limit": 1,
        "time_limit": 2,
        "removal_delay": 3,
        "smime_cipher": "aes-256-gcm",
        "smime_padding": "oaep",
        "keyrings": (("/keys/%d/%n",), (), 3072, ("/smime/%u.pem",), "smime"),
        "no_key": "refuse",
        "unusable_key": "store-plain",
        "expired_key": "refuse",
        "too_large": "store-plain",
        "not_owners": ("nobody", "sys-*"),
        "saved_folders": ("Sent", "Archiv/Gelöscht"),
        "aliases": {"a@b": ("c@d", "e@f")},
        "owners_may": ("no_key",),
        "domains": {"example.org": {"no_key": "store-plain"}},
        "given": settings.given,
        "register": "",  # not of the file
    }
    assert {"header_policy", "no_key", "removal_delay"} <= settings.given < settings._asdict().keys()


def test_example_file_says_nothing_and_shows_the_defaults() -> None:
    text = EXAMPLE.read_text()
    assert parse(text) == Settings()
    shown = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and " = " in line]
    shown += [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# [")]
    assert len(shown) > 10
    lines = [line.removeprefix("# ") for line in text.splitlines() if line.removeprefix("# ") in shown]
    assert parse("\n".join(lines))._replace(aliases={}, domains={}, given=frozenset()) == Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("\n\nheader_polcy = 'shy'", "line 3: there is no such setting: header_polcy"),
        ("[on]\n\nno_keys = 'pass'", "line 3: there is no such setting: on.no_keys"),
        ("[on]\nno_key = 'maybe'", 'line 2: on.no_key must be one of "store-plain", "refuse"'),
        ("[on]\nno_key = true", 'line 2: on.no_key must be one of "store-plain", "refuse"'),
        ("size_limit = '1'", "line 1: size_limit must be a whole number"),
        ("size_limit = true", "line 1: size_limit must be a whole number"),
        ("size_limit = -1", "line 1: size_limit must be a whole number"),
        ("time_limit = 0", "line 1: time_limit must be a whole number"),
        ("header_policy = 'loud'", "line 1: header_policy must be one of"),
        ("header_policy = ['shy']", "line 1: header_policy must be one of"),
        ("recipient_delimiter = '+-'", "line 1: recipient_delimiter must be one character"),
        ("[keyrings]\nowner = '%h/keys'", "line 2: keyrings.owner must be a list of GnuPG homes"),
        ("[keyrings]\nowner = ['keys']", "line 2: keyrings.owner must be"),
        ("[keyrings]\nowner = ['/keys/%x']", "line 2: keyrings.owner must be"),
        ("[aliases]\nalice = 'a@b'", "line 2: the aliases of alice must be a list of addresses"),
        ("# comment\n[aliases]\n'a.b' = ['nonsense']", "line 3: the aliases of a.b must be a list of addresses"),
        ("[domain]\n'a.b' = 1", "line 2: 'a.b' must be a table of settings"),
        ("\n[domain.'a.b']\nengine = 'gnupg'", "for the domain 'a.b', there is no such setting: 'engine'"),
        ("[domain.'a.b']\nno_key = 1", "for the domain 'a.b', no_key must be one of"),
        ("owners_may = ['engine']", "line 1: owners_may must be a list of"),
        ("on = 1", "line 1: on must be a table"),
        ("[mail]\nx = 1", "line 1: there is no such setting: mail"),
        ("a = ", "not TOML"),
    ],
)
def test_wrong_setting_is_named_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_missing_file_is_told_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").touch()
    assert load(str(tmp_path / "config.toml")) == Settings()


def test_file_of_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("size_limit = 1\n")
    file.chmod(0o644)
    assert load(str(file), frozenset({os.getuid()})).size_limit == 1
    with pytest.raises(ConfigError, match="is not trusted"):
        load(str(file), frozenset({os.getuid() + 1}))
    file.chmod(0o666)
    with pytest.raises(ConfigError, match="is not trusted"):
        load(str(file), frozenset({os.getuid()}))


def test_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="too long"):
        load("/dev/zero")


@pytest.mark.parametrize(
    "name", ["", "*", 'a"b', "a\\nb", "a\nb", "100%", "$x", " a", "Drafts", "x/Templates", "INBOX.outbox", "a\\b"]
)
def test_a_folder_that_dovecot_would_read_otherwise_or_that_has_drafts_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="saved_folders must be a list of folder names"):
        parse(f"saved_folders = [{json.dumps(name)}]")
