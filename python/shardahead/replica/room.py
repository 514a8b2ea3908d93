"""Whether there is room for a replica: on the disk that its folder lies on, and in memory where
that is what it lies in. Any thread.
"""

from __future__ import annotations

import errno
import os

from shardahead.node.memory import budget_in_force
from shardahead.node.mounts import memory_types
from shardahead.units import format_bytes

_RESERVE_BYTES = 64 << 20  # that a full disk is not to lack for others


def lies_in_memory(folder: str) -> bool:
    return bool(memory_types([folder]))


def require_room(folder: str, needed_bytes: int, memory_budget_bytes: int | None) -> None:
    """Raises OSError, ENOSPC, that says how much is lacking where there is none for so many."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    where = "on the disk"
    if lies_in_memory(folder):
        fits = budget_in_force(memory_budget_bytes)
        if fits is not None and fits < free:
            free, where = fits, "in memory"
    if needed_bytes + _RESERVE_BYTES <= free:
        return
    lacking = needed_bytes + _RESERVE_BYTES - free
    text = (
        f"no room for a replica: {format_bytes(needed_bytes)} are needed and "
        f"{format_bytes(free)} are free {where}, {format_bytes(lacking)} too few"
    )
    raise OSError(errno.ENOSPC, text, folder)
