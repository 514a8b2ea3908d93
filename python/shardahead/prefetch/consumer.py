"""What whoever reads the files of a prefetch needs of it: their bytes, now, and its window.

For the package alone: the weight iterators, and the commands that look at what they brought in. The
rest is `handle`, as users have it. Any thread; in a forked child as the handle.
"""

from __future__ import annotations

from contextlib import suppress

from shardahead import _core
from shardahead.node.page_keeping import keeps_pages
from shardahead.prefetch.figures import PrefetchFigures
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.profile import LEAST_GRAIN_BYTES
from shardahead.prefetch.profile_watch import give_up_if_wrong

#: For threads that have nothing more to do, or are about their last blocks.
LAST_BLOCKS_SECONDS = 0.2
_PIECE_BYTES = 64 * 1024**2  # between two looks at Ctrl-C


class PrefetchConsumer:
    """The consumer of the prefetch of `handle`, which it holds. Offsets and lengths in bytes."""

    def __init__(self, handle: PrefetchHandle) -> None:
        self.handle = handle
        self.figures: PrefetchFigures = handle._figures
        self._core = handle._core
        self._waited = self.figures.waited

    def consumed(
        self,
        file: int,
        offset: int,
        needed_offset: int | None = None,
        held_from_file: int | None = None,
    ) -> None:
        """`PrefetchHandle.consumed`, of numbers that are ours."""
        needed = offset if needed_offset is None else needed_offset
        self._core.consumed(file, offset, needed, held_from_file)

    def end_consumer(self) -> bool:
        """No window waits for this consumer any more. Returns whether it was the last one of this
        node, as far as is known.
        """
        return self._core.end_consumer()

    def finish(self) -> bool:
        """The same, of a consumer that has come to its end: the threads end by themselves then,
        which it waits for a moment, so that it is no cancellation.
        """
        last = self.end_consumer()
        with suppress(TimeoutError):
            self.handle.wait(LAST_BLOCKS_SECONDS)
        return last

    def keeps_pages(self) -> bool | None:
        """Whether the mounts leave in the page cache what is brought in; None where that is not
        known. Waits until it is found out, which takes one page, for 10 s at most.
        """
        return keeps_pages(self.keeping())

    def keeping(self) -> str:
        """The same as the core has it (csrc/node/keeping.h)."""
        return self._core.keeping()

    def meet(self, ranks: int) -> None:
        """Once all files have been opened for the last time: waits until `ranks` participants of
        this node have done so, 0.5 s for those that have not come, 2 s for those that are about it.
        Where every open() empties the page cache, what is read before has to be read again. The
        time spent is the report's `waited_seconds`.
        """
        with self._waited.measured():
            self._core.meet(ranks)

    def map(self, file: int) -> _core.FileMapping:
        """`handle.shards[file]` in memory. Raises OSError, ESTALE or ENODATA, where it is no longer
        the file that was looked at first.
        """
        self.handle.shards[file].require_unchanged(self._core.size_bytes(file))
        return self._core.map(file)

    def fetch_now(
        self, file: int, offset: int, length: int, runs: _core.ByteRuns | None = None
    ) -> None:
        """Returns when these bytes of `handle.shards[file]`, or of them those of `runs`, are in the
        page cache, whoever brings them. Raises OSError with errno, filename, operation and offset
        where they cannot be read. The time spent is the report's `waited_seconds`.
        """
        with self._waited.measured():
            if runs is not None:
                self._core.fetch_runs_now(file, offset, runs)
                return
            for at in range(offset, offset + length, _PIECE_BYTES):
                self._core.fetch_now(file, at, min(_PIECE_BYTES, offset + length - at))

    def fetch_learned(self, learning: Learning | None, file: int, offset: int, length: int) -> None:
        """`fetch_now` of what only the profile of `learning`, where there is one, says that it is
        wanted: returns at once where that is given up, by now or meanwhile.
        """
        if learning is None or not learning.has_profile:
            self.fetch_now(file, offset, length)
            return
        if length <= LEAST_GRAIN_BYTES and learning.is_open:
            # What is known by the grain may be the end of what lies before it: not worth the wait
            # for all between.
            with self._waited.measured():
                self._core.fetch_before_its_turn(file, offset, length)
            return
        with self._waited.measured():
            end = offset + length
            for at in range(offset, end, _PIECE_BYTES):
                if not self._core.fetch_unless_misled(file, at, min(_PIECE_BYTES, end - at)):
                    break
            else:
                return
        give_up_if_wrong(learning, self.handle)
        if not learning.given_up:
            self.fetch_now(file, at, end - at)
