"""When what was evicted of a kept checkpoint is brought back, and when that would be a fight with
the kernel over memory. Pure: it is told what is resident, and when. One thread.
"""

from __future__ import annotations

from dataclasses import dataclass

#: While memory is short a look follows after so many intervals at most.
MOST_INTERVALS = 32


@dataclass(frozen=True)
class Look:
    """What is to be done after a look: whether to bring back what is missing, how long until the
    next one, and what to say, once for each time that memory becomes short.
    """

    restore: bool
    wait_seconds: float
    say: str | None = None


@dataclass
class Keeper:
    """Decides from look to look. `interval_seconds` lie between two of them, and twice as long
    after each one that found memory short.
    """

    interval_seconds: float
    backed_off: bool = False
    _intervals: int = 1
    _wanted_bytes: int = 0  # by the look before this one
    _restored_bytes: int = 0  # of that

    def look(
        self, size_bytes: int, missing_bytes: int, locked_bytes: int, budget_bytes: int | None
    ) -> Look:
        """`missing_bytes` of `size_bytes` are not resident. `budget_bytes` is what page cache may
        fill, of which clean pages count as free and locked ones do not; None where that is unknown.
        """
        if missing_bytes == 0:
            self.backed_off = False
            self._intervals, self._wanted_bytes = 1, 0
            return Look(False, self.interval_seconds)
        if budget_bytes is not None and size_bytes - locked_bytes > budget_bytes:
            return self._back_off("memory is short, the shards do not fit any more")
        if self._wanted_bytes and missing_bytes >= max(1, self._wanted_bytes // 2):
            # What was brought back a look ago and is gone again was wanted by someone.
            came = self._restored_bytes >= max(1, self._wanted_bytes // 2)
            again = "memory is short, what is brought back is evicted again"
            return self._back_off(again if came else "what is missing does not come back")
        self._wanted_bytes, self._restored_bytes = missing_bytes, 0
        return Look(True, self._wait())

    def restored(self, read_bytes: int) -> None:
        """What has come of bringing back."""
        self._restored_bytes = read_bytes

    def _back_off(self, why: str) -> Look:
        said = self.backed_off
        self.backed_off, self._wanted_bytes = True, 0
        self._intervals = min(2 * self._intervals, MOST_INTERVALS)
        text = f"nothing is brought back for a while: {why}"
        return Look(False, self._wait(), None if said else text)

    def _wait(self) -> float:
        return self.interval_seconds * self._intervals
