"""Shards that are kept open, and locked in memory where that is asked for, and what is resident of
them. What it takes of descriptors and memory is looked at before.

May wait for storage; one thread at a time.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Collection, Sequence

from shardahead import _core
from shardahead.checkpoint.shards import Shard
from shardahead.command.failure_text import failure_text
from shardahead.command.following import Seen
from shardahead.node.memory import memory_budget
from shardahead.units import format_bytes

#: Of descriptors, besides those of the shards: for the prefetch and all else.
SPARE_DESCRIPTORS = 128
#: Locked at once; between two of them it can be stopped.
LOCK_STEP_BYTES = 64 << 20


def seen_of(shard: Shard) -> Seen:
    return Seen(shard.size_bytes, shard.modified_nanoseconds, shard.device, shard.inode)


def require_descriptors(count: int) -> None:
    """Raises the soft limit of this process as far as it goes. Raises OSError, with the limit and
    the need, where `count` shards cannot be kept open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = count + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or need <= soft:
        return
    if hard != resource.RLIM_INFINITY and need > hard:
        raise OSError(
            f"--keep keeps {count} shards open, which takes {need} descriptors with those of the "
            f"prefetch, and RLIMIT_NOFILE allows this process {hard} (ulimit -Hn): raise it"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def require_lockable(sizes_bytes: Sequence[int], locked_bytes: int = 0) -> None:
    """Raises the soft limit of this process as far as it goes. Raises OSError, with the limit and
    the need, where files of these sizes cannot be locked beside `locked_bytes`, or do not fit in
    memory.
    """
    page = resource.getpagesize()
    more_bytes = sum(-(-size // page) * page for size in sizes_bytes)
    need = more_bytes + locked_bytes
    if not more_bytes:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard != resource.RLIM_INFINITY and need > hard and not _core.locks_beyond_limit():
        raise OSError(
            f"--lock locks {format_bytes(need)} in memory, and RLIMIT_MEMLOCK allows this process "
            f"{format_bytes(hard)} (ulimit -Hl): raise it (LimitMEMLOCK= of a unit of systemd, "
            "--ulimit memlock=-1 of a container), or give it CAP_IPC_LOCK"
        )
    budget = memory_budget()
    if budget.budget_bytes is not None and more_bytes > budget.budget_bytes:
        raise OSError(
            f"--lock takes {format_bytes(more_bytes)} of memory that nothing else gets back, and "
            f"what may be filled is {budget.text()}"
        )


class KeptShards:
    """Those shards of a checkpoint that this process keeps open. With `lock` also locked: shard i
    by local rank i mod local size.
    """

    def __init__(self, *, lock: bool, local_rank: int, local_size: int) -> None:
        self._lock = lock
        self._local_rank, self._local_size = local_rank, local_size
        self._files: dict[str, tuple[Seen, _core.KeptFile]] = {}
        self._locked: dict[str, int] = {}
        self.lock_problem: str | None = None

    @property
    def paths(self) -> list[str]:
        return list(self._files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for _, file in self._files.values())

    @property
    def locked_bytes(self) -> int:
        return sum(self._locked.values())

    def hold(self, shards: Sequence[Shard], fresh: Collection[str] = ()) -> None:
        """These, and no others, are kept open from now on. Those that are it already are opened
        again where they are `fresh`: where the path leads to another file. Raises OSError where one
        cannot be, or all of them are too many.
        """
        require_descriptors(len(shards))
        wanted = {shard.path: seen_of(shard) for shard in shards}
        for path in [path for path in self._files if path not in wanted]:
            self.let_go(path)
        for path, seen in wanted.items():
            known = self._files.get(path)
            if known and path not in fresh and seen.is_alike(known[0]):
                continue
            self.let_go(path)
            self._files[path] = (seen, _core.KeptFile(os.fsencode(path)))

    def let_go(self, path: str) -> None:
        self._files.pop(path, None)
        self._locked.pop(path, None)

    def require_lockable(self, shards: Sequence[Shard]) -> None:
        """What `lock_all` would lock of these beside what it has. Raises OSError as
        `require_lockable` does.
        """
        if self._lock:
            mine = [s.size_bytes for s in self._mine(shards) if s.path not in self._locked]
            require_lockable(mine, self.locked_bytes)

    def lock_all(self, shards: Sequence[Shard], stopped: Callable[[], bool]) -> None:
        """Locks what is this rank's to lock, unless it is stopped. What cannot be locked is in
        `lock_problem`.
        """
        self.lock_problem = None
        if not self._lock:
            return
        try:
            self.require_lockable(shards)
            for shard in self._mine(shards):
                if shard.path in self._files and shard.path not in self._locked:
                    self._lock_file(shard.path, stopped)
        except OSError as error:
            self.lock_problem = failure_text(error)

    def missing(self) -> tuple[dict[str, int], int | None]:
        """By path, how much of a kept shard is not resident, of those of which something is not;
        and all that is resident. None where the kernel does not tell that.
        """
        missing: dict[str, int] = {}
        resident_bytes = 0
        known = True
        for path, (_, file) in self._files.items():
            found = file.resident_bytes()
            known = known and found is not None
            if found is not None:
                resident_bytes += found
                if found < file.size_bytes:
                    missing[path] = file.size_bytes - found
        return missing, resident_bytes if known else None

    def replaced(self) -> list[str]:
        """Paths that lead to something else by now, or to nothing. They are kept no longer."""
        paths = self.paths
        statuses = _core.statuses([os.fsencode(path) for path in paths])
        gone = []
        for path, status in zip(paths, statuses, strict=True):
            if status is None:
                if not os.path.lexists(path):
                    gone.append(path)
                continue
            _, size, device, inode, modified = status
            if not Seen(size, modified, device, inode).is_alike(self._files[path][0]):
                gone.append(path)
        for path in gone:
            self.let_go(path)
        return gone

    def _mine(self, shards: Sequence[Shard]) -> list[Shard]:
        return [s for i, s in enumerate(shards) if i % self._local_size == self._local_rank]

    def _lock_file(self, path: str, stopped: Callable[[], bool]) -> None:
        file = self._files[path][1]
        self._locked[path] = 0
        try:
            for offset in range(0, file.size_bytes, LOCK_STEP_BYTES):
                if stopped():
                    return
                length = min(LOCK_STEP_BYTES, file.size_bytes - offset)
                file.lock(offset, length)
                self._locked[path] += length
        except OSError:
            del self._locked[path]  # not all of it is, so it is tried again the next time
            raise
