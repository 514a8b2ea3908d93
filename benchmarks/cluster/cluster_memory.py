"""Memory of this machine: how much there is, and that it is really there. One thread."""

from __future__ import annotations

from pathlib import Path

_PIECE_BYTES = 16 << 20


def warm_memory(folder: Path, size_bytes: int) -> None:
    """Memory that a virtual machine's host has not given it yet is given at the first touch of each
    page, which makes copying many times slower: the first run would pay for all others. No more
    than half of what is free: what others have in the page cache is theirs.
    """
    left = min(size_bytes, available_bytes() // 2)
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
