"""One pass of a consumer over a checkpoint: its shards, what is wanted of them, and its prefetch.

What passes over checkpoints of any format have in common; how tensors are made of the bytes is not
here. One consumer at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import AskedParts, Slices
from shardahead.checkpoint.shards import Files, Shard, resolve_checkpoint
from shardahead.checkpoint.wanted import Wanted
from shardahead.node.launcher import LocalTopology
from shardahead.node.topology import local_topology
from shardahead.prefetch.consumer import LAST_BLOCKS_SECONDS, PrefetchConsumer
from shardahead.prefetch.figures import LoadFigures
from shardahead.prefetch.learning import Learning, begin_learning
from shardahead.prefetch.load_record import LoadRecord, begin_record
from shardahead.prefetch.options import (
    Options,
    PrefetchOptions,
    is_disabled,
    resolve_mode,
    resolve_options,
)
from shardahead.prefetch.start import start_prefetch
from shardahead.replica.beside_load import replicated, stage_beside

if TYPE_CHECKING:
    import torch

    #: What the iterators give: a name and its tensor.
    Weight: TypeAlias = tuple[str, torch.Tensor]
else:
    # To be looked up at run time without torch: importing this package does not import it.
    Weight = tuple[str, Any]

logger = logging.getLogger("shardahead")


@dataclass(frozen=True)
class LoadProgress:
    """What the `progress` callback is given after each tensor: its name, and how much has been
    consumed so far of how much in all. Counts are in bytes of tensors; of files that torch.save
    wrote, whose tensors are not known before, in bytes of files.
    """

    name: str
    consumed_bytes: int
    total_bytes: int


class CheckpointPass:
    """`mode` is "auto" until `_settle_mode`: whether tensors are views of mappings, for which the
    prefetch brings in the bytes ("mmap"), or are read into memory of their own ("pread").
    """

    def __init__(
        self,
        files: Files,
        suffixes: Sequence[str] | None = None,
        *,
        options: Options,
        topology: tuple[int | None, int | None],
        prefetch: bool,
        names: Names | None,
        slices: Slices | None = None,
        strict: bool = False,
        drop_after: bool,
        progress: Callable[[LoadProgress], None] | None,
        entry: str,
    ) -> None:
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, not {type(progress).__name__}")
        self.mode: str = "mmap" if is_disabled() else resolve_mode(options)
        self.options: PrefetchOptions = resolve_options(options)
        self.parts: AskedParts = AskedParts(slices)
        self._prefetches = prefetch and not is_disabled()
        self._where = local_topology(local_rank=topology[0], local_size=topology[1])
        checkpoint = resolve_checkpoint(files, suffixes)
        whole = replicated(checkpoint, self.options) if self._prefetches else None
        checkpoint = whole or checkpoint
        self._stages = self._prefetches and whole is None
        self.shards: tuple[Shard, ...] = checkpoint.shards
        self.wants: Wanted = Wanted(checkpoint, names, strict=strict, sliced=self.parts.listed)
        self.prefetch: PrefetchConsumer | None = None
        self.progress = progress
        self.drop_after: bool = _checked_drop_after(
            drop_after,
            self._where,
            together=self.mode == "pread" or (prefetch and self.options.partition == "dynamic"),
        )
        self._finished = False
        self.figures: LoadFigures = LoadFigures()
        self.figures.mode = self.mode
        self.learning: Learning | None = None
        if self._prefetches:
            self.learning = begin_learning(self.shards, self.options, self._where)
            self.figures.learning = self.learning
        self._entry = entry
        self._record: LoadRecord | None = None

    def close(self) -> None:
        """Ends what runs in the background, and waits for nothing."""
        if self.prefetch is not None:
            self.prefetch.handle.stop(timeout=0)
        if self._record is not None:
            self.figures.mode = self.mode
            self._record.end("done" if self._finished else "closed")
        if self.learning is not None:
            # Tensors of their own tell less: what is known of mappings is not replaced by it.
            self.learning.end(complete=self._finished, only_if_none=self.mode == "pread")

    def _failed(self, error: Exception) -> None:
        """The load ends by it."""
        if self.prefetch is not None:
            self.prefetch.handle._note_failed_load(error)

    def _start(self, spans: Sequence[Sequence[tuple[int, int]] | None], *, releases: bool) -> None:
        """If one is wanted; then the record, whose thread no error of a file may find begun.
        `releases`: what the consumer has passed, it holds no more.
        """
        self._start_core(spans, releases=releases)
        if self._stages:
            stage_beside(self.shards, self.options, self._where)
        self._record = begin_record(
            self._entry, self.shards, self.options, self._where, self.figures
        )

    def _start_core(
        self, spans: Sequence[Sequence[tuple[int, int]] | None], *, releases: bool
    ) -> None:
        if self.mode == "pread":
            return
        if not self._prefetches:
            self.mode = "mmap"
            return
        handle = start_prefetch(
            self.shards,
            self.options,
            self._where,
            spans=spans,
            consumer=True,
            consumer_releases=releases,
            learning=self.learning,
        )
        self.prefetch = PrefetchConsumer(handle)
        self.figures.prefetch = self.prefetch.figures

    def _settle_mode(self) -> None:
        """Where it was left open; waits until what it depends on is known."""
        if self.mode == "auto" and self.prefetch is not None:
            self.mode = "mmap" if self._can_map(self.prefetch) else "pread"
            self.figures.mode = self.mode

    def _can_map(self, prefetch: PrefetchConsumer) -> bool:
        """Whether mappings are of use. Else ends the prefetch, which says why."""
        if prefetch.keeps_pages() is not False:
            return True
        with suppress(TimeoutError):
            prefetch.handle.wait(LAST_BLOCKS_SECONDS)
        # Ranks that come later must learn it from those that are there: what these read by then
        # makes the mount look as if it kept pages. Such a prefetch has ended by itself.
        if self._where.size == 1:
            prefetch.handle.cancel()
        return False

    @property
    def _mapped(self) -> PrefetchConsumer | None:
        """The prefetch, where its bytes are those that the consumer is given."""
        return None if self.mode == "pread" else self.prefetch

    def _end_consumer(self) -> bool:
        """After the last tensor. Whether no one else on this node is at the files."""
        self._finished = True
        if self._mapped is None:
            return True
        return self._mapped.finish()

    def _was_last(self) -> bool:
        """Whether no one else on this node is at the files, after the last tensor."""
        last = self._end_consumer()
        if self._mapped is None:
            return last
        report = self._mapped.handle.report()
        if not self.drop_after or self._where.size == 1 or report.partition == "dynamic":
            return last
        logger.warning(
            "drop_after: nothing is dropped, for it is not known when the other local ranks are "
            "done: %s",
            report.partition_reason,
        )
        return False


def _checked_drop_after(drop_after: bool, where: LocalTopology, *, together: bool) -> bool:
    if drop_after and where.size > 1 and not together:
        raise ValueError(
            f"drop_after=True with local_size {where.size} needs prefetch and the dynamic "
            "partition: else a rank does not know when the others are done with the files; use "
            "shardahead.evict() after a barrier of your own"
        )
    return drop_after


@contextmanager
def importing_torch(who_needs_what: str) -> Iterator[None]:
    """An ImportError within says who needs what, and how to install it."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{who_needs_what} ({error}); install with: pip install torch safetensors numpy"
        ) from error
