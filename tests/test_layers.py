"""The order of the modules: data flows one way, and what is pure stays so."""

import ast
from pathlib import Path

import sieve_filter

PACKAGE = Path(sieve_filter.__file__).parent

# Each module may import those above it, and none below.
PURE = [
    *("errors", "limits", "randomness", "message", "cms", "mime", "armor", "packets", "structure", "shape", "skim"),
    *("hcp", "pgpmime", "incoming", "wkd", "owner", "listing", "certificate", "keybox", "recipients"),
    *("decision", "keyreport"),
    *("unwrap", "secretkey", "imap", "keymail", "notice", "sievescript", "published", "transfer"),
]
ORDER = [
    *PURE,
    *(
        "descriptors",
        "program",
        "gpg",
        "keystore",
        "keyring",
        "config",
        "register",
        "delivery",
        "sequoia",
        "engine",
        "spool",
        "keydata",
        "timelimit",
        "job",
        "options",
        "lmtp",
        "execmode",
        "scriptprotocol",
        "master",
        "worker",
        "supervisor",
        "workers",
        "extprogram",
        "decryption",
        "report",
        *("doveadm", "wiring", "homes", "places", "parallel", "quarantine", "enrol", "survey"),
        *("https", "dnskeys", "lookup", "refresh"),
        *("sendmail", "post", "enrolment", "imapprogram", "reminder", "sweep", "keycommand", "fetchcommand"),
        *("managesieve", "scriptcommand"),
        "cli",
        "__main__",
    ),
]
IMPURE = {"os", "pathlib", "subprocess", "socket", "sys", "signal", "tempfile", "threading"}


def imports(module: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "sieve_filter":
            found |= {f"sieve_filter.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_every_module_has_its_place() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_each_module_imports_only_those_above_it() -> None:
    for place, module in enumerate(ORDER):
        ours = {name.removeprefix("sieve_filter.") for name in imports(module) if name.startswith("sieve_filter.")}
        assert ours - {"__version__"} <= set(ORDER[:place]), module


def test_message_code_knows_nothing_of_files_environment_or_processes() -> None:
    for module in PURE:
        allowed = {"os"} if module == "errors" else set()  # for the exit codes
        assert not (imports(module) & IMPURE) - allowed, module


def test_each_program_is_started_by_one_module() -> None:
    starters = {"subprocess", "sieve_filter.system.process"}
    assert [module for module in ORDER if imports(module) & starters] == ["gpg", "doveadm", "sendmail"]
