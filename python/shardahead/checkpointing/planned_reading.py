"""A prefetch of the ranges that a load plan names, and the reader that comes to them one after the
other. One reader; its calls on one thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shardahead import _core
from shardahead.checkpoint.shards import absolute_paths, resolve_shards
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.byte_ranges import merged
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.start import start_prefetch


class PlannedReading:
    """`paths`: the files that the ranks of this node read, the same list on each of them. `wanted`:
    of those that this rank reads the (offset, length) ranges. They are read with `come_to`, file
    after file in natural order, each from its beginning on.

    Raises as `prefetch_files` for files that are not there, before any thread starts.
    """

    def __init__(
        self,
        paths: Sequence[str],
        wanted: Mapping[str, Sequence[tuple[int, int]]],
        options: PrefetchOptions,
        topology: LocalTopology,
        *,
        entry: str,
        holds_mappings: bool,
    ) -> None:
        shards = resolve_shards(paths)
        self._index = {shard.path: index for index, shard in enumerate(shards)}
        self._holds_mappings = holds_mappings
        ranges = dict(zip(absolute_paths(wanted), wanted.values(), strict=True))
        spans = [merged(ranges.get(shard.path, ())) for shard in shards]
        self.handle: PrefetchHandle = start_prefetch(
            shards, options, topology, spans=spans, consumer=True, entry=entry
        )
        self._consumer = PrefetchConsumer(self.handle)
        self._place = (0, 0)
        first = next(((i, span[0]) for i, span in enumerate(spans) if span), None)
        if first is not None:
            # Else the window of all stays at the beginning of the first file, which this rank may
            # never come to.
            self._pass(first[0], *first[1])

    def keeps_pages(self) -> bool:
        """Whether what is brought in stays for who reads it; else it would be read twice."""
        return self._consumer.keeps_pages() is not False

    def come_to(
        self, path: str, offset: int, length: int, runs: _core.ByteRuns | None = None
    ) -> None:
        """What comes before has been read, and this is read next: returns when it is in the page
        cache. Raises OSError with errno, filename, operation and offset where it cannot be read.
        """
        index = self._index.get(absolute_paths([path])[0])
        if index is None or not length:  # a second name of a file that has its place
            return
        self._pass(index, offset, length)
        try:
            self._consumer.fetch_now(index, offset, length, runs)
        except OSError as error:
            self.handle._note_failed_load(error)
            raise

    def _pass(self, index: int, offset: int, length: int) -> None:
        if (index, offset) >= self._place:
            self._place = (index, offset)
            held_from = index if self._holds_mappings else None
            self._consumer.consumed(index, offset, offset + length, held_from)

    def end(self) -> None:
        """All has been read."""
        self._consumer.finish()

    def close(self) -> None:
        """Ends what runs in the background, and waits for nothing."""
        self.handle.stop(timeout=0)
