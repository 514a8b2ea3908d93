"""What `warm` and `stage` say while they run, and when: rates and lines from the figures so far.

Pure: it is told the time, and neither waits nor prints (progress_shown.py does). One thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shardahead.prefetch.progress import Progress
from shardahead.units import counted, format_bytes, format_rate, format_seconds, format_share


@dataclass(frozen=True)
class Work:
    """What is being brought in, by the command of this `name`. `files`: how many shards.
    `local_size`: how many ranks of this node share it. `own_share`: the figures are of local rank
    `local_rank` alone, for no one counts those of the node.
    """

    files: int
    local_rank: int
    local_size: int
    own_share: bool
    name: str = "warm"

    def text(self) -> str:
        if self.own_share:
            return f"share of local rank {self.local_rank} of {self.local_size}"
        if self.local_size > 1:
            return f"{counted(self.files, 'shard')}, {self.local_size} local ranks"
        return counted(self.files, "shard")


class RecentRate:
    """How fast bytes have come of late: over `over_seconds`, or since the start."""

    def __init__(self, over_seconds: float) -> None:
        self._over_seconds = over_seconds
        self._seen: deque[tuple[float, int]] = deque([(0.0, 0)])

    def note(self, progress: Progress) -> None:
        """The figures at this moment. Of each that follows, neither is less."""
        self._seen.append((progress.seconds, came(progress)))
        # One that is as old as that is kept, to measure from.
        while len(self._seen) > 2 and progress.seconds - self._seen[1][0] >= self._over_seconds:
            self._seen.popleft()

    @property
    def bytes_per_second(self) -> float:
        (before, before_bytes), (now, now_bytes) = self._seen[0], self._seen[-1]
        return (now_bytes - before_bytes) / (now - before) if now > before else 0.0


class Beat:
    """When something is due that is done every `every_seconds`, the first time after that long.
    What was missed is not made up for.
    """

    def __init__(self, every_seconds: float) -> None:
        self._every_seconds = every_seconds
        self._next_seconds = every_seconds

    def is_due(self, seconds: float) -> bool:
        """Whether it is to be done now; then it is not due again before its time."""
        if seconds < self._next_seconds:
            return False
        missed = (seconds - self._next_seconds) // self._every_seconds
        self._next_seconds += (missed + 1) * self._every_seconds
        return True


def begin_line(work: Work, progress: Progress) -> str:
    return f"{work.name}: {format_bytes(progress.planned_bytes)}, {work.text()}"


def running_line(work: Work, progress: Progress, rate: float) -> str:
    parts = [f"{work.name}: {of_planned(progress)}", format_rate(rate)]
    return ", ".join([*parts, *([left] if (left := time_left(progress, rate)) else [])])


def end_line(work: Work, progress: Progress) -> str:
    """With the rate of all of it, where anything was read."""
    parts = [f"{work.name}: {of_planned(progress)}"]
    if came(progress):
        parts.append(format_rate(rate_of_all(progress)))
    return ", ".join([*parts, f"ended after {format_seconds(progress.seconds)}"])


def here(progress: Progress) -> int:
    """What is there now: all that is done but what could not be read."""
    return progress.done_bytes - progress.failed_bytes


def came(progress: Progress) -> int:
    """What was brought in, each byte once: two ranks may have read the same at the same time."""
    return min(progress.node_read_bytes, here(progress))


def rate_of_all(progress: Progress) -> float:
    return came(progress) / progress.seconds if progress.seconds > 0 else 0.0


def of_planned(progress: Progress) -> str:
    done, planned = here(progress), progress.planned_bytes
    text = f"{format_bytes(done)} of {format_bytes(planned)} ({format_share(done, planned)})"
    if progress.failed_bytes:
        text += f", {format_bytes(progress.failed_bytes)} could not be read"
    return text


def time_left(progress: Progress, rate: float) -> str:
    """Of what is left at `rate`; nothing where that cannot be told."""
    left_bytes = progress.planned_bytes - progress.done_bytes
    if left_bytes <= 0 or rate <= 0:
        return ""
    return f"{format_seconds(left_bytes / rate)} left"
