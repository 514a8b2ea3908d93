"""How loads went on, as a picture in a file, by matplotlib where that is installed. One thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardahead.command.loads import Load, moment
from shardahead.units import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 400
_MIB = 1024**2


def draw(loads: Sequence[Load], path: str) -> None:
    """Writes it; of which kind, the ending of `path` says. Raises ValueError where there is no
    matplotlib or it does not know the ending, and OSError where it cannot be written.
    """
    figure = new_figure(3.2 * len(loads))
    longest_seconds = max(load.seconds for load in loads)
    for number, load in enumerate(loads, 1):
        axes = figure.add_subplot(len(loads), 1, number)
        axes.set_title(f"{number}. {plain(load.first.document['entry'])}")
        if (instead := load.why_not_drawn) is not None:
            axes.set_axis_off()
            axes.text(0.5, 0.5, instead, ha="center", va="center", transform=axes.transAxes)
            continue
        times = [longest_seconds * i / _POINTS for i in range(_POINTS + 1)]
        moments = [moment(load, seconds) for seconds in times]
        for label, values in (
            ("brought in", [each.read_bytes for each in moments]),
            ("consumed", [each.consumed_bytes for each in moments]),
            ("in flight", [each.claimed_bytes for each in moments]),
        ):
            axes.plot(times, [value / _MIB for value in values], label=label)
        windows = [each.consumed_bytes + each.window_bytes for each in moments]
        if any(each.window_bytes for each in moments):
            axes.plot(times, [w / _MIB for w in windows], ":", label="end of the window")
        axes.set_xlabel("seconds")
        axes.set_ylabel("MiB")
        axes.legend()
    figure.savefig(path)


def new_figure(height_inches: float) -> Figure:
    """As all pictures here begin. Raises ValueError where there is no matplotlib."""
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError as error:
        raise ValueError(
            f"--picture needs matplotlib ({error}); install with: pip install matplotlib"
        ) from error
    return NewFigure(figsize=(9, height_inches), layout="constrained")


def plain(text: str) -> str:
    """A name must not be taken for a formula."""
    return printable(text).replace("$", r"\$")
