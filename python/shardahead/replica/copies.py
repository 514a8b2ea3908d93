"""Threads that copy blocks of a checkpoint into its replica, some at once. Which blocks, and what
is to be done about those that are copied, or cannot be read, others say.

put() and the end are for one thread; what it was given is called by the threads here.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence

from shardahead import _core
from shardahead.checkpoint.opening import open_regular
from shardahead.checkpoint.shards import Shard
from shardahead.replica.layout import Block


class Copies:
    """Used in a `with` statement, whose end waits for all copies, and raises what one has met: an
    error of a target, or of `copied` or `unreadable`. `copied` is given a block and its digest;
    `unreadable` the error of one that could not be read.
    """

    def __init__(
        self,
        sources: Sequence[Shard],
        targets: Sequence[str],
        threads: int,
        copied: Callable[[Block, int], object],
        unreadable: Callable[[OSError], object],
    ) -> None:
        self._sources = sources
        self._targets = targets
        self._copied = copied
        self._unreadable = unreadable
        self._queue: queue.Queue[Block | None] = queue.Queue(threads)
        self._in_flight: set[Block] = set()
        self._guard = threading.Lock()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"shardahead-copy-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Copies:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        if error is None:
            self._raise()

    def put(self, block: Block) -> None:
        """Waits while all threads have something to do."""
        self._raise()
        with self._guard:
            self._in_flight.add(block)
        self._queue.put(block)

    def passed(self, block: Block) -> int:
        """How far into the file of `block`, which is put next, all has been copied."""
        with self._guard:
            offsets = [each.offset for each in self._in_flight if each.file == block.file]
        return min([block.offset, *offsets])

    def _raise(self) -> None:
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        pair = _Pair()
        while (block := self._queue.get()) is not None:
            try:
                if not self._errors:  # else the queue is emptied, so that nobody waits at it
                    self._copy(pair, block)
            except BaseException as error:
                self._errors.append(error)
            finally:
                with self._guard:
                    self._in_flight.discard(block)
        pair.close()

    def _copy(self, pair: _Pair, block: Block) -> None:
        shard, target = self._sources[block.file], self._targets[block.file]
        try:
            source, copy = pair.of(shard, target)
            names = os.fsencode(shard.path), os.fsencode(target)
            digest = _core.copy_block(source, names[0], copy, names[1], block.offset, block.length)
        except OSError as error:
            if error.filename != shard.path:
                raise
            self._unreadable(error)
            return
        self._copied(block, digest)


class _Pair:
    """A shard and its copy, open: those of which a thread copied last. Most of its next blocks are
    of the same.
    """

    def __init__(self) -> None:
        self._path = ""
        self._descriptors: list[int] = []

    def of(self, shard: Shard, target: str) -> tuple[int, int]:
        """Raises OSError with the name of the one that cannot be opened, or is another by now."""
        if self._path != shard.path:
            self.close()
            source, status = open_regular(shard.path)
            self._descriptors.append(source)
            shard.require_unchanged(status.st_size)
            # What is copied is there. Where the next block is another node's, the kernel would
            # read on into it.
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_RANDOM)
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptors.append(os.open(target, flags))
            self._path = shard.path
        source, copy = self._descriptors
        return source, copy

    def close(self) -> None:
        self._path = ""
        while self._descriptors:
            os.close(self._descriptors.pop())
