"""A pass over a checkpoint that reads tensors into memory of their own: mode "pread".

No mapping and no prefetch into the page cache: for mounts that do not keep pages. The threads that
read are the core's (csrc/reader/tensor_reader.h); here is what they are to read, some shards ahead.
One consumer at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from shardahead import _core
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.safetensors_header import Header, TensorRange, parse_header
from shardahead.checkpoint.shards import Shard
from shardahead.node.memory import budget_in_force
from shardahead.prefetch.options import PrefetchOptions
from shardahead.units import quoted
from shardahead.weights.tensor_maker import check_dtypes, tensor_from

if TYPE_CHECKING:
    import torch

    ShardWeights = tuple[int, Iterator[tuple[TensorRange, torch.Tensor]]]

_HEADERS_AHEAD = 4
_HEADER_THREADS = 16  # a round trip each: a thousand shards should not take a thousand of them
_LEAST_AHEAD_BYTES = 8 * 1024**2
_GROUP_BYTES = 1024**2
AHEAD_SHARE = 4  # of the memory budget

# Tensors that adjoin in a file and are read as one: those, and their part.
_Group = tuple[list[TensorRange], int]


class TensorReading:
    """The wanted tensors of `shards`. `keep(index, header)` gives a header's wanted part.

    `meet`, where given: other ranks of the node read the same at about the same time, from a mount
    that keeps no pages for them. They share what is read, through mappings; once these are made it
    is called to wait for the others.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        options: PrefetchOptions,
        keep: Callable[[int, Header], Header],
        *,
        meet: Callable[[], None] | None = None,
    ) -> None:
        self._shards = shards
        self._keep = keep
        self._ahead_bytes = ahead_bytes(options)
        self.reader: _core.TensorReader = _core.TensorReader(
            paths=[os.fsencode(shard.path) for shard in shards],
            threads=options.threads,
            ahead_bytes=self._ahead_bytes,
            through_mappings=meet is not None,
            found=_found(shards),
        )
        if meet is not None:
            self.reader.wait_opened()
            meet()
        self._header_parts: list[int] = []
        self._plans: list[list[_Group] | Exception] = []
        self._queued_bytes = 0  # of tensors that have not been taken
        self._add_headers()

    def close(self) -> None:
        """Ends the reading, and returns at once."""
        self.reader.close()

    def weights(self) -> Generator[ShardWeights, None, None]:
        """Shards in order, each with its wanted tensors."""
        for index in range(len(self._shards)):
            yield index, self._weights_of(index)

    def _weights_of(self, index: int) -> Iterator[tuple[TensorRange, torch.Tensor]]:
        while len(self._plans) <= index:
            self._plan_next()
        path = self._shards[index].path
        plan = self._plans[index]
        self._plans[index] = []
        if isinstance(plan, Exception):
            raise plan
        for tensors, part in plan:
            self._plan_ahead()
            made = self._take(tensors, part)
            made.reverse()
            while made:
                result = made.pop()
                if isinstance(result, OSError):
                    raise result
                weight = tensor_from(path, *result)
                yield result[0], weight
                del result, weight  # the consumer decides how long a tensor lives

    def _take(
        self, tensors: list[TensorRange], part: int
    ) -> list[tuple[TensorRange, _core.TensorBytes | None] | OSError]:
        """The tensors up to the first that cannot be read, and its error."""
        taken = self.reader.take(part)
        self._queued_bytes -= _bytes_of(tensors)
        made: list[tuple[TensorRange, _core.TensorBytes | None] | OSError] = []
        error = taken.error
        for i, tensor in enumerate(tensors):
            unreadable = tensor.end - tensors[0].offset > taken.readable_bytes
            if error is not None and (unreadable or tensor.runs is not None):
                error.strerror = f"{error.strerror} (reading tensor {quoted(tensor.name)})"
                return [*made, error]
            made.append((tensor, taken.tensor(i) if tensor.length else None))
        return made

    def _plan_ahead(self) -> None:
        """Keeps the threads supplied, without waiting."""
        while (
            len(self._plans) < len(self._header_parts)
            and self._queued_bytes <= self._ahead_bytes
            and self.reader.ready(self._header_parts[len(self._plans)])
        ):
            self._plan_next()

    def _plan_next(self) -> None:
        """Queues the tensors of one more shard; waits for its header."""
        index = len(self._plans)
        plan: list[_Group] | Exception
        try:
            groups = neighbours(self._header(index).tensors)
            plan = [(group, self._add(index, group)) for group in groups]
            self._queued_bytes += sum(_bytes_of(group) for group, _ in plan)
        except (CheckpointError, OSError) as error:
            # Ours only, and when its turn comes: what a signal handler raises is the caller's.
            if isinstance(error, OSError) and not hasattr(error, "operation"):
                raise
            plan = error
        self._plans.append(plan)
        self._add_headers()

    def _add(self, index: int, group: Sequence[TensorRange]) -> int:
        first, runs = group[0], group[0].runs
        if runs is not None:
            return self.reader.add_runs(index, first.offset, runs)
        return self.reader.add(index, first.offset, [t.length for t in group])

    def _header(self, index: int) -> Header:
        path = self._shards[index].path
        taken = self.reader.take(self._header_parts[index])
        if taken.error is not None:
            raise taken.error
        whole = parse_header(path, bytes(memoryview(taken.tensor(0))), taken.file_bytes)
        header = self._keep(index, whole)
        check_dtypes(path, header.tensors)
        return header

    def _add_headers(self) -> None:
        wanted = min(len(self._plans) + _HEADERS_AHEAD, len(self._shards))
        while len(self._header_parts) < wanted:
            self._header_parts.append(self.reader.add_header(len(self._header_parts)))


