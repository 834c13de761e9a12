"""Prints Dovecot's snippet for cryptomail, its @PLACEHOLDERS@ filled in; `make install` runs it.

Its arguments: Dovecot's version (2.3 or 2.4) and main configuration file; the directories of programs and scripts, the
script that checks that ours ran, the directory of temporary files; Dovecot's base_dir, and the directory of our
sockets; whether to seal (yes or no); the mail user, empty where each mailbox belongs to a system user of its own: a
worker runs as root then, and becomes whoever asks; the folder in which owners save their keys, empty where they cannot;
and our settings, which name the folders in which what owners save is encrypted.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from itertools import count
from pathlib import Path

SNIPPETS = Path(__file__).parent / "conf.d"


def plugin_settings(configuration: Path, *scope: str) -> dict[str, str]:
    """The settings that Dovecot 2.3 finds in `plugin { }`; none when there is no such configuration yet.

    `scope` are options of doveconf that say for which of its processes.
    """
    if not configuration.exists():
        return {}
    listing = subprocess.run(
        ["doveconf", "-c", configuration, *scope, "plugin"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return dict(re.findall(r"^  (\S+) = (.*)$", listing, re.MULTILINE))


def inbox_namespace(configuration: Path) -> tuple[str, str]:
    """The name of the namespace that has the inbox in it, and its prefix; each may be empty."""
    if not configuration.exists():
        return "", ""
    listing = subprocess.run(
        ["doveconf", "-c", configuration, "namespace"], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    for namespace in re.split(r"^namespace ", listing, flags=re.MULTILINE):
        if re.search(r"^  inbox = yes$", namespace, re.MULTILINE):
            name = re.match(r"([^\s{]+) \{", namespace)
            prefix = re.search(r"^  prefix = (.+)$", namespace, re.MULTILINE)
            return name[1] if name else "", prefix[1] if prefix else ""
    return "", ""


def with_plugin(plugins: str, name: str) -> str:
    return plugins if name in plugins.split() else f"{plugins} {name}".strip()


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


def before_scripts(settings: dict[str, str], ours: Sequence[str]) -> list[str]:
    """The administrator's own scripts: Dovecot reads sieve_before, sieve_before2, ... and stops at a gap."""
    found: list[str] = []
    while script := settings.get(before_name(len(found))):
        found.append(script)
    return [script for script in found if not script.startswith(tuple(ours))]


def before_name(place: int) -> str:
    return f"sieve_before{place + 1 if place else ''}"


def imapsieve_numbers(settings: dict[str, str], ours: Collection[str]) -> Iterator[int]:
    """The numbers for our IMAPSieve mailboxes: those that they have, and those behind the administrator's.

    Dovecot reads imapsieve_mailbox1_name, imapsieve_mailbox2_name, ... and stops at a gap.
    """
    for number in count(1):
        name = f"imapsieve_mailbox{number}"
        if f"{name}_name" not in settings or settings.get(f"{name}_before", "").removeprefix("file:") in ours:
            yield number


def saved_folders_23(folders: Sequence[str], prefix: str, numbers: Iterator[int], script: str) -> str:
    """What 2.3 is told of each folder in which what owners save is encrypted."""
    lines = []
    for folder, number in zip(folders, numbers, strict=False):
        name = f"    imapsieve_mailbox{number}"
        lines += [f'{name}_name = "{prefix}{folder}"', f"{name}_causes = APPEND COPY", f"{name}_before = file:{script}"]
    return "\n".join(lines)


def saved_folders_24(folders: Sequence[str], script: str) -> str:
    """The same for 2.4."""
    return "\n".join(
        f'  mailbox "{folder}" {{\n    sieve_script cryptomail-saved {{\n      type = before\n'
        f"      cause = append copy\n      path = {script}\n    }}\n  }}"
        for folder in folders
    )


def saved_folders(settings: str) -> tuple[str, ...]:
    """The folders in which what owners save is encrypted, by the program's own reading of its settings."""
    sys.path.insert(0, str(SNIPPETS.parents[1]))
    from sieve_filter.errors import ConfigError
    from sieve_filter.policy import config_file

    try:
        return config_file.load(settings).saved_folders
    except FileNotFoundError:
        return ()
    except ConfigError as error:
        sys.exit(f"make install: {error}")


