"""Whether Dovecot's deliveries call the filter, as its configuration has it: keys alone encrypt nothing."""

import re
from collections.abc import Callable
from pathlib import Path

from sieve_filter.doctor import listing
from sieve_filter.doctor.listing import Processes
from sieve_filter.dovecot import doveadm
from sieve_filter.errors import UnknownUserError
from sieve_filter.keys.status import CRITICAL, OK, WARNING, Wiring

_CALL = re.compile(r'\b(?:filter|execute)\b[^;{]*"cryptomail"')
_EXECUTE = re.compile(r'\bexecute\b[^;{]*"cryptomail"')
_FILTER = re.compile(r'(?<![:.\w])filter\s+"(?!cryptomail")')
_COMMENT = re.compile(r"#[^\n]*|/\*.*?\*/", re.DOTALL)
_GUARD = "guard.sieve"


def look(configuration: str) -> Wiring:
    """What the main configuration file `configuration` makes of deliveries; OK where there is none."""
    if not configuration or not Path(configuration).exists():
        return Wiring(OK, "")
    try:
        return judge(listing.read(doveadm.settings_of("lmtp", configuration, listing.SETTINGS)), read_script)
    except UnknownUserError as error:
        return Wiring(WARNING, f"it cannot be told whether deliveries call the filter: {error}")


def judge(told: Processes, read: Callable[[str], str | None]) -> Wiring:
    """What processes that are told so make of deliveries. `read` gives a script's text, None where there is none."""
    if "sieve" not in told.plugins:
        return Wiring(CRITICAL, "nothing calls the filter: the plugin sieve is not in mail_plugins for LMTP")
    texts = {script: read(script) for _, script in told.before}
    calling = [script for script, text in texts.items() if calls(text)]
    missing = [script for script, text in texts.items() if text is None]
    if not calling and missing:
        return Wiring(CRITICAL, f"nothing calls the filter: there is no {', no '.join(missing)}: run make install")
    guards = [script for script, text in texts.items() if is_guard(script, text)]
    if not calling and guards:
        return Wiring(
            CRITICAL, f"all mail waits: {guards[0]} refuses it, as no script calls the filter: turn that off too"
        )
    if not calling and "cryptomail" in told.values.get("sieve_filter_bin_dir", ""):
        return Wiring(
            WARNING, "no global script calls the filter: only mail of owners whose own script does is encrypted"
        )
    if not calling:
        return Wiring(
            CRITICAL, "nothing calls the filter: 99-cryptomail.conf is not there, or not read: run make install"
        )
    if "sieve_extprograms" not in told.sieve_plugins:
        return Wiring(CRITICAL, "nothing calls the filter: the plugin sieve_extprograms is not in sieve_plugins")
    if missing:
        return Wiring(WARNING, f"there is no {', no '.join(missing)}, which Dovecot is to run: run make install")
    if not guards:
        return Wiring(WARNING, f"if {calling[0]} vanishes, mail is stored in clear: run make install for {_GUARD}")
    return Wiring(OK, "")


def calls(text: str | None) -> bool:
    """Whether a script with that text calls the filter."""
    return text is not None and _CALL.search(_COMMENT.sub("", text)) is not None


def executes(text: str | None) -> bool:
    """Whether it calls it by `execute`, that is, hands the message to the program that seals."""
    return text is not None and _EXECUTE.search(_COMMENT.sub("", text)) is not None


def filters_otherwise(text: str | None) -> bool:
    """Whether it has another program than ours change the message."""
    return text is not None and _FILTER.search(_COMMENT.sub("", text)) is not None


def is_guard(script: str, text: str | None) -> bool:
    """Whether it is the script that refuses what another has not seen."""
    return text is not None and script.endswith(_GUARD)


def read_script(location: str) -> str | None:
    """The script at that path, or all in a directory of scripts."""
    path = Path(location)
    try:
        files = sorted(path.glob("*.sieve")) if path.is_dir() else [path]
        return "\n".join(file.read_text("utf-8", "replace") for file in files)
    except FileNotFoundError:
        return None
    except OSError:  # Dovecot may read it, though we may not
        return ""
