"""`evict` by local ranks other than 0: they let that one drop the pages, for it tells how many were
there, and then do themselves what is left. So each knows what stays, and no page stays because
rank 0 came late, or not at all. It may wait for storage; any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from shardahead.node.residency import residency_of

#: What does not become less for so long, rank 0 is not dropping.
PATIENCE_SECONDS = 3.0
_LOOK_SECONDS = 0.05


def leave_to_rank_0(paths: Sequence[str], is_over: Callable[[], bool]) -> None:
    """Returns once nothing of them is resident, or it becomes no less, or it `is_over`. Raises
    OSError for what cannot be looked at.
    """
    patience = Patience(PATIENCE_SECONDS)
    while not is_over() and patience.holds(time.monotonic(), _resident_bytes(paths)):
        time.sleep(_LOOK_SECONDS)


class Patience:
    """With a number that is to become 0. Pure: it is told the time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._least: int | None = None
        self._until = 0.0

    def holds(self, now: float, left: int) -> bool:
        if self._least is None or left < self._least:
            self._least, self._until = left, now + self._seconds
        return left > 0 and now < self._until


def _resident_bytes(paths: Sequence[str]) -> int:
    """As far as the kernel tells."""
    found = [residency_of(path) for path in paths]
    return sum((file.resident_bytes or 0) + (file.pending_bytes or 0) for file in found)