def values_23(
    settings: dict[str, str], imap: dict[str, str], scripts: str, script: str, guard: str, numbers: Iterator[int]
) -> dict[str, str]:
    """What 2.3 needs to be told because it cannot add to a list. `imap` are the settings of IMAP processes."""
    theirs = before_scripts(settings, (scripts, guard))
    plugins = with_plugin(settings.get("sieve_plugins", ""), "sieve_extprograms")
    imap_plugins = with_plugin(imap.get("sieve_plugins", ""), "sieve_extprograms")
    before = enumerate([script, guard, *theirs])
    options = [f"-o plugin/{before_name(place)}={value}" for place, value in enumerate([*theirs, ""])]
    return {
        "SIEVE_PLUGINS": plugins,
        "IMAP_SIEVE_PLUGINS": with_plugin(imap_plugins, "sieve_imapsieve"),
        "NUMBER": str(next(numbers)),
        "SIEVE_EXTENSIONS": with_extension(settings.get("sieve_extensions", ""), "vnd.dovecot.filter"),
        "IMAP_GLOBAL_EXTENSIONS": with_extension(imap.get("sieve_global_extensions", ""), "vnd.dovecot.execute"),
        "SIEVE_GLOBAL_EXTENSIONS": with_extension(settings.get("sieve_global_extensions", ""), "vnd.dovecot.execute"),
        "SIEVE_BEFORE": "\n".join(f"  {before_name(place)} = {one}" for place, one in before),
        "WITHOUT_OUR_SCRIPT": " ".join(options),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", choices=("2.3", "2.4"))
    for name in (
        "configuration",
        "programs",
        "scripts",
        "guard",
        "temp_dir",
        "base_dir",
        "sockets",
        "sealing",
        "mail_user",
    ):
        parser.add_argument(name)
    parser.add_argument("key_folder", nargs="?", default="")
    parser.add_argument("settings", nargs="?", default="")
    arguments = parser.parse_args()

    sealing = arguments.sealing == "yes"
    script = f"{arguments.scripts}/{'before' if sealing else 'before-without-sealing'}.sieve"
    values = {
        "FILTER_BIN_DIR": f"{arguments.programs}/filter-bin",
        "EXECUTE_BIN_DIR": f"{arguments.programs}/execute-bin",
        "IMAP_BIN_DIR": f"{arguments.programs}/imap-bin",
        "SCRIPT": script,
        "GUARD": arguments.guard,
        "SAVED_BIN_DIR": f"{arguments.programs}/saved-bin",
        "ENROLMENT_SCRIPT": f"{arguments.scripts}/enroll.sieve",
        "KEY_FOLDER": arguments.key_folder,
        "TEMP_DIR": arguments.temp_dir,
        "SOCKETS": arguments.sockets,
        "SOCKETS_FROM_BASE_DIR": os.path.relpath(arguments.sockets, os.path.realpath(arguments.base_dir)),
        "WORKER": f"{arguments.programs}/worker",
        "SERVICE_USER": arguments.mail_user or "root",
        "WORKER_SOCKET_MODE": "0600" if arguments.mail_user else "0666",
    }
    configuration = Path(arguments.configuration)
    values["NAMESPACE"], prefix = inbox_namespace(configuration)
    folders, saved = saved_folders(arguments.settings), f"{arguments.scripts}/saved.sieve"
    values["SAVED_FOLDERS"] = saved_folders_24(folders, saved)
    if arguments.version == "2.3":
        everywhere, imap = plugin_settings(configuration), plugin_settings(configuration, "-f", "protocol=imap")
        numbers = imapsieve_numbers(imap, (values["ENROLMENT_SCRIPT"], saved))
        values |= values_23(everywhere, imap, arguments.scripts, script, arguments.guard, numbers)
        values["PREFIX"] = prefix  # 2.4 adds it by itself
        values["SAVED_FOLDERS"] = saved_folders_23(folders, prefix, numbers, saved)
    directory = SNIPPETS / arguments.version
    template = (directory / "99-cryptomail.conf").read_text()
    names = ["sealing.conf", "worker.conf"] if sealing else ["worker.conf"]
    if arguments.key_folder:
        # Without a name, it cannot be added to: a second one with the same prefix is an error.
        names += ["enrolment.conf", "folder.conf"] if values["NAMESPACE"] else ["enrolment.conf"]
    names += ["saved.conf"] if folders else []
    template += "".join((directory / name).read_text() for name in names)
    sys.stdout.write(re.sub(r"@(\w+)@", lambda match: values[match[1]], template))


if __name__ == "__main__":
    main()
