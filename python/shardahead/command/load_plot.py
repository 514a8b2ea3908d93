"""How a load went on, drawn in a terminal with characters alone, without colors. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardahead.command.loads import Load, Moment, moment
from shardahead.units import format_bytes

_AXIS_WIDTH = 11
_PLOT_ROWS, _FLIGHT_ROWS = 10, 3


@dataclass(frozen=True)
class Marks:
    """consumed, brought in and not consumed, as far as the window reaches, in flight."""

    consumed: str
    ahead: str
    window: str
    flight: str


BLOCKS = Marks("█", "▒", "─", "▆")
ASCII = Marks("#", ":", "-", "*")


def marks_for(encoding: str) -> Marks:
    """Those that a stream of this encoding takes."""
    try:
        "".join((BLOCKS.consumed, BLOCKS.ahead, BLOCKS.window, BLOCKS.flight)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def plot(load: Load, width: int, seconds: float, marks: Marks = BLOCKS) -> str:
    """Bytes over the first `seconds` of a load, in lines of `width` characters at most."""
    columns = max(10, width - _AXIS_WIDTH)
    moments = [moment(load, seconds * (i + 1) / columns) for i in range(columns)]
    most_bytes = max(load.total_bytes, *(m.read_bytes for m in moments), 1)
    lines = [*_bytes_rows(moments, most_bytes, marks), *_flight_rows(moments, marks)]
    blank = " " * _AXIS_WIDTH
    end = f"{seconds:.2f} s"
    lines.append(f"{blank}0 s{end:>{columns - 3}}")
    lines.append(
        f"{blank}{marks.consumed} consumed  {marks.ahead} brought in ahead  "
        f"{marks.window} end of the window  {marks.flight} in flight"
    )
    return "\n".join(line.rstrip() for line in lines)


def _bytes_rows(moments: Sequence[Moment], most_bytes: int, marks: Marks) -> Iterator[str]:
    for row in range(_PLOT_ROWS, 0, -1):
        # A row is filled from its middle on.
        level = most_bytes * (row - 0.5) / _PLOT_ROWS
        label = format_bytes(most_bytes) if row == _PLOT_ROWS else "0 B" if row == 1 else ""
        yield f"{label:>{_AXIS_WIDTH - 1}} " + "".join(
            _mark(each, level, most_bytes / _PLOT_ROWS, marks) for each in moments
        )


def _mark(each: Moment, level: float, row_bytes: float, marks: Marks) -> str:
    if each.consumed_bytes >= level:
        return marks.consumed
    if each.read_bytes >= level:
        return marks.ahead
    end = each.consumed_bytes + each.window_bytes
    is_end = each.window_bytes > 0 and abs(end - level) <= row_bytes / 2
    return marks.window if is_end else " "


def _flight_rows(moments: Sequence[Moment], marks: Marks) -> Iterator[str]:
    most_bytes = max(each.claimed_bytes for each in moments)
    if not most_bytes:
        return
    for row in range(_FLIGHT_ROWS, 0, -1):
        level = most_bytes * (row - 0.5) / _FLIGHT_ROWS
        label = format_bytes(most_bytes) if row == _FLIGHT_ROWS else ""
        marked = (marks.flight if each.claimed_bytes >= level else " " for each in moments)
        yield f"{label:>{_AXIS_WIDTH - 1}} " + "".join(marked)
