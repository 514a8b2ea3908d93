"""Whether what `warm` brought in is there for the next process: on some mounts, as of SMB and 9p, a
file's pages go with its last close(), at once or a moment later.

Opens files, and may wait for storage. Any thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from shardahead.checkpoint.shards import Shard
from shardahead.node.filesystems import CLOSED
from shardahead.node.mounts import Mount, mount_of
from shardahead.node.page_keeping import keeping_reason
from shardahead.node.residency import residency_of
from shardahead.units import format_bytes, quoted

#: So many of the shards tell of all: each is opened once more.
_MOST_LOOKED_AT = 3
_REMOTE = ("network", "user_space", "unknown")
_STEP_SECONDS = 0.01
_MOST_CLOSING_SECONDS = 1.0
_MOST_DEFERRED_SECONDS = 5.0
#: Beyond what the mount says: its clock ticks.
_MORE_SECONDS = 0.3


def lost_by_close(shards: Sequence[Shard]) -> str | None:
    """Why the shards are not warm for others, None where they are. To be asked once this process
    has let go of the files, all of which were resident; where another has one open it is kept.
    """
    with suppress(OSError):  # there may be no /proc here; what has gone since, a load will tell
        return _lost_by_close(shards)
    return None


def _lost_by_close(shards: Sequence[Shard]) -> str | None:
    looked_at = [shard for shard in _some(shards) if shard.size_bytes]
    mounts = {shard.path: mount_of(shard.path) for shard in looked_at}
    looked_at = [each for each in looked_at if mounts[each.path].mount_class in _REMOTE]
    if not looked_at or not _wait_closed(shard.path for shard in looked_at):
        return None
    time.sleep(max(deferred_seconds(mounts[shard.path]) for shard in looked_at))
    for shard in looked_at:
        resident_bytes = residency_of(shard.path).resident_bytes
        if resident_bytes is not None and resident_bytes < shard.size_bytes // 2:
            return (
                f"once its files were closed {format_bytes(resident_bytes)} of "
                f"{format_bytes(shard.size_bytes)} of {quoted(os.path.basename(shard.path))} were "
                f"left: {keeping_reason(CLOSED, shard.path)}; --keep holds them open"
            )
    return None


def deferred_seconds(mount: Mount) -> float:
    """For how long a file stays open after its last close(): SMB's client says so."""
    with suppress(ValueError):
        said = float(mount.option("closetimeo") or 0)
        return min(said + _MORE_SECONDS, _MOST_DEFERRED_SECONDS) if said > 0 else 0.0
    return 0.0


def _some(shards: Sequence[Shard]) -> list[Shard]:
    """The first, those between, the last."""
    if len(shards) <= _MOST_LOOKED_AT:
        return list(shards)
    step = (len(shards) - 1) / (_MOST_LOOKED_AT - 1)
    return [shards[round(i * step)] for i in range(_MOST_LOOKED_AT)]


def _wait_closed(paths: Iterable[str]) -> bool:
    """Files are closed by a thread that nobody waits for. False where one stays open."""
    ours = {os.path.realpath(path) for path in paths}
    until = time.monotonic() + _MOST_CLOSING_SECONDS
    while _open_files() & ours:
        if time.monotonic() > until:
            return False
        time.sleep(_STEP_SECONDS)
    return True


def _open_files() -> set[str]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return found
