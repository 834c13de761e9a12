"""Prints Dovecot's snippet for cryptomail, its @PLACEHOLDERS@ filled in; `make install` runs it.

In: Dovecot's version (2.3 or 2.4) and main configuration file; the directories of programs, scripts and temporary
files; Dovecot's base_dir, and the directory of our sockets; whether to seal (yes or no); the mail user, empty where
each mailbox belongs to a system user of its own: a worker runs as root then, and becomes whoever asks. Out: the text.
"""

import argparse
import os
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


def with_extension(extensions: str, name: str) -> str:
    """The list of extensions with that one in it.

    A list of bare names is the whole list; one with + and - changes the default. A + in the former would turn it into
    the latter, and give users back what the administrator took away.
    """
    words = extensions.split()
    if name in words or f"+{name}" in words:
        return extensions
    whole_list = bool(words) and not any(word.startswith(("+", "-")) for word in words)
    return " ".join([*words, name if whole_list else f"+{name}"])


def before_scripts(settings: dict[str, str], ours: str) -> list[str]:
    """The administrator's own scripts: Dovecot reads sieve_before, sieve_before2, ... and stops at a gap."""
    found: list[str] = []
    while script := settings.get(before_name(len(found))):
        found.append(script)
    return [script for script in found if not script.startswith(ours)]


def before_name(place: int) -> str:
    return f"sieve_before{place + 1 if place else ''}"


def values_23(settings: dict[str, str], scripts: str, script: str) -> dict[str, str]:
    """What 2.3 needs to be told because it cannot add to a list."""
    theirs = before_scripts(settings, scripts)
    options = [f"-o plugin/{before_name(place)}={value}" for place, value in enumerate([*theirs, ""])]
    return {
        "SIEVE_PLUGINS": with_plugin(settings.get("sieve_plugins", "")),
        "SIEVE_EXTENSIONS": with_extension(settings.get("sieve_extensions", ""), "vnd.dovecot.filter"),
        "SIEVE_GLOBAL_EXTENSIONS": with_extension(settings.get("sieve_global_extensions", ""), "vnd.dovecot.execute"),
        "SIEVE_BEFORE": "\n".join(f"  {before_name(place)} = {one}" for place, one in enumerate([script, *theirs])),
        "WITHOUT_OUR_SCRIPT": " ".join(options),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", choices=("2.3", "2.4"))
    for name in ("configuration", "programs", "scripts", "temp_dir", "base_dir", "sockets", "sealing", "mail_user"):
        parser.add_argument(name)
    arguments = parser.parse_args()

    sealing = arguments.sealing == "yes"
    script = f"{arguments.scripts}/{'before' if sealing else 'before-without-sealing'}.sieve"
    values = {
        "FILTER_BIN_DIR": f"{arguments.programs}/filter-bin",
        "EXECUTE_BIN_DIR": f"{arguments.programs}/execute-bin",
        "SCRIPT": script,
        "TEMP_DIR": arguments.temp_dir,
        "SOCKETS": arguments.sockets,
        "SOCKETS_FROM_BASE_DIR": os.path.relpath(arguments.sockets, os.path.realpath(arguments.base_dir)),
        "WORKER": f"{arguments.programs}/worker",
        "SERVICE_USER": arguments.mail_user or "root",
        "WORKER_SOCKET_MODE": "0600" if arguments.mail_user else "0666",
    }
    if arguments.version == "2.3":
        values |= values_23(plugin_settings(Path(arguments.configuration)), arguments.scripts, script)
    directory = SNIPPETS / arguments.version
    template = (directory / "99-cryptomail.conf").read_text()
    names = ("sealing.conf", "worker.conf") if sealing else ("worker.conf",)
    template += "".join((directory / name).read_text() for name in names)
    sys.stdout.write(re.sub(r"@(\w+)@", lambda match: values[match[1]], template))


if __name__ == "__main__":
    main()
