"""What the page cache holds of a checkpoint, and dropping it from there.

It asks the kernel and never guesses; it starts no threads.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from shardahead import _core
from shardahead.checkpoint.shards import Files, resolve_shards

_EVICT_ATTEMPTS = 5
_EVICT_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class FileResidency:
    """How much of one file is in the page cache.

    `resident_bytes` is what can be used at once, and None where the kernel does not say; `reason`
    then tells why. `pending_bytes` is what is there and cannot be used: pages that are being read,
    and those whose read failed, which stay. None where that is not known; then `resident_bytes` may
    count them. `source` is "cachestat", "mincore" where that told less or was all that answered, or
    "unknown". `cachestat_errno` is why cachestat did not answer, EOPNOTSUPP on an overlay, of which
    it tells nothing; else 0.
    """

    path: str
    size_bytes: int
    resident_bytes: int | None
    source: str
    reason: str
    pending_bytes: int | None = 0
    cachestat_errno: int = 0


def residency(files: Files) -> list[FileResidency]:
    """How much of each file is in the page cache, in consumption order.

    `files` as for `prefetch_files`. Unknown is said as unknown: the kernel answers only the owner
    of a file, or who may write to it. Raises as `prefetch_files` does.
    """
    return [residency_of(shard.path) for shard in resolve_shards(files)]


def evict(files: Files) -> list[FileResidency]:
    """Asks the kernel to drop the files from the page cache; returns what is resident afterwards.

    What was just written is written back first. Pages that some process has mapped stay, and so do
    those that are still being read. `files` as for `prefetch_files`; raises as it does.
    """
    return [evict_file(shard.path) for shard in resolve_shards(files)]


def residency_of(path: str) -> FileResidency:
    """`residency` of one file."""
    return _file_residency(path, _core.residency(os.fsencode(path)))


def evict_file(path: str) -> FileResidency:
    """`evict` of one file."""
    encoded = os.fsencode(path)
    found = _core.evict(encoded)
    for _ in range(_EVICT_ATTEMPTS - 1):
        if not found.resident_bytes and not found.pending_bytes:
            break
        time.sleep(_EVICT_PAUSE_SECONDS)  # reads in flight hold their pages
        found = _core.evict(encoded)
    return _file_residency(path, found)


def _file_residency(path: str, found: _core.FileResidency) -> FileResidency:
    reason = found.reason
    if reason and found.errno_value:
        reason = f"{reason} (cachestat: {os.strerror(found.errno_value)})"
    return FileResidency(
        path,
        found.size_bytes,
        found.resident_bytes,
        found.source,
        reason,
        found.pending_bytes,
        found.errno_value,
    )
