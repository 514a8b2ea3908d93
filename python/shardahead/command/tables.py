"""Tables of shards: as wide as the terminal, with names that stay apart; in a pipe as wide as names
are. It is given what to lay out, and finds out nothing but how wide standard output is.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shardahead.command.shard_names import cells_of, shortened

if TYPE_CHECKING:
    from rich.table import Table

#: More shards than that are summed up.
MOST_SHARDS = 40
_MOST_BAR, _LEAST_BAR = 20, 8  # columns
_LEAST_NAME = 12
_LEAST_NAME_BESIDE_BAR = 20
_BETWEEN = 3  # columns between two of the table
_PLAIN_WIDTH = 80


@dataclass(frozen=True)
class Row:
    """One shard, or several. `part` of `whole` is what its bar shows; where `part` is None it has
    none.
    """

    name: str
    cells: tuple[str, ...]
    part: int | None = None
    whole: int = 0


class _Page(io.StringIO):
    """What is shown later: drawn with what standard output can show."""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return output_encoding()


def output_encoding() -> str:
    return sys.stdout.encoding or "utf-8"


def showable(text: str) -> str:
    """What standard output cannot show is escaped."""
    return text.encode(output_encoding(), "backslashreplace").decode(output_encoding())


def table_of(heads: tuple[str, ...], rows: Sequence[Row], *, bars: bool = False) -> str:
    """The first of `heads` is over the names, the others are over the cells; bars come last."""
    from rich.console import Console
    from rich.progress_bar import ProgressBar

    terminal = sys.stdout.isatty()
    names = [showable(row.name) for row in rows]
    cells = [heads[1:], *(row.cells for row in rows)]
    others = sum(max(map(len, column)) + _BETWEEN for column in zip(*cells, strict=True))
    width = Console(file=sys.stdout).width if terminal else _PLAIN_WIDTH
    longest = max(map(cells_of, [heads[0], *names]))
    bar = 0
    # Where both do not fit, a name says more than a bar: the share stands beside it.
    room = width - others - _BETWEEN - _LEAST_BAR
    bars = bars and not (terminal and room < min(longest, _LEAST_NAME_BESIDE_BAR))
    if bars:
        bar = min(max(width - others - _BETWEEN - longest, _LEAST_BAR), _MOST_BAR)
        others += _BETWEEN + bar
    if terminal:
        mark = "…" if showable("…") == "…" else "..."
        names = shortened(names, max(width - others, _LEAST_NAME), mark)
    else:
        width = max(width, others + longest)
    table = new_table()
    table.add_column(heads[0], overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    for name, row in zip(names, rows, strict=True):
        shown = []
        if bars and row.part is not None:
            shown = [ProgressBar(max(row.whole, 1), row.part or 0, bar)]
        if shown and not row.whole:
            shown = [ProgressBar(1, 1, bar)]
        table.add_row(name, *row.cells, *shown)
    return drawn(table, width, terminal=terminal)


def new_table() -> Table:
    """As all tables here look, without columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)


def drawn(table: Table, width: int, *, terminal: bool) -> str:
    """With what standard output can show, and colours where that is a `terminal`."""
    from rich.console import Console

    page = _Page()
    console = Console(
        file=page, force_terminal=terminal, width=width, markup=False, highlight=False
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip("\n").split("\n"))
