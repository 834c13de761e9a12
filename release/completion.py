"""Completion of command lines, for bash (and zsh, by its bashcompinit) and fish, after what --help says."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Behind these options comes the name of a file or directory.
_FILES = ("FILE", "PATH", "DIRECTORY", "DIR", "HOME")
Words = Mapping[tuple[str, ...], Sequence[str]]

_BASH = """\
# Completes command lines of cryptomail.

_cryptomail() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} command words
    case $COMP_CWORD in
        1) command= ;;
        2) command=${COMP_WORDS[1]} ;;
        *) command="${COMP_WORDS[1]} ${COMP_WORDS[2]}" ;;
    esac
    case "$command " in
%(cases)s
        *) words='%(first)s' ;;
    esac
    COMPREPLY=()
    case $before in
        %(files)s) compopt -o filenames 2> /dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    if [ ${#COMPREPLY[@]} = 0 ]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -F _cryptomail cryptomail
"""


def helped(source: Path) -> tuple[dict[tuple[str, ...], list[str]], set[str]]:
    """The words that may follow each command, and the options that want a file's name; the program is in `source`."""
    found: dict[tuple[str, ...], list[str]] = {}
    files: set[str] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        command = waiting.pop(0)
        arguments = [sys.executable, "-m", "sieve_filter", *command, "--help"]
        said = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=source).stdout
        options = re.findall(r"^  (?:-\w, )?(--[a-z-]+)(?: ([A-Z|]+))?", said, re.MULTILINE)
        files |= {option for option, value in options if value in _FILES}
        below = []
        if re.search(r"^  (COMMAND|ACTION)$", said, re.MULTILINE):
            below = re.findall(r"^    ([a-z-]+)(?: |$)", said, re.MULTILINE)
        found[command] = [*below, *(option for option, _ in options)]
        waiting += [(*command, one) for one in below]
    return found, files


def bash(words: Words, files: set[str]) -> str:
    # What names more comes first.
    named = sorted(filter(None, words), key=len, reverse=True)
    cases = [f"        '{' '.join(one)} '*) words='{' '.join(words[one])}' ;;" for one in named]
    return _BASH % {"cases": "\n".join(cases), "first": " ".join(words[()]), "files": " | ".join(sorted(files))}


def fish(words: Words, files: set[str]) -> str:
    lines = ["# Completes command lines of cryptomail."]
    names = {command[0] for command in words if command}
    lines.append(f"set -l cryptomail_commands {' '.join(sorted(names))}")
    for command, following in words.items():
        if not command:
            condition = "not __fish_seen_subcommand_from $cryptomail_commands"
        else:
            condition = "; and ".join(f"__fish_seen_subcommand_from {one}" for one in command)
        for word in following:
            if word.startswith("--"):
                more = " -r -F" if word in files else ""
                lines.append(f'complete -c cryptomail -n "{condition}" -l {word[2:]}{more}')
            else:
                lines.append(f'complete -c cryptomail -n "{condition}" -f -a {word}')
    return "\n".join(lines) + "\n"


def write(source: Path, directory: Path) -> None:
    words, files = helped(source)
    directory.mkdir()
    (directory / "cryptomail").write_text(bash(words, files))
    (directory / "cryptomail.fish").write_text(fish(words, files))
