"""That the documents say what is: errors, options, settings, answers to owners, links, and names of files."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from sieve_filter import errors

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sieve_filter"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WARNING = "\N{EN DASH}"
ENOUGH = 6  # letters that a line must have of its own, to be known by
ANYTHING = "\N{OBJECT REPLACEMENT CHARACTER}"  # what stands for a name or a number in a text of the code
WARNS = {"warn", "_warn", "_complain"}


class Said(NamedTuple):
    """A line that the program can write: where in the code, its exit status, and what it says."""

    place: str
    status: str
    text: str


class Row(NamedTuple):
    """A row of the table of errors: its exit statuses, and the lines that it is about."""

    statuses: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]


_LINES = (ROOT / "docs" / "admin" / "errors.md").read_text().splitlines()
# The first two cells of each row.
TABLE = [line.strip("|").split(" | ")[:2] for line in _LINES if re.match("\\| [0-9\N{EN DASH}]", line)]


def texts(node: ast.expr) -> list[str]:
    """What an expression may be, with ANYTHING for what is known only when the program runs."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            pieces = [texts(part)[0] if isinstance(part, ast.Constant) else ANYTHING for part in parts]
            return ["".join(pieces)]
        case ast.IfExp(body=one, orelse=other):
            return texts(one) + texts(other)
    return [ANYTHING]


def letters(text: str) -> int:
    return len(re.findall("[A-Za-z]", text))


def said() -> Iterator[Said]:
    codes = {
        name: str(kind.code)
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.CryptomailError)
    }
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            status = WARNING if name in WARNS else codes.get(name)
            for text in texts(node.args[0]) if status is not None else ():
                if letters(text) >= ENOUGH:
                    yield Said(f"{path.relative_to(ROOT)}:{node.lineno}", status or "", text)


def rows() -> list[Row]:
    return [
        Row(
            frozenset(statuses.strip().split(", ")),
            tuple(
                re.compile(".*".join(map(re.escape, shown.split("…"))), re.DOTALL)
                for shown in re.findall("`([^`]+)`", line)
                if letters(shown) >= ENOUGH
            ),
        )
        for statuses, line in TABLE
    ]


