"""Tables of shards: as wide as the terminal, with names that stay apart; in a pipe as wide as names
are. Where names with their folders are too long, each folder has a line of its own above its names.
It is given what to lay out, and finds out nothing but how wide standard output is.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
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
_INDENT = "  "  # of names below their folder
_HEADING = "\ue000"  # stands for a folder while a table is drawn: no shown name has it


@dataclass(frozen=True)
class Row:
    """One shard, or several. `part` of `whole` is what its bar shows; where `part` is None it has
    none. `folder` is that of the name, with its last "/"; None of what lies in none.
    """

    name: str
    cells: tuple[str, ...]
    part: int | None = None
    whole: int = 0
    folder: str | None = None

    @property
    def full_name(self) -> str:
        return f"{self.folder or ''}{self.name}"


def shard_row(path: str, cells: tuple[str, ...], part: int | None = None, whole: int = 0) -> Row:
    """Of a shard that is called so, where that has a folder in it as well."""
    folder, slash, name = path.rpartition("/")
    return Row(name, cells, part, whole, folder + slash)


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


def table_of(
    heads: tuple[str, ...], rows: Sequence[Row], *, bars: bool = False, any_order: bool = False
) -> str:
    """The first of `heads` is over the names, the others are over the cells; bars come last. In
    `any_order` each folder that has a line of its own has one only.
    """
    if not any(row.folder for row in rows) or fits(heads, rows, bars=bars):
        return _drawn_rows(heads, [(None, rows)], bars=bars)
    if any_order:
        first: dict[str | None, int] = {}
        for index, row in enumerate(rows):
            first.setdefault(row.folder, index)
        rows = sorted(rows, key=lambda row: first[row.folder])
    groups = [(folder, list(below)) for folder, below in groupby(rows, lambda row: row.folder)]
    return _drawn_rows(heads, groups, bars=bars)


def fits(heads: tuple[str, ...], rows: Sequence[Row], *, bars: bool = False) -> bool:
    """Whether names have room with their folders: on the terminal, or in 80 columns of a pipe."""
    names = [heads[0], *(showable(row.full_name) for row in rows)]
    room = _width() - _cells_width(heads, rows) - (_BETWEEN + _LEAST_BAR if bars else 0)
    return max(map(cells_of, names)) <= room


def lines_at_terminal(text: str) -> int:
    """How many lines of the terminal it takes."""
    from rich.text import Text

    width = _width()
    cells = (Text.from_ansi(line).cell_len for line in text.split("\n"))
    return sum(max(-(-each // width), 1) for each in cells)


def _width() -> int:
    from rich.console import Console

    return Console(file=sys.stdout).width if sys.stdout.isatty() else _PLAIN_WIDTH


def _cells_width(heads: tuple[str, ...], rows: Sequence[Row]) -> int:
    """Of all columns but that of the names."""
    cells = [heads[1:], *(row.cells for row in rows)]
    return sum(max(map(len, column)) + _BETWEEN for column in zip(*cells, strict=True))


def _drawn_rows(
    heads: tuple[str, ...],
    groups: Sequence[tuple[str | None, Sequence[Row]]],
    *,
    bars: bool,
) -> str:
    """Those of a group below its folder; where there is but one without a folder, as they are."""
    from rich.progress_bar import ProgressBar

    width, others = _width(), _cells_width(heads, [row for _, below in groups for row in below])
    terminal = sys.stdout.isatty()
    grouped = len(groups) > 1 or groups[0][0] is not None
    indents = [_INDENT if folder is not None else "" for folder, _ in groups]
    names = [
        [showable(row.name if grouped else row.full_name) for row in below] for _, below in groups
    ]
    longest = cells_of(heads[0])
    for indent, of_group in zip(indents, names, strict=True):
        longest = max(longest, *(len(indent) + cells_of(name) for name in of_group))
    bar = 0
    # Where both do not fit, a name says more than a bar: the share stands beside it.
    room = width - others - _BETWEEN - _LEAST_BAR
    bars = bars and not (terminal and room < min(longest, _LEAST_NAME_BESIDE_BAR))
    if bars:
        bar = min(max(width - others - _BETWEEN - longest, _LEAST_BAR), _MOST_BAR)
        others += _BETWEEN + bar
    if terminal:
        mark = "…" if showable("…") == "…" else "..."
        room = max(width - others, _LEAST_NAME)
        names = [
            shortened(of_group, room - len(indent), mark)
            for indent, of_group in zip(indents, names, strict=True)
        ]
    else:
        width = max(width, others + longest)
    table = new_table()
    table.add_column(heads[0], overflow="fold")
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    if bars:
        table.add_column("", no_wrap=True)
    for indent, of_group, (folder, below) in zip(indents, names, groups, strict=True):
        if folder is not None:
            table.add_row(_HEADING)
        for name, row in zip(of_group, below, strict=True):
            shown = []
            if bars and row.part is not None:
                shown = [ProgressBar(max(row.whole, 1), row.part or 0, bar)]
            if shown and not row.whole:
                shown = [ProgressBar(1, 1, bar)]
            table.add_row(f"{indent}{name}", *row.cells, *shown)
    # Their lines may be wider than the table, which is drawn as if they were not there.
    folders = iter([showable(folder or "./") for folder, _ in groups if folder is not None])
    lines = drawn(table, width, terminal=terminal).split("\n")
    return "\n".join(next(folders) if line == _HEADING else line for line in lines)


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
