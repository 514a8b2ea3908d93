"""One pass over a safetensors checkpoint.

What its weight iterators have in common. It waits for the bytes of each tensor before it makes the
tensor, so that an error is an OSError and not a SIGBUS. One consumer at a time; `weights_of` may be
called from several threads for different shards.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from shardahead import _core
from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import AskedParts, Slices
from shardahead.checkpoint.order import consumed_offsets, in_order, order_of
from shardahead.checkpoint.safetensors_header import (
    Header,
    TensorRange,
    header_digest,
    parse_header,
    spans_of,
)
from shardahead.checkpoint.shards import SAFETENSORS_SUFFIXES, Files, was_replaced
from shardahead.checkpoint.wanted import Wanted
from shardahead.node.memory import budget_in_force
from shardahead.node.residency import evict
from shardahead.prefetch.byte_ranges import Ranges, common, merged
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.options import Options
from shardahead.prefetch.profile import LEAST_GRAIN_BYTES
from shardahead.prefetch.profile_watch import ProfileWatch, give_up_if_wrong
from shardahead.weights.checkpoint_pass import (
    CheckpointPass,
    LoadProgress,
    Weight,
    importing_torch,
)
from shardahead.weights.mapped_header import content_of, naming, refuses_mappings
from shardahead.weights.shard_reading import TensorReading, neighbours, read_headers, weights_of_one
from shardahead.weights.tensor_maker import TensorMaker, check_dtypes

if TYPE_CHECKING:
    import torch

    ShardWeights = tuple[int, Iterator[tuple[TensorRange, torch.Tensor]]]

#: [start, stop) of the first dimension of a tensor, by its name and shape; None for all of it.
UsedRows: TypeAlias = "Callable[[str, Sequence[int]], tuple[int, int] | None]"

logger = logging.getLogger("shardahead")


class Load(CheckpointPass):
    """One pass over such a checkpoint.

    `used_rows(name, shape)`: which rows of this tensor the consumer will look at, which is given
    all of it as of any other: [start, stop) of its first dimension, or None for all. The others'
    bytes are neither brought in nor waited for; where they are looked at all the same they come in
    by faults. A profile of the last load knows better, and mode "pread" reads all.
    """

    def __init__(
        self,
        files: Files,
        *,
        options: Options,
        topology: tuple[int | None, int | None],
        prefetch: bool,
        names: Names | None,
        drop_after: bool,
        progress: Callable[[LoadProgress], None] | None,
        slices: Slices | None = None,
        order: str = "offset",
        strict: bool = False,
        used_rows: UsedRows | None = None,
    ) -> None:
        with importing_torch("the weight iterators need torch and safetensors"):
            import safetensors  # noqa: F401
            import torch  # noqa: F401
        super().__init__(
            files,
            SAFETENSORS_SUFFIXES,
            options=options,
            topology=topology,
            prefetch=prefetch,
            names=names,
            slices=slices,
            strict=strict,
            drop_after=drop_after,
            progress=progress,
            entry="safetensors_weights_iterator",
        )
        self.reading: TensorReading | None = None
        self.headers: list[Header | None] = [None] * len(self.shards)
        # Not a method: the reading has it, and would keep what keeps the reading.
        self._keep = partial(
            _keep_wanted, self.wants, self.parts, self._orders(order), self.headers
        )
        self._reads_instead = False  # of a mapping, which was refused
        self._tell_that = [True]  # emptied by the one that tells: pop() is atomic
        self._current = 0  # the shard that the consumer is at
        self._needed: dict[int, int] = {}  # the end of what is waited for, by shard
        self._looked_at: list[Ranges] = []  # by shard, where some is not
        if self.mode == "pread" or (self.learning is not None and self.learning.has_profile):
            used_rows = None
        spans: list[Sequence[tuple[int, int]] | None] = [None] * len(self.shards)
        narrows = names is not None or bool(self.parts) or used_rows is not None
        if narrows or progress is not None:
            self._read_headers()
        if narrows:
            spans = [self._spans(index, used_rows) for index in range(len(self.shards))]
        if used_rows is not None:
            self._looked_at = [merged(each) for each in spans if each is not None]
        if self.mode == "pread":
            self.reading = TensorReading(self.shards, self.options, self._keep)
            self.figures.reader = self.reading.reader
        self._start(spans, releases=True)
        self._watch: ProfileWatch | None = None
        if self.learning is not None and self.learning.has_profile and self.prefetch is not None:
            self._watch = ProfileWatch(self.learning, self.prefetch.handle)

    def _orders(self, order: str) -> list[str]:
        if order == "offset":
            return [order] * len(self.shards)
        budget = budget_in_force(self.options.memory_budget_bytes)
        return [order_of(order, shard.size_bytes, budget) for shard in self.shards]

    def decide(self) -> TensorReading | None:
        """How tensors are got at where that was left open; waits until it is known. The reading,
        or None for mappings.
        """
        self._settle_mode()
        if self.mode == "pread" and self.reading is None:
            meet = self._meet if self._where.size > 1 else None
            self.reading = TensorReading(self.shards, self.options, self._keep, meet=meet)
            self.figures.reader = self.reading.reader
        return self.reading

    def close(self) -> None:
        if self._watch is not None:
            self._watch.stop()
        if self.reading is not None:
            self.reading.close()
        super().close()

    def _meet(self) -> None:
        if self.prefetch is not None:
            self.prefetch.meet(self._where.size)

    def _can_map(self, prefetch: PrefetchConsumer) -> bool:
        if not super()._can_map(prefetch):
            return False
        first_of_device = {shard.device: i for i, shard in reversed([*enumerate(self.shards)])}
        for index in first_of_device.values():
            try:
                prefetch.map(index)
            except OSError as error:
                if not refuses_mappings(error):
                    continue  # it is told when its turn comes
                prefetch.handle.cancel()
                self._say_read_instead(index, error)
                return False
        return True

    def _say_read_instead(self, index: int, error: OSError) -> None:
        with suppress(IndexError):  # it has been told
            self._tell_that.pop()
            logger.warning(
                "%r cannot be mapped (%s): tensors are read into memory of their own",
                self.shards[index].path,
                error.strerror,
            )

    @property
    def _mapped(self) -> PrefetchConsumer | None:
        return self.prefetch if self._reads_instead else super()._mapped

    def header(self, index: int) -> Header:
        """The header of one shard that has been read, with its wanted tensors only."""
        header = self.headers[index]
        assert header is not None
        return header

    def _header_of(self, index: int, mapping: _core.FileMapping) -> Header:
        """The same, read from the file that is mapped. Waits for its bytes."""
        path = self.shards[index].path
        content = content_of(mapping, partial(self._bring_in, index))
        if self.learning is not None:
            self.learning.touched.mark(index, 0, len(content))
        known = self.headers[index]
        if known is None:
            return self._keep(index, parse_header(path, content, mapping.size_bytes))
        if header_digest(content) != known.digest:
            raise was_replaced(path)
        return known

    def _map(self, index: int) -> _core.FileMapping:
        if self.prefetch is not None:
            return self.prefetch.map(index)
        return _core.FileMapping(os.fsencode(self.shards[index].path))

    def weights_of(self, index: int) -> Iterator[tuple[TensorRange, torch.Tensor]]:
        """One shard's wanted tensors, each once its bytes are there."""
        known = self.headers[index]
        if known is not None and not known.tensors:
            return
        try:
            mapping = self._map(index)
        except OSError as error:
            if not refuses_mappings(error):
                raise
            self._say_read_instead(index, error)
            self._reads_instead = True
            self.mode = "pread"
            keep = partial(self._keep, index)
            yield from weights_of_one(self.shards[index], self.options, keep)
            return
        path = self.shards[index].path
        wanted = self._header_of(index, mapping).tensors
        mapping.close()
        check_dtypes(path, wanted)
        tensor_of = TensorMaker(path, mapping, partial(self._expected, index))
        for group in neighbours(wanted):
            together = self._bring_in_group(index, group)
            for tensor in group:
                if not together:
                    where = (index, tensor.offset, tensor.length, tensor.runs)
                    naming(tensor, partial(self._bring_in_expected, *where))
                yield tensor, naming(tensor, partial(tensor_of, tensor))

    def iterate(self, shards: Generator[ShardWeights, None, None]) -> Generator[Weight, None, None]:
        """All weights, with the bookkeeping that belongs to the consumer's own pace."""
        total = sum(t.wanted_bytes for header in self.headers if header for t in header.tensors)
        consumed = 0
        try:
            for index, weights in shards:
                self._begin(index)
                consumed_to: list[int] | None = None
                for number, (tensor, weight) in enumerate(weights):
                    yield tensor.name, weight
                    del weight  # the consumer decides how long a tensor lives
                    if self.learning is not None:
                        self._learn(self.learning, index, tensor)
                    consumed += tensor.wanted_bytes
                    self.figures.consumed_bytes = consumed
                    if consumed_to is None:
                        consumed_to = consumed_offsets(self.header(index).tensors)
                    self._consumed(index, consumed_to[number])
                    if self.progress is not None:
                        self.progress(LoadProgress(tensor.name, consumed, total))
                self._consumed(index, self.shards[index].size_bytes)
            last = self._was_last()
        except Exception as error:
            self._failed(error)
            raise
        finally:
            shards.close()
            self.close()
        if self.drop_after and last:
            evict([shard.path for shard in self.shards])

    def _learn(self, learning: Learning, index: int, tensor: TensorRange) -> None:
        """What the consumer's passing a tensor tells."""
        places = spans_of([tensor])
        learning.passed(index, places)
        if self.mode == "pread":
            for place in places:
                learning.touched.mark(index, *place)

    def _bring_in_group(self, index: int, group: Sequence[TensorRange]) -> bool:
        """False where something in it cannot be read: each tensor then meets its own error."""
        if self.prefetch is None:
            return True
        try:
            length = group[-1].end - group[0].offset
            self._bring_in_expected(index, group[0].offset, length, group[0].runs)
        except OSError as error:
            # Ours only: what a signal handler raises, a TimeoutError say, is the caller's.
            if not hasattr(error, "operation"):
                raise
            return False
        return True

    def _expected(self, index: int, offset: int, length: int) -> Sequence[tuple[int, int]] | None:
        """What of these bytes of a tensor is to be there before it is handed out; None for all."""
        if self._looked_at:
            return common(((offset, length),), self._looked_at[index])
        return None if self.learning is None else self.learning.expected(index, offset, length)

    def _bring_in_expected(
        self, index: int, offset: int, length: int, runs: _core.ByteRuns | None = None
    ) -> None:
        if self.prefetch is not None and self.learning:
            give_up_if_wrong(self.learning, self.prefetch.handle)
        # Of runs the caller has said that it wants them.
        expected = self._expected(index, offset, length) if runs is None else None
        if expected is None:
            self._bring_in(index, offset, length, runs)
            return
        # The small ones first: what is asked for later may wait behind all that is on its way.
        for part in sorted(expected, key=lambda part: part[1] > LEAST_GRAIN_BYTES):
            self._bring_in(index, *part, learning=self.learning)

    def _bring_in(
        self,
        index: int,
        offset: int,
        length: int,
        runs: _core.ByteRuns | None = None,
        learning: Learning | None = None,
    ) -> None:
        """`learning`: whose profile says that it is wanted."""
        if self.prefetch is None or not length:
            return
        # The window reaches to what the consumer needs next, not to what is prepared far ahead.
        self._needed[index] = offset + length
        if index == self._current:
            self.prefetch.consumed(index, 0, offset + length)
        if runs is not None:
            self.prefetch.fetch_now(index, offset, length, runs)
        else:
            self.prefetch.fetch_learned(learning, index, offset, length)

    def _begin(self, index: int) -> None:
        """The consumer comes to this shard, for which a worker may be waiting already."""
        self._current = index
        if self._mapped is not None:
            self._mapped.consumed(index, 0, self._needed.get(index))

    def _consumed(self, index: int, offset: int) -> None:
        if self._mapped is not None:
            self._mapped.consumed(index, offset)

    def _spans(self, index: int, used_rows: UsedRows | None) -> list[tuple[int, int]]:
        header = self.header(index)
        if used_rows is None:
            spans = spans_of(header.tensors)
        else:
            spans = [each for tensor in header.tensors for each in _used_spans(tensor, used_rows)]
        return [(0, header.data_offset), *spans]

    def _read_headers(self) -> None:
        for index, whole in enumerate(read_headers(self.shards)):
            self._keep(index, whole)
        self.wants.all_seen()