def constants() -> str:
    """All strings of the code, one a line."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant | ast.JoinedStr):
                found += texts(node)
    return "\n".join(found)


SAID = list(said())


def test_many_errors_are_found() -> None:
    assert len(SAID) > 150
    assert {one.status for one in SAID} >= {"64", "65", "67", "69", "70", "73", "74", "75", "77", "78", WARNING}


@pytest.mark.parametrize("one", SAID, ids=lambda one: one.place)
def test_each_error_has_a_row_with_its_exit_status(one: Said) -> None:
    """What to do about it is in docs/admin/errors.md. In a row, … is what differs from case to case."""
    found = [row for row in rows() if any(pattern.search(one.text) for pattern in row.patterns)]
    assert found, f"no row of docs/admin/errors.md has this line: {one.text!r}"
    assert any(one.status in row.statuses for row in found), f"no row has it with status {one.status}: {one.text!r}"


def test_no_row_is_about_what_nothing_says_any_more() -> None:
    known = constants()
    ours = [line for _, line in TABLE if not line.startswith("Dovecot's own")]
    shown = [one for line in ours for one in re.findall("`([^`]+)`", line) if letters(one) >= ENOUGH]
    stale = [one for one in shown if max(one.split("…"), key=letters).strip() not in known]
    assert set(stale) <= {"unrecognized arguments", "invalid choice", "expected one argument"}  # argparse's


def commands() -> dict[str, set[str]]:
    """The options of each command and action, as --help has them."""
    found: dict[str, set[str]] = {}
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        command = waiting.pop()
        arguments = [sys.executable, "-m", "sieve_filter", *command, "--help"]
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, cwd=ROOT)
        found[" ".join(command)] = set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE))
        if "\n  COMMAND\n" in done.stdout or "\n  ACTION\n" in done.stdout:
            waiting += [(*command, name) for name in re.findall(r"^    ([a-z-]+)(?: |$)", done.stdout, re.MULTILINE)]
    return found


def test_the_manual_has_the_options_that_help_has() -> None:
    helped = commands()
    assert {"filter", "keys", "keys import", "sieve-script"} <= set(helped)
    text = (ROOT / "man" / "cryptomail.1").read_text().replace(r"\-", "-")
    described = text.partition(".SH OPTIONS")[2].partition(".SH EXIT STATUS")[0]
    tags = {line for tag in described.split("\n.TP\n")[1:] for line in tag.splitlines()[:1]}
    in_manual = {option for tag in tags for option in re.findall(r"--[a-z]+(?:-[a-z]+)*", tag)}
    assert in_manual == {option for options in helped.values() for option in options} - {"--help", "--version"}
    for command in helped:
        assert all(word in text for word in command.split()), command


def test_the_manual_has_the_settings_and_defaults_of_the_example() -> None:
    """That the example has those of the program is in test_config."""
    example = [line.removeprefix("# ") for line in (ROOT / "config.toml.example").read_text().splitlines()]
    shown = {line.replace(" = ", "=") for line in example if re.match(r"[a-z_]+ = \S", line)}
    manual = (ROOT / "man" / "cryptomail.toml.5").read_text().replace(r"\(dq", '"').replace(r"\-", "-")
    described = {f"{name}={value}" for name, value in re.findall(r'^\.BR ([a-z_]+) " = (.+)"$', manual, re.MULTILINE)}
    assert len(shown) > 10
    assert described == shown


def test_owners_can_look_up_each_answer_and_notice() -> None:
    documents = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "owner").glob("*.md")))
    subjects = [
        text.rstrip(ANYTHING)
        for path in PACKAGE.rglob("notice*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Words"
        for text in texts(node.args[0])
    ]
    assert len(subjects) > 10
    assert [subject for subject in subjects if subject not in documents] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def anchors(document: Path) -> set[str]:
    """The names that sections get in links, on GitHub and in the site."""
    headings = re.findall("^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match("[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = document.parent / name if name else document
        assert there.exists(), f"there is no {target}"
        assert not anchor or anchor in anchors(there), f"there is no section {target}"


def test_no_document_and_no_comment_names_a_file_that_is_not_there() -> None:
    folders = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in {"build"}))
    in_documents = re.compile(rf"`((?:{folders})/[^`\s:]*)`")
    in_files = re.compile(r"(?<![\w./])docs/[\w./-]+\.(?:md|svg)")
    files = [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "dovecot" / "what-next", *(ROOT / "sieve").rglob("*.sieve")]
    files += [
        path for folder in ("sieve_filter", "tests", "benchmarks", "lab") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    named = [(path, name) for path in DOCUMENTS for name in in_documents.findall(path.read_text())]
    named += [(path, name) for path in files if path.is_file() for name in in_files.findall(path.read_text())]
    assert len(named) > 10
    assert [(str(path), name) for path, name in named if not list(ROOT.glob(name.rstrip("/")))] == []


def test_packages_and_modules_on_a_message_s_way_exist() -> None:
    text = (ROOT / "docs" / "developer" / "architecture.md").read_text()
    way = text.partition("## A message's way")[2].partition("## Beside")[0]
    packages, modules = set(re.findall(r"\*([a-z]+)\*", way)), set(re.findall("`([a-z_]+)`", way))
    assert packages <= {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules <= {path.stem for path in PACKAGE.rglob("*.py")}
    assert len(packages) > 5
    assert len(modules) > 10


def test_each_sieve_script_is_in_a_document() -> None:
    owner, policy = (ROOT / "docs" / name for name in ("owner/own-script.md", "admin/policy.md"))
    ours = {path.name for path in (ROOT / "sieve").glob("before*.sieve")}
    assert {name for name in ours if f"`{name}`" not in policy.read_text()} == set()
    theirs = {path.name for path in (ROOT / "sieve" / "user").glob("*.sieve")}
    assert {name for name in theirs if f"`{name}`" not in owner.read_text()} == set()
