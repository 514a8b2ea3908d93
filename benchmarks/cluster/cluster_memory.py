"""Memory of this machine: how much there is, and that it is really there. One thread."""

from __future__ import annotations

from pathlib import Path

_SPARE_BYTES = 2 << 30
_PIECE_BYTES = 16 << 20


def warm_memory(folder: Path, size_bytes: int) -> None:
    """Memory that a virtual machine's host has not given it yet is given at the first touch of each
    page, which makes copying many times slower: the first run would pay for all others.
    """
    left = min(size_bytes, max(0, available_bytes() - _SPARE_BYTES))
    zeros = bytes(_PIECE_BYTES)
    file = folder / "touched"
    with open(file, "wb", buffering=0) as out:
        while left > 0:
            left -= out.write(zeros)
    file.unlink()


def available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no MemAvailable")
