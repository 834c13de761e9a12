"""Tables and progress bars for people at a terminal."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sieve_filter.system import stdio

_WHOLE, _SPARE = "key", "addresses"  # columns of tables: which is never wrapped, and which a narrow one does without
ROWS = 50  # what a person still reads on a terminal
Advance = Callable[[int], None]  # it is told how much more is done


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; else lines with tabs between, for programs."""
    if not sys.stdout.isatty():
        if rows:
            stdio.tell("\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows))
        return
    from rich.console import Console  # takes longer to load than a message to filter
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    shown = [[stdio.for_terminal(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    if sum(widths) + 3 * (len(head) - 1) > console.width:  # mostly an owner's only address is the user name
        shown = [[cell for name, cell in zip(head, row, strict=True) if name != _SPARE] for row in shown]
    # A fingerprint is worth nothing in part: other columns are wrapped.
    columns = (Column(name, overflow="fold", no_wrap=name == _WHOLE) for name in shown[0])
    table = Table(*columns, show_edge=False, pad_edge=False)
    for row in shown[1:]:
        table.add_row(*map(Text, row))  # as text: square brackets in a user ID are no markup
    console.print(table)


@contextmanager
def progress(total: int, quiet: bool) -> Iterator[Advance]:
    """A progress bar on standard error, where that is a terminal. Its value is called with how many were done."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # Without auto_refresh it has no thread, which a fork would leave halfway.
    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("working", total=total)
        yield lambda count: bar.update(task, advance=count, refresh=True)
