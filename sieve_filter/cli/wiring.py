"""Whether Dovecot's deliveries call the filter, as its configuration has it: keys alone encrypt nothing."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sieve_filter.dovecot import doveadm
from sieve_filter.errors import UnknownUserError
from sieve_filter.keys.status import CRITICAL, OK, WARNING, Wiring

_CALL = re.compile(r'\b(?:filter|execute)\b[^;{]*"cryptomail"')
_COMMENT = re.compile(r"#[^\n]*|/\*.*?\*/", re.DOTALL)
_PLUGIN_SETTING = re.compile(r"^  (sieve\w*) = (.*)$", re.MULTILINE)  # 2.3
_BLOCK = re.compile(r"^(\S+)(?: (\S+))? \{\n((?:  .*\n)*)\}", re.MULTILINE)  # 2.4
_FIELD = re.compile(r"^  (\S+) = (.*)$", re.MULTILINE)
_GUARD = "guard.sieve"
# Of both versions: each passes over the other one's without a word.
_SETTINGS = ("mail_plugins", "plugin", "sieve_script", "sieve_plugins", "sieve_filter_bin_dir")


class _Deliveries(NamedTuple):
    """What Dovecot's LMTP processes are told: plugins, scripts to run before an owner's own, where programs are."""

    plugins: frozenset[str]
    sieve_plugins: frozenset[str]
    scripts: tuple[str, ...]
    programs: str


def look(configuration: str) -> Wiring:
    """What the main configuration file `configuration` makes of deliveries; OK where there is none."""
    if not configuration or not Path(configuration).exists():
        return Wiring(OK, "")
    try:
        return judge(doveadm.settings_of("lmtp", configuration, _SETTINGS), _read)
    except UnknownUserError as error:
        return Wiring(WARNING, f"it cannot be told whether deliveries call the filter: {error}")


def judge(listing: str, read: Callable[[str], str | None]) -> Wiring:
    """What doveconf's `listing` makes of deliveries. `read` gives a script's text, or None where there is none."""
    told = _parse(listing)
    if "sieve" not in told.plugins:
        return Wiring(CRITICAL, "nothing calls the filter: the plugin sieve is not in mail_plugins for LMTP")
    texts = {script: read(script) for script in told.scripts}
    calls = [script for script, text in texts.items() if text is not None and _CALL.search(_COMMENT.sub("", text))]
    missing = [script for script, text in texts.items() if text is None]
    if not calls and missing:
        return Wiring(CRITICAL, f"nothing calls the filter: there is no {', no '.join(missing)}: run make install")
    guards = [script for script, text in texts.items() if script.endswith(_GUARD) and text is not None]
    if not calls and guards:
        return Wiring(
            CRITICAL, f"all mail waits: {guards[0]} refuses it, as no script calls the filter: turn that off too"
        )
    if not calls and "cryptomail" in told.programs:
        return Wiring(
            WARNING, "no global script calls the filter: only mail of owners whose own script does is encrypted"
        )
    if not calls:
        return Wiring(
            CRITICAL, "nothing calls the filter: 99-cryptomail.conf is not there, or not read: run make install"
        )
    if "sieve_extprograms" not in told.sieve_plugins:
        return Wiring(CRITICAL, "nothing calls the filter: the plugin sieve_extprograms is not in sieve_plugins")
    if missing:
        return Wiring(WARNING, f"there is no {', no '.join(missing)}, which Dovecot is to run: run make install")
    if not guards:
        return Wiring(WARNING, f"if {calls[0]} vanishes, mail is stored in clear: run make install for {_GUARD}")
    return Wiring(OK, "")


def _parse(listing: str) -> _Deliveries:
    blocks = [(kind, name, dict(_FIELD.findall(body))) for kind, name, body in _BLOCK.findall(listing)]
    plugins = re.search(r"^mail_plugins = (.*)$", listing, re.MULTILINE)
    if plugins is not None:  # 2.3
        settings = dict(_PLUGIN_SETTING.findall(listing))
        return _Deliveries(
            frozenset(plugins[1].split()),
            frozenset(settings.get("sieve_plugins", "").split()),
            tuple(_before_23(settings)),
            settings.get("sieve_filter_bin_dir", ""),
        )
    on = {kind: frozenset(name for name, value in fields.items() if value == "yes") for kind, _, fields in blocks}
    before = [fields for kind, _, fields in blocks if kind == "sieve_script" and fields.get("type") == "before"]
    programs = re.search(r"^sieve_filter_bin_dir = (.*)$", listing, re.MULTILINE)
    return _Deliveries(
        on.get("mail_plugins", frozenset()),
        on.get("sieve_plugins", frozenset()),
        tuple(path for fields in before if (path := fields.get("path"))),
        programs[1] if programs else "",
    )


def _before_23(settings: dict[str, str]) -> Iterator[str]:
    """sieve_before, sieve_before2, ... up to the first gap."""
    number = 1
    while location := settings.get(f"sieve_before{number if number > 1 else ''}"):
        yield location.removeprefix("file:").partition(";")[0]
        number += 1


def _read(location: str) -> str | None:
    """The script at that path, or all in a directory of scripts."""
    path = Path(location)
    try:
        files = sorted(path.glob("*.sieve")) if path.is_dir() else [path]
        return "\n".join(file.read_text("utf-8", "replace") for file in files)
    except FileNotFoundError:
        return None
    except OSError:  # Dovecot may read it, though we may not
        return ""
