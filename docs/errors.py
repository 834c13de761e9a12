"""Writes docs/admin/errors.md, the table of the lines that the program ends with or warns of: `make errors` runs it.

docs/admin/errors.in has the sections and, for each row, what to do. A row names its lines by some words of them, in
backticks; "module: words" are only about that module's. This puts the whole lines in their place, as the code has them,
and their exit status. Where several rows have words of a line, the longest words count. A row that begins with a status
is only about lines with that status. A line that is not an error of its own (a part of a report, for instance) is shown
as the row has it, and needs a status there.

An error that has no row, and a row about what nothing says, are told, and nothing is written.
"""

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "sieve_filter"
SOURCE = ROOT / "docs" / "admin" / "errors.in"
TABLE = SOURCE.with_suffix(".md")

WARNING = "\N{EN DASH}"
WARNS = {"warn", "_warn", "_complain"}
ANYTHING = "\N{HORIZONTAL ELLIPSIS}"  # in a line's place for what is known only when the program runs
ENOUGH = 6  # letters that a line must have of its own, to be known by
ELSEWHERE = ("Dovecot's own", "argparse's")  # how rows begin whose lines the code does not have


class Said(NamedTuple):
    """A line that the program can end with or warn of: the module that says it, its exit status, and what it says."""

    module: str  # as "cli/main"
    status: str
    text: str

    def has(self, words: str) -> bool:
        """Whether these words are in it, with anything in the place of ANYTHING; they may begin with the module."""
        pattern = ".*".join(map(re.escape, words.split(ANYTHING)))
        return re.search(pattern, f"{self.module}: {self.text}", re.DOTALL) is not None


def texts(node: ast.expr) -> list[str]:
    """What an expression may be, with ANYTHING for what is known only when the program runs."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(texts(part)[0] if isinstance(part, ast.Constant) else ANYTHING for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return texts(one) + texts(other)
    return [ANYTHING]


def letters(text: str) -> int:
    return len(re.findall("[A-Za-z]", text))


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def codes() -> dict[str, str]:
    """The exit status of each class of errors."""
    sys.path[:0] = [str(ROOT)]
    from sieve_filter import errors

    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    return {name: str(kind.code) for name, kind in kinds.items() if issubclass(kind, errors.CryptomailError)}


def said() -> list[Said]:
    """All errors and warnings of the code."""
    statuses = codes() | dict.fromkeys(WARNS, WARNING)
    found = []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for text in texts(node.args[0]) if name in statuses else ():
                    if letters(text) >= ENOUGH:
                        module = path.relative_to(PACKAGE).with_suffix("").as_posix()
                        found.append(Said(module, statuses[name], text))
    return list(dict.fromkeys(found))


def constants() -> str:
    """All strings of the code, one a line."""
    return "\n".join(
        text
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr)
        for text in texts(node)
    )


def shown(text: str) -> str:
    """A line as a cell of the table shows it."""
    line = re.sub(f"^{ANYTHING}(?=[a-z]|: )(: )?", "", text).replace("|", r"\|")
    return f"`` {line} ``" if "`" in line else f"`{line}`"


class Row(NamedTuple):
    """A row of the source: the statuses that it gives, what is in its cell of lines, and what to do."""

    statuses: list[str]
    pieces: list[str]  # every second one is in backticks
    remedy: str

    @property
    def words(self) -> list[str]:
        return self.pieces[1::2]

    def knows(self, words: str, error: Said) -> bool:
        return error.has(words) and (not self.statuses or error.status in self.statuses)

    def names(self, error: Said) -> int:
        """How many characters of words it has for that line; 0: it is not about it."""
        return max((len(words) for words in self.words if self.knows(words, error)), default=0)


def row_of(line: str) -> Row | None:
    if not re.match(r"\| (?!status|---)", line):
        return None
    status, lines, remedy = (cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | "))
    return Row([one for one in status.split(", ") if one], re.split("`([^`]+)`", lines), remedy)


def written(source: str, errors: Sequence[Said], strings: str) -> str:
    """The document. ValueError: its source and the code differ; a line for each difference."""
    lines = [(line, row_of(line)) for line in source.splitlines()]
    rows = [row for _, row in lines if row]
    wrong = []
    told: dict[Said, Row] = {}
    for error in errors:
        longest = max(row.names(error) for row in rows)
        claims = [row for row in rows if row.names(error) == longest > 0]
        if len(claims) == 1:
            told[error] = claims[0]
        else:
            wrong.append(f"{error.module}: {'two rows' if claims else 'no row'} for {error.status} {error.text}")
    result = []
    for line, row in lines:
        if row is None:
            result.append(line)
            continue
        mine = [error for error in errors if told.get(error) is row]
        pieces = list(row.pieces)
        elsewhere = pieces[0].startswith(ELSEWHERE)
        for number, words in list(enumerate(pieces))[1::2]:
            these = [error for error in mine if row.knows(words, error) and row.names(error) == len(words)]
            own = dict.fromkeys(shown(error.text) for error in these)
            literal = row.statuses and max(words.split(ANYTHING), key=letters).strip() in strings
            if not own and (any(row.knows(words, error) for error in errors) or not literal) and not elsewhere:
                wrong.append(f"no line of its own, or no status, for: {words}")
            pieces[number] = ", ".join(own) or f"`{words}`"
        statuses = row.statuses or sorted({error.status for error in mine})
        result.append(f"| {', '.join(statuses)} | {''.join(pieces)} | {row.remedy} |")
    if wrong:
        raise ValueError("\n".join(wrong))
    return "\n".join(result) + "\n"


def main() -> int:
    try:
        document = written(SOURCE.read_text(), said(), constants())
    except ValueError as error:
        print(f"{SOURCE.relative_to(ROOT)}:\n{error}", file=sys.stderr)
        return 1
    TABLE.write_text(document)
    return 0


if __name__ == "__main__":
    sys.exit(main())
