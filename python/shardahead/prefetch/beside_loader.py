"""A prefetch beside a loader that knows nothing of it: safetensors, transformers, torch.load, ...

How far the loader has got is seen from outside: which pages of the files this process has touched,
how far it has read its descriptors. Where that cannot be seen, the prefetch stays at the beginning
of a checkpoint that does not fit in memory, and brings in one that does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from shardahead import _core
from shardahead.checkpoint.shards import Files, Shard, resolve_shards
from shardahead.node.memory import budget_in_force
from shardahead.node.topology import local_topology
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.learning import begin_learning
from shardahead.prefetch.options import (
    Options,
    Partition,
    Size,
    Strategy,
    asked_by,
    resolve_options,
)
from shardahead.prefetch.start import start_prefetch
from shardahead.prefetch.touch_follower import TouchFollower

logger = logging.getLogger("shardahead")

_LOOK_SECONDS = 0.02
_IDLE_SECONDS = 0.5  # without a window: memory may become short while it runs
# Beyond what was seen last; a loader that went further within _LOOK_SECONDS is seen next time.
_SCAN_BYTES = 256 * 1024**2
# Of the memory budget: a file that is larger, and mapped, is not followed.
MAPPED_SHARE = 2
# A file of which no more was read is not begun: some loaders look at all headers first.
_HEADER_BYTES = 4 * 1024**2


class Place(NamedTuple):
    """Everything before byte `offset` of file `file` has been read by the loader; files before
    `held_from` are not mapped by it any more, so that their pages can be dropped.
    """

    file: int
    offset: int
    held_from: int


def place_of(
    positions: Sequence[tuple[int, bool]],
    sizes: Sequence[int],
    reach_bytes: int,
    most_held_bytes: int,
) -> Place:
    """Where a loader is, from (end of what it touched, whether it has it mapped) of each file.

    A file counts as passed once a later one has been begun, unless what was left out between them
    is more than `reach_bytes`: a loader that reads in another order stays where it left the order.
    A file of more than `most_held_bytes` that is mapped is not followed before it is passed.
    """
    file = 0
    while (later := _next_begun(positions, sizes, file, reach_bytes)) is not None:
        file = later
    held = (i for i in range(file) if positions[i][1])
    offset = min(positions[file][0], sizes[file])
    if positions[file][1] and sizes[file] > most_held_bytes:
        offset = 0
    return Place(file, offset, next(held, file))


def _next_begun(
    positions: Sequence[tuple[int, bool]], sizes: Sequence[int], file: int, reach_bytes: int
) -> int | None:
    left_out = 0 if positions[file][0] > _HEADER_BYTES else sizes[file]
    for later in range(file + 1, len(positions)):
        if left_out > reach_bytes:
            return None
        if positions[later][0] > _HEADER_BYTES:
            return later
        left_out += sizes[later]
    return None


class Finished:
    """Which files a loader is done with: begun, mapped for a while, and then no more for
    two looks in a row, however far it was seen to have got: it is faster than a look.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self._mapped = [False] * len(sizes)  # ever
        self._unmapped_looks = [0] * len(sizes)

    def look(self, positions: Sequence[tuple[int, bool]]) -> list[tuple[int, bool]]:
        """The positions, those of finished files at the end."""
        found = []
        for i, (end, mapped) in enumerate(positions):
            self._mapped[i] |= mapped
            self._unmapped_looks[i] = 0 if mapped else self._unmapped_looks[i] + 1
            done = self._mapped[i] and self._unmapped_looks[i] > 1 and end > _HEADER_BYTES
            found.append((self._sizes[i] if done else end, mapped))
        return found


