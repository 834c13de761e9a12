"""That the documents say what is: errors, options, settings, answers to owners, links, and names of files."""

import ast
import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import errors as table
from sieve_filter.mail.header_policy import POLICIES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sieve_filter"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_table_of_errors_is_what_the_code_says() -> None:
    """If this fails: `make errors` says what docs/admin/errors.in lacks, or writes docs/admin/errors.md anew."""
    assert table.written(table.SOURCE.read_text(), table.said(), table.constants()) == table.TABLE.read_text()


def test_many_errors_are_found() -> None:
    found = table.said()
    assert len(found) > 150
    assert {error.status for error in found} >= {
        "64",
        "65",
        "67",
        "69",
        "70",
        "73",
        "74",
        "75",
        "77",
        "78",
        "\N{EN DASH}",
    }


KNOWN = table.Said("gpg/runner", "75", "gpg could not encrypt: \N{HORIZONTAL ELLIPSIS}")


def test_a_row_gets_status_and_lines_from_the_code() -> None:
    assert table.written("| | `could not encrypt` | Look. |", [KNOWN], "") == (
        "| 75 | `gpg could not encrypt: \N{HORIZONTAL ELLIPSIS}` | Look. |\n"
    )


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("| | `could not decrypt` | Look. |", "gpg/runner: no row for 75 gpg could not encrypt"),
        ("| 65 | `could not encrypt` | Look. |", "gpg/runner: no row for 75 gpg could not encrypt"),
        ("| | `could not` | Look. |\n| | `encrypt: ` | Look. |", "gpg/runner: two rows for 75 gpg could not encrypt"),
        (
            "| | `could not encrypt`, `could not decrypt` | Look. |",
            "no line of its own, or no status, for: could not d",
        ),
    ],
    ids=["an error without a row", "one with another status", "one with two rows", "a row about nothing"],
)
def test_where_the_table_of_errors_and_the_code_differ_is_told(rows: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        table.written(rows, [KNOWN], "gpg could not decrypt")


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


@pytest.mark.parametrize("policy", POLICIES)
def test_the_manual_and_the_example_have_each_header_policy(policy: str) -> None:
    for name in ("man/cryptomail.toml.5", "config.toml.example"):
        assert f'"{policy}"' in (ROOT / name).read_text().replace(r"\(dq", '"'), name


def test_owners_can_look_up_each_answer_and_notice() -> None:
    documents = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "owner").glob("*.md")))
    subjects = [
        text.rstrip(table.ANYTHING)
        for path in (PACKAGE / "notify").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Words"
        for text in table.texts(node.args[0])
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


ARCHITECTURE = (ROOT / "docs" / "developer" / "architecture.md").read_text()


def test_the_list_of_packages_says_of_each_what_it_says_of_itself_from_the_top_down() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    layers = settings["importlinter:contract:layers"]["layers"].replace("|", " ").split()
    listed = dict(
        re.findall(r"^\| `([a-z]+)(?:/|\.py)` \| (.*) \|$", ARCHITECTURE.partition("| `sieve_filter/` | what")[2], re.M)
    )
    assert list(listed) == layers
    for name, subject in listed.items():
        module = PACKAGE / name / "__init__.py" if (PACKAGE / name).is_dir() else PACKAGE / f"{name}.py"
        assert subject == (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")[0]


def test_the_list_of_folders_has_those_that_are_there() -> None:
    ignored = (ROOT / ".gitignore").read_text()
    there = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.endswith(".egg-info")}
    there = {name for name in there if name == ".ci" or not (name.startswith(".") or f"{name}/" in ignored)}
    listed = re.findall(r"^\| `([a-z_.]+)/` \|", ARCHITECTURE.partition("Each package")[0], re.MULTILINE)
    assert sorted(listed) == sorted(there)


def test_packages_and_modules_on_a_message_s_way_exist() -> None:
    way = ARCHITECTURE.partition("## A message's way")[2]
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
