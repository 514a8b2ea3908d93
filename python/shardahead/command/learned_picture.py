"""What several profiles want of a checkpoint, as a picture in a file, by matplotlib where that is
installed. One thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from shardahead.command.load_picture import new_figure, plain
from shardahead.prefetch.profile import Profile
from shardahead.units import format_share

_MIB = 1024**2


def draw(profiles: Sequence[Profile], path: str) -> None:
    """Writes it; of which kind, the ending of `path` says. Raises ValueError where there is no
    matplotlib or it does not know the ending, and OSError where it cannot be written.
    """
    sizes = [size for _, size in profiles[0].files]
    positions = [0, *accumulate(sizes)]
    figure = new_figure(1.2 + 0.3 * len(profiles))
    axes = figure.add_subplot()
    for row, profile in enumerate(profiles):
        bars = [
            ((begin + offset) / _MIB, length / _MIB)
            for begin, ranges in zip(positions, profile.ranges, strict=False)
            for offset, length in ranges
        ]
        axes.broken_barh(bars, (row - 0.4, 0.8))
    for begin in positions[1:-1]:
        axes.axvline(begin / _MIB, color="0.7", linewidth=0.8)
    names = [
        f"{plain(profile.who)}: {format_share(profile.touched_bytes, positions[-1])}"
        for profile in profiles
    ]
    axes.set_yticks(range(len(profiles)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, max(positions[-1] / _MIB, 1))
    axes.set_xlabel("MiB of the checkpoint, its shards in their order")
    figure.savefig(path)