def weights_of_one(
    shard: Shard, options: PrefetchOptions, keep: Callable[[Header], Header]
) -> Iterator[tuple[TensorRange, torch.Tensor]]:
    """The wanted tensors of one shard that could not be mapped: little ahead, for where address
    space is short. What is in the page cache, a prefetch has brought there.
    """
    options = replace(options, window_bytes=_LEAST_AHEAD_BYTES)
    reading = TensorReading([shard], options, lambda _index, whole: keep(whole))
    try:
        for _, weights in reading.weights():
            yield from weights
    finally:
        reading.close()


def read_headers(shards: Sequence[Shard]) -> Iterator[Header]:
    """The header of each shard, read in parallel. Ctrl-C ends the wait for it."""
    reader = _core.TensorReader(
        paths=[os.fsencode(shard.path) for shard in shards],
        threads=min(_HEADER_THREADS, len(shards)),
        ahead_bytes=1,
        found=_found(shards),
    )
    try:
        for part, shard in zip([*map(reader.add_header, range(len(shards)))], shards, strict=True):
            taken = reader.take(part)
            if taken.error is not None:
                raise taken.error
            yield parse_header(shard.path, bytes(memoryview(taken.tensor(0))), taken.file_bytes)
    finally:
        reader.close()


def _found(shards: Sequence[Shard]) -> list[tuple[int, int, int, int]]:
    return [(s.size_bytes, s.device, s.inode, s.modified_nanoseconds) for s in shards]


def _bytes_of(group: Sequence[TensorRange]) -> int:
    return sum(tensor.wanted_bytes for tensor in group)


def ahead_bytes(options: PrefetchOptions) -> int:
    """How much may have been read ahead: `window_bytes` where one is given, else the core's
    default; never more than a quarter of what memory leaves, unless that is next to nothing.
    """
    wanted = options.window_bytes or _core.DEFAULT_AHEAD_BYTES
    budget = budget_in_force(options.memory_budget_bytes)
    return wanted if budget is None else min(wanted, max(budget // AHEAD_SHARE, _LEAST_AHEAD_BYTES))


def neighbours(tensors: Sequence[TensorRange]) -> Iterator[list[TensorRange]]:
    """Small tensors without a gap between or within them, together: waiting costs 10 to 20 us each
    time.
    """
    group: list[TensorRange] = []
    for tensor in tensors:
        if group and not (
            tensor.offset == group[-1].end
            and tensor.end - group[0].offset <= _GROUP_BYTES
            and tensor.runs is None
            and group[-1].runs is None
        ):
            yield group
            group = []
        group.append(tensor)
    if group:
        yield group
