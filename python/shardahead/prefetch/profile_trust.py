"""How far a profile is to be trusted while a load goes by it: decided by what the consumer has
touched of what it has passed.

A profile that is wrong costs twice: what it wants for nothing is in the way of the faults for what
it lacks. Pure. passed() on the consumer's thread, is_lost() on any: one at a time has the answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from shardahead.prefetch.byte_ranges import Ranges, common, merged, total

#: A profile that lacks less than so much is not doubted: what one fault reads by default. The next
#: one may wait behind all that the profile wants.
DOUBTED_BYTES = 128 * 1024
#: Of a loader that is looked at from time to time more goes unseen. Not much more: each of its
#: faults takes as long as all that is in flight, 30 ms with 8 MiB at 300 MB/s.
SAMPLED_DOUBTED_BYTES = 256 * 1024
#: Once so much has been touched as the profile says, it is known to be right.
PROVEN_BYTES = 64 * 1024**2
#: Until then it is given up where others of the node find theirs wrong, save where so much was
#: touched, and nothing that it lacks.
_FIRM_BYTES = 1024**2
# The parts of what was touched that the profile lacks, and of what it wants that was passed
# untouched, from which both together it is wrong. One of a load like this has nothing of either.
_LOST_PART = 64


class ProfileTrust:
    """`wanted`: by file, what the profile wants."""

    def __init__(self, wanted: Sequence[Ranges]) -> None:
        self._wanted = wanted
        self._passed: list[tuple[int, int, int]] = []
        self._judging = threading.Lock()
        self._passed_length = 0  # of all ranges
        self._judged = (0, 0)  # what was unexpected then, and passed
        self._passed_bytes = 0  # of what is wanted
        self._untouched_bytes = 0  # and was passed all the same

    def is_open(self, touched_bytes: int, unexpected_bytes: int) -> bool:
        """Whether nothing is known yet of this profile, so that others which are like it, and were
        wrong, count for this one as well.
        """
        return touched_bytes < (PROVEN_BYTES if unexpected_bytes else _FIRM_BYTES)

    def passed(self, index: int, offset: int, length: int) -> None:
        """The consumer has let this range of a file go by, whatever it has touched of it."""
        self._passed.append((index, offset, length))
        self._passed_length += length

    def is_lost(
        self,
        touched_bytes: int,
        unexpected_bytes: int,
        touched: Callable[[int], Ranges],
        *,
        sampled: bool,
    ) -> bool:
        """Whether the load is better off without the profile. `unexpected_bytes`: of what was
        touched, what it lacks; `touched` gives what was touched of a file. `sampled`: that is seen
        from time to time, and what was passed is not known.
        """
        if unexpected_bytes < (SAMPLED_DOUBTED_BYTES if sampled else DOUBTED_BYTES):
            return False
        if 2 * unexpected_bytes >= touched_bytes:
            return True
        if sampled or _LOST_PART * unexpected_bytes < touched_bytes:
            return False
        # To look at what was passed is not free: the times grow farther apart.
        passed = self._passed_length
        unexpected_then, passed_then = self._judged
        if unexpected_bytes < 2 * unexpected_then and 8 * passed < 9 * passed_then:
            return False
        if not self._judging.acquire(blocking=False):
            return False
        try:
            self._judged = (unexpected_bytes, max(passed, 1))
            self._count_passed(touched)
            return _LOST_PART * self._untouched_bytes >= max(self._passed_bytes, 1)
        finally:
            self._judging.release()

    def _count_passed(self, touched: Callable[[int], Ranges]) -> None:
        count = len(self._passed)
        by_file: dict[int, list[tuple[int, int]]] = {}
        for index, offset, length in self._passed[:count]:
            by_file.setdefault(index, []).append((offset, length))
        del self._passed[:count]
        for index, ranges in by_file.items():
            wanted = common(merged(ranges), self._wanted[index])
            self._passed_bytes += total(wanted)
            self._untouched_bytes += total(wanted) - total(common(wanted, touched(index)))
