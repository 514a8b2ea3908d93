"""Bytes that a storage has served so far, as the kernel counts them. Changes nothing.

For NFS from /proc/self/mountstats, for a file system on a block device from the device's counters:
those count every process of the node. For others there is no such counter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import shardahead

Counter = Callable[[], int]
_SECTOR_BYTES = 512
_SERVER_READ_FIELD = 4  # of "bytes:", after what applications read and wrote


def counter_of(folder: Path) -> tuple[Counter | None, str]:
    """The counter of the storage that `folder` is on, and where it is from or why there is none."""
    mount = shardahead.mount_of(folder)
    if mount.type in ("nfs", "nfs4"):
        return lambda: nfs_bytes(
            Path("/proc/self/mountstats").read_text(), mount.mount_point
        ), "mountstats"
    device = os.stat(folder).st_dev
    statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    if statistics.exists():
        return lambda: block_bytes(statistics.read_text()), str(statistics)
    return None, f"not told: no counter for {mount.type or 'this mount'}"


def nfs_bytes(mountstats: str, mountpoint: str) -> int:
    """Bytes that the server sent for READs of this mount."""
    ours = False
    for line in mountstats.splitlines():
        if line.startswith("device "):
            match = re.match(r"device .* mounted on (.*) with fstype ", line)
            ours = match is not None and _unescaped(match[1]) == mountpoint
        elif ours and line.strip().startswith("bytes:"):
            return int(line.split()[1:][_SERVER_READ_FIELD])
    raise ValueError(f"mountstats does not know {mountpoint}")


def block_bytes(statistics: str) -> int:
    """Bytes read, of a block device's stat file."""
    return int(statistics.split()[2]) * _SECTOR_BYTES


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)
