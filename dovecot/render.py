"""Prints Dovecot's snippet for cryptomail, its @PLACEHOLDERS@ filled in; `make install` runs it.

In: Dovecot's version (2.3 or 2.4), the main configuration file, the filter's directory and the script. Out: the text.
"""

import re
import subprocess
import sys
from pathlib import Path

SNIPPETS = Path(__file__).parent / "conf.d"


def plugin_settings(configuration: Path) -> dict[str, str]:
    """The settings that Dovecot 2.3 finds in `plugin { }`; none when there is no such configuration yet."""
    if not configuration.exists():
        return {}
    listing = subprocess.run(
        ["doveconf", "-c", configuration, "plugin"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return dict(re.findall(r"^  (\S+) = (.*)$", listing, re.MULTILINE))


def with_plugin(plugins: str) -> str:
    return plugins if "sieve_extprograms" in plugins.split() else f"{plugins} sieve_extprograms".strip()


def with_filter(extensions: str) -> str:
    """The list of extensions with the filter in it.

    A list of bare names is the whole list; one with + and - changes the default. A + in the former would turn it into
    the latter, and give users back what the administrator took away.
    """
    words = extensions.split()
    name = "vnd.dovecot.filter"
    if name in words or f"+{name}" in words:
        return extensions
    whole_list = bool(words) and not any(word.startswith(("+", "-")) for word in words)
    return " ".join([*words, name if whole_list else f"+{name}"])


def first_free_before(settings: dict[str, str], script: str) -> str:
    """The setting that may hold our script: Dovecot reads sieve_before, sieve_before2, ... and stops at a gap."""
    number = 1
    while settings.get(name := f"sieve_before{number if number > 1 else ''}", script) != script:
        number += 1
    return name


def render(version: str, configuration: Path, bin_dir: str, script: str) -> str:
    values = {"FILTER_BIN_DIR": bin_dir, "SCRIPT": script}
    if version == "2.3":
        settings = plugin_settings(configuration)
        values["SIEVE_PLUGINS"] = with_plugin(settings.get("sieve_plugins", ""))
        values["SIEVE_EXTENSIONS"] = with_filter(settings.get("sieve_extensions", ""))
        values["SIEVE_BEFORE"] = first_free_before(settings, script)
    template = (SNIPPETS / version / "99-cryptomail.conf").read_text()
    return re.sub(r"@(\w+)@", lambda match: values[match[1]], template)


if __name__ == "__main__":
    version, configuration, bin_dir, script = sys.argv[1:]
    sys.stdout.write(render(version, Path(configuration), bin_dir, script))