class _Follower(threading.Thread):
    """Tells a prefetch how far the loader has got. A daemon: it must not hold up the exit."""

    def __init__(self, handle: PrefetchHandle, budget_bytes: int | None) -> None:
        super().__init__(name="shardahead-follow", daemon=True)
        self._prefetch = handle  # not _handle: from Python 3.13 on threads have one
        # What is mapped cannot be dropped. A file that fills the memory by itself makes the kernel
        # evict what was brought in for it: 1.3 times the bytes, where plain reading needs 1.0.
        self._most_held_bytes = (
            sys.maxsize if budget_bytes is None else budget_bytes // MAPPED_SHARE
        )
        self._sizes = [shard.size_bytes for shard in handle.shards]
        self._paths = [os.fsencode(shard.path) for shard in handle.shards]
        self._stopped = threading.Event()
        self._process = os.getpid()
        self.start()

    def stop(self) -> None:
        if os.getpid() == self._process:  # a forked child has no such thread, which may hold a lock
            self._stopped.set()

    def run(self) -> None:
        try:
            self._follow()
        except Exception as error:  # the prefetch stays where it is, and the load goes on
            logger.info("the progress of the loader is not followed any more: %s", error)

    def _follow(self) -> None:
        progress = _core.LoaderProgress(self._paths)
        finished = Finished(self._sizes)
        while True:
            window_bytes = self._prefetch.report().window_bytes
            if self._stopped.wait(_LOOK_SECONDS if window_bytes else _IDLE_SECONDS):
                return
            if window_bytes:
                positions = finished.look(progress.look(max(window_bytes, _SCAN_BYTES)))
                place = place_of(positions, self._sizes, window_bytes, self._most_held_bytes)
                self._prefetch.consumed(place.file, place.offset, None, place.held_from)


def _follow(handle: PrefetchHandle, budget_bytes: int | None) -> _Follower | None:
    try:
        return _Follower(handle, budget_bytes)
    except RuntimeError as error:  # no more threads: the prefetch stays at the beginning
        logger.info("the progress of the loader is not followed: %s", error)
        return None


@contextmanager
def prefetching(
    checkpoint: Files,
    *,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    window_bytes: Size | None = None,
    inflight_bytes: Size | None = None,
    learn: str | os.PathLike[str] | None = None,
    learn_key: str | None = None,
    options: Options | None = None,
) -> Iterator[PrefetchHandle]:
    """Prefetches `checkpoint` while the body of the `with` statement loads it by whatever means.

        with shardahead.prefetching("/models/llama"):
            model = AutoModelForCausalLM.from_pretrained("/models/llama")

    Where the checkpoint does not fit in memory, the prefetch stays a small window ahead of the
    loader, a sixteenth of `memory_budget()`. It sees how far the loader has got by the pages of the
    files that this process has touched and by the offsets of its descriptors; a loader that reads
    the files in another order, in another process, or past the page cache gets only the beginning
    prefetched, and so does a file of more than half of the memory budget that it maps as a whole:
    what is mapped cannot be dropped. Files that all local ranks have passed and unmapped are
    dropped then.

    With `learn`, a folder, the bytes that the body touched are kept there for the next load of a
    checkpoint with the same files, by the same rank of a job of the same size, or with the same
    `learn_key`; that one brings in only those. What it touches beside them is read as ever. See
    docs/learned.md for what cannot be seen.

    Gives the PrefetchHandle; the prefetch ends with the body. Arguments and errors as for
    `prefetch_files`; what goes wrong later is in the handle's report and never raises.
    """
    resolved = resolve_options(asked_by(locals()))
    shards: Sequence[Shard] = resolve_shards(checkpoint)
    topology = local_topology(local_rank=local_rank, local_size=local_size)
    learning = begin_learning(shards, resolved, topology, reorder=True)
    if learning is not None:
        shards = learning.shards
    handle = start_prefetch(
        shards,
        resolved,
        topology,
        spans=[None] * len(shards),
        consumer=True,
        consumer_releases=False,
        entry="prefetching",
        learning=learning,
    )
    follower = _follow(handle, budget_in_force(resolved.memory_budget_bytes))
    touches = None if learning is None else TouchFollower(learning, handle)
    try:
        yield handle
        if touches is not None and learning is not None:
            touches.end()
            learning.end(complete=True)
    except Exception as error:
        handle._note_failed_load(error)
        raise
    finally:
        if follower is not None:
            follower.stop()
        if touches is not None:
            touches.stop()
        handle.stop(timeout=0)