def _used_spans(tensor: TensorRange, used_rows: UsedRows) -> list[tuple[int, int]]:
    """What is used of it; all that is wanted where that is a part already."""
    used = None if tensor.part is not None else used_rows(tensor.name, tensor.shape)
    if used is None:
        return spans_of([tensor])
    start, stop = used
    if start >= stop or not tensor.length:
        return []
    rows = tensor.shape[0] if tensor.shape else 1
    # Rows of less than a byte may begin within one.
    begin, end = tensor.length * start // rows, -(-tensor.length * stop // rows)
    return [(tensor.offset + begin, end - begin)]


def _keep_wanted(
    wants: Wanted,
    parts: AskedParts,
    orders: Sequence[str],
    headers: list[Header | None],
    index: int,
    whole: Header,
) -> Header:
    """Keeps of a header what is wanted, in the order in which it is, and gives it.

    Raises CheckpointError where it lacks what the index says that it has, and as AskedParts does.
    """
    known = headers[index]
    if known is not None and known.digest == whole.digest:
        return known  # whoever is asked for parts is asked once
    wants.require(index, {tensor.name for tensor in whole.tensors})
    wanted = (tensor for tensor in whole.tensors if wants(index, tensor.name))
    ordered = in_order(tuple(parts.narrowed(wanted)), orders[index])
    header = headers[index] = Header(whole.data_offset, ordered, whole.digest)
    return header
