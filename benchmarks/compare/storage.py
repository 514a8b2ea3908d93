"""Where the ranks load from: the slow filesystem, or a folder that is given. Makes it cold.

Cold is proved by residency, never assumed. Not for several threads.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

import shardahead
from cases import Case
from slowfs import SlowFs
from wire import counter_of

_ATTEMPTS = 5
_STILL_SECONDS = 0.1
_STILL_LIMIT_SECONDS = 30.0


class NotColdError(RuntimeError):
    """Bytes stayed in the page cache; the text says how many."""


class Storage(Protocol):
    """What a load needs to know of it. `counted` says where the bytes served are counted."""

    folder: Path
    counted: str

    def make_cold(self) -> str:
        """Returns when nothing is resident, with what could not be had; starts counting anew."""

    def served_bytes(self) -> int | None:
        """Since make_cold(), once nothing is on its way any more; None where nobody counts."""


def resident_bytes(folder: Path) -> int | None:
    """Of all shards in the folder, with what is being read; None where the kernel does not say."""
    files = shardahead.residency(folder)
    if any(file.resident_bytes is None for file in files):
        return None
    return sum((file.resident_bytes or 0) + (file.pending_bytes or 0) for file in files)


class SlowStorage:
    """A folder behind slowfs. The folder itself is kept in memory: the link is the limit."""

    counted = "slowfs"

    def __init__(self, source: Path, mountpoint: Path, case: Case) -> None:
        self.source = source
        self.folder = mountpoint
        self._mount = SlowFs(
            source,
            mountpoint,
            rate_mb_per_s=case.rate_mb_per_s,
            round_trip_ms=case.round_trip_ms,
            seek_ms=case.seek_ms,
            max_background=case.max_background,
            congestion_threshold=case.congestion_threshold,
            readahead_kib=case.readahead_kib,
            keep_cache=case.keep_cache,
            direct_io=case.direct_io,
        )

    def make_cold(self) -> str:
        missing = self._warm_source()
        for attempt in range(_ATTEMPTS):
            if attempt == _ATTEMPTS - 1:
                self._mount.close()  # takes all pages along
                self._mount.__enter__()
            self._mount.evict_all()
            shardahead.evict(self.folder)
            self._mount.wait_until_idle()
            if not resident_bytes(self.folder):
                self._mount.reset()
                return f"{missing} bytes of the source not in memory" if missing else ""
        raise NotColdError(f"{resident_bytes(self.folder)} bytes stay resident in {self.folder}")

    def _warm_source(self) -> int:
        """Reads the source again, for the kernel evicts what it likes; what is missing still."""
        total = sum(file.size_bytes for file in shardahead.residency(self.source))
        for _ in range(_ATTEMPTS):
            shardahead.prefetch_files(self.source, 0, 1).wait()
            if resident_bytes(self.source) == total:
                break
        return total - (resident_bytes(self.source) or 0)

    def served_bytes(self) -> int | None:
        self._mount.wait_until_idle()
        return self._mount.counters().bytes_served

    def __enter__(self) -> SlowStorage:
        self._mount.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._mount.close()


class FolderStorage:
    """A folder as it is."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counter, self.counted = counter_of(folder)
        self._before = 0

    def make_cold(self) -> str:
        for _ in range(_ATTEMPTS):
            shardahead.evict(self.folder)
            self._before = self._when_still()
            left = resident_bytes(self.folder)
            if left is None:
                return "not proved cold: the kernel tells residency to the owner only"
            if left == 0:
                return ""
        raise NotColdError(f"{resident_bytes(self.folder)} bytes stay resident in {self.folder}")

    def served_bytes(self) -> int | None:
        return None if self._counter is None else self._when_still() - self._before

    def _when_still(self) -> int:
        """The counter, once it stands still: reads in flight end after whoever asked for them."""
        if self._counter is None:
            time.sleep(_STILL_SECONDS)
            return 0
        deadline = time.monotonic() + _STILL_LIMIT_SECONDS
        count = self._counter()
        while time.monotonic() < deadline:
            time.sleep(_STILL_SECONDS)
            before, count = count, self._counter()
            if before == count:
                break
        return count

    def __enter__(self) -> FolderStorage:
        return self

    def __exit__(self, *_: object) -> None:
        pass
