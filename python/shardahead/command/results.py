"""How a command ends: what it prints, and its exit status. It finds out nothing itself.

For the main thread.
"""

from __future__ import annotations

import io
import sys
from contextlib import suppress

from shardahead.command.endings import status_of
from shardahead.command.standard_streams import OutputError, complain, show

DONE, INCOMPLETE, WRONG_USAGE = 0, 1, 2


def finish(text: str, reason: str | None, ended: KeyboardInterrupt | None = None) -> int:
    """Prints the result, says why it is incomplete where it is, and gives the exit status."""
    if ended is None:
        show(text)
    else:  # its status is the signal's, whoever listens
        with suppress(OutputError):
            show(text)
    if reason:
        complain(f"incomplete: {reason}")
    return status_of(ended) if ended else INCOMPLETE if reason else DONE


class _Page(io.StringIO):
    """What is shown later: drawn with what standard output can show."""

    @property
    def encoding(self) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return sys.stdout.encoding or "utf-8"


def table_of(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(heads):
        table.add_column(
            head, justify="right" if column else "left", overflow="fold", no_wrap=column > 0
        )
    encoding = sys.stdout.encoding or "utf-8"
    for number, row in enumerate(rows):
        cells = [cell.encode(encoding, "backslashreplace").decode(encoding) for cell in row]
        table.add_row(*cells, end_section=number == len(rows) - 2)
    width = None if sys.stdout.isatty() else max(80, 50 + max(len(row[0]) for row in rows))
    page = _Page()
    terminal = sys.stdout.isatty()
    Console(file=page, force_terminal=terminal, width=width, markup=False, highlight=False).print(
        table
    )
    return page.getvalue().rstrip("\n")
