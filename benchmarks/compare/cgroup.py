"""A memory cgroup for the ranks of a load, so that a checkpoint can be larger than their memory.

Of version 1 or 2, whichever this machine has. Touches no group that it did not make.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

MIB = 2**20
_REMOVE_ATTEMPTS = 50
_REMOVE_PAUSE_S = 0.1
_PLACES = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)


@contextmanager
def memory_group(limit_mib: int | None) -> Iterator[str]:
    """The folder of a new group with this limit; "" without one.

    Raises OSError where none can be made.
    """
    if limit_mib is None:
        yield ""
        return
    folder = _make(limit_mib)
    try:
        yield str(folder)
    finally:
        _remove(folder)


def within(group: str, command: Sequence[str]) -> list[str]:
    """`command` in the group from its first instruction on; as it is where that is ""."""
    if not group:
        return list(command)
    enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
    return ["sh", "-c", enter, group, *command]


def limit_file(group: str) -> str:
    """The name of the file in a group's folder that holds its limit in bytes."""
    names = [limit for _, limit in _PLACES if Path(group, limit).exists()]
    return names[0]


def _remove(folder: Path) -> None:
    """Tries for a while: what a rank has started may outlive it by a moment."""
    for _ in range(_REMOVE_ATTEMPTS):
        with suppress(OSError):
            folder.rmdir()
            return
        time.sleep(_REMOVE_PAUSE_S)
    folder.rmdir()


def _make(limit_mib: int) -> Path:
    reason = "this machine mounts no cgroups"
    for parent, limit in _PLACES:
        folder = parent / f"shardahead-compare-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError as error:
            reason = str(error)
            continue
        try:
            (folder / limit).write_text(str(limit_mib * MIB))
            return folder
        except OSError as error:
            reason = str(error)
            folder.rmdir()
    raise OSError(f"--memory-mib needs a memory cgroup: {reason}")
