"""Memory of this machine: how much there is, and that it is really there. One thread."""

from __future__ import annotations

import os
from pathlib import Path

_PIECE_BYTES = 16 << 20
#: That is free of what a run's processes take next: about what they write in a tenth of a second.
_AHEAD_BYTES = 256 << 20


class Ballast:
    """A file in memory that grows before each run, and shrinks as the run needs memory.

    Memory that a virtual machine's host has not given it is given at the first touch of each page,
    and some hosts take back at once what is free: then a run would copy at a quarter of the speed,
    and the first one at a tenth. What a file has is not free. `folder` is of a filesystem in
    memory.
    """

    def __init__(self, folder: Path, wanted_bytes: int) -> None:
        self._file = os.open(folder / "ballast", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self._wanted_bytes = wanted_bytes
        self._size_bytes = 0
        self._free_bytes = 0

    def load(self) -> None:
        """Before a run. No more than half of what can be had: what others have in the page cache is
        theirs.
        """
        zeros = bytes(_PIECE_BYTES)
        most = min(self._wanted_bytes, (self._size_bytes + available_bytes()) // 2)
        while self._size_bytes < most:
            self._size_bytes += os.pwrite(self._file, zeros, self._size_bytes)
        self._free_bytes = _meminfo("MemFree")
        self._shrink(_AHEAD_BYTES)

    def yield_to_run(self) -> None:
        """Again and again during a run: as much as has been taken since the last time."""
        self._shrink(self._free_bytes + _AHEAD_BYTES - _meminfo("MemFree"))

    def _shrink(self, size_bytes: int) -> None:
        if size_bytes > 0 and self._size_bytes:
            self._size_bytes = max(0, self._size_bytes - size_bytes)
            os.ftruncate(self._file, self._size_bytes)


def available_bytes() -> int:
    return _meminfo("MemAvailable")


def _meminfo(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {name}")
