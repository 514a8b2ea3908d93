"""What a loader touches ahead of the bytes around it: the first page of each tensor, where it makes
all of them before it reads any. Each is a wait for whatever a prefetch has asked for by then, tens
of milliseconds on a slow link; known from the last load, they are asked for before anything else.

A record, without I/O. One thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardahead import _core
from shardahead.prefetch.byte_ranges import Ranges, common, merged, total

GRAIN_BYTES = _core.TOUCHED_GRAIN_BYTES
#: Of all files of a load, kept or asked for.
MAX_EARLY_BYTES = 64 * 1024**2


class EarlyTouches:
    """Grains that were touched when those beside them were not, of `files` files."""

    def __init__(self, files: int) -> None:
        self._alone: list[set[int]] = [set() for _ in range(files)]
        self._seen_bytes = 0

    def look(self, touched: _core.TouchedPages) -> None:
        """After each look at the loader, while it has touched little: more is no beginning."""
        seen_bytes = touched.touched_bytes
        if seen_bytes == self._seen_bytes or seen_bytes > MAX_EARLY_BYTES:
            return
        self._seen_bytes = seen_bytes
        for index, alone in enumerate(self._alone):
            alone.update(at for at, length in touched.ranges(index) if length <= GRAIN_BYTES)

    def ranges(self, index: int, touched: Ranges) -> Ranges:
        """Those of a file around which more was `touched` in the end."""
        runs = tuple((at, length) for at, length in touched if length > GRAIN_BYTES)
        return common(merged((at, GRAIN_BYTES) for at in self._alone[index]), runs)


def is_small(early: Sequence[Ranges]) -> bool:
    """Whether that is little enough to be asked for ahead of all else."""
    return sum(map(total, early)) <= MAX_EARLY_BYTES
