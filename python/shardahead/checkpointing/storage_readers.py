"""Storage readers of torch.distributed.checkpoint that load through a prefetch.

The plan of a load says which ranges of which files a rank reads. The ranks of a node bring these in
together, each byte once, in the order in which they are read. What is loaded is what the readers of
torch load; where nothing can be prefetched, they do it. Not for two loads at the same time, as
those of torch are not.
"""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from math import prod
from typing import IO, Any, NamedTuple

from safetensors import safe_open
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.futures import Future

from shardahead import _core
from shardahead.checkpoint.asked_parts import AskedParts
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.folder_rule import natural_sort_key
from shardahead.checkpoint.safetensors_header import TensorRange, spans_of
from shardahead.checkpoint.shards import resolve_shards
from shardahead.checkpointing.node_plan import NodePlan, by_node, in_file_order
from shardahead.checkpointing.planned_reading import PlannedReading
from shardahead.node.launcher import LocalTopology
from shardahead.node.memory import budget_in_force
from shardahead.node.topology import local_topology, node_identity
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import (
    Options,
    PrefetchOptions,
    asked_by,
    is_disabled,
    resolve_options,
)
from shardahead.weights.shard_reading import read_headers

logger = logging.getLogger("shardahead")


class _Place(NamedTuple):
    """Where the bytes of an item of a plan lie: `length` from `offset` on, of which those of `runs`
    are looked at, and `spans` are brought in.
    """

    file: str
    offset: int
    length: int
    item: ReadItem
    spans: Sequence[tuple[int, int]]
    runs: _core.ByteRuns | None = None


class _PrefetchingReader(FileSystemReader):
    """What both readers have in common."""

    _holds_mappings = False

    def _set_up(self, options: Options | None) -> None:
        self._options: Options = asked_by({"options": options})
        self._reading: PlannedReading | None = None
        self.prefetch: PrefetchHandle | None = None

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        plan = super().prepare_local_plan(plan)
        wanted: dict[str, int] = {}
        for item in plan.items:
            file = self._file_of(item)
            wanted[file] = wanted.get(file, 0) + self._bytes_of(item)
        return replace(plan, storage_data=NodePlan(node_identity()[0], tuple(wanted.items())))

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        plans = super().prepare_global_plan(plans)
        nodes = [each.storage_data for each in plans if isinstance(each.storage_data, NodePlan)]
        if len(nodes) < len(plans):
            return plans  # not all ranks have such a reader
        return [
            replace(plan, storage_data=node)
            for plan, node in zip(plans, by_node(nodes), strict=True)
        ]

    def _file_of(self, item: ReadItem) -> str:
        return str(self.storage_data[item.storage_index].relative_path)

    @abstractmethod
    def _bytes_of(self, item: ReadItem) -> int:
        """About how much is read for it."""

    def _path_of(self, file: str) -> str:
        return os.path.join(os.fspath(self.path), file)

    @abstractmethod
    def _places(self, items: Sequence[ReadItem]) -> Iterator[_Place]:
        """In any order."""

    @contextmanager
    def _prefetched(self, plan: LoadPlan) -> Iterator[list[_Place] | None]:
        """The items of the plan in the order in which they are to be read, while they are brought
        in; None where the reader of torch is to read them by itself.
        """
        self.prefetch = None
        places = None
        if plan.items and not is_disabled():
            try:
                places = self._begin(plan)
            except (OSError, ValueError, CheckpointError) as error:
                logger.warning("nothing of %s is prefetched: %s", self.path, error)
        reading = self._reading
        try:
            yield places
            if reading is not None:
                reading.end()
        finally:
            self._reading = None
            if reading is not None:
                reading.close()

    def _begin(self, plan: LoadPlan) -> list[_Place] | None:
        places = sorted(
            self._places(plan.items), key=lambda place: (natural_sort_key(place.file), place.offset)
        )
        wanted: dict[str, list[tuple[int, int]]] = {}
        for place in places:
            wanted.setdefault(self._path_of(place.file), []).extend(place.spans)
        options = resolve_options(self._options)
        node = plan.storage_data
        if isinstance(node, NodePlan):
            files = node.files
            where = LocalTopology(node.local_rank, node.local_size, "the load plans of all ranks")
            options = _share_of(options, node.groups)
        else:
            files = in_file_order(place.file for place in places)
            where = local_topology()
        if not files:
            return None
        reading = PlannedReading(
            [self._path_of(file) for file in files],
            wanted,
            options,
            where,
            entry=type(self).__name__,
            holds_mappings=self._holds_mappings,
        )
        self.prefetch = reading.handle
        if not reading.keeps_pages():
            reading.close()
            return None
        self._reading = reading
        return places


class PrefetchingFileSystemReader(_PrefetchingReader):
    """`FileSystemReader` of torch, for checkpoints that `dcp.save` wrote: `.metadata` and
    `*.distcp`.

        dcp.load(state, storage_reader=PrefetchingFileSystemReader("/runs/step-1000"))

    path: the folder of the checkpoint.
    options: as for `prefetch_files`; the ranks of a node are known by their plans.

    `prefetch` is the PrefetchHandle of the last load, whose report remains; None where nothing was
    prefetched: under `SHARDAHEAD_DISABLE`, or where that could not begin, which is in the log.

    Bytes that cannot be read are an OSError with errno, filename, operation and offset; dcp.load
    raises it within a CheckpointException of its own. Raises TypeError where `options` is no
    `Options`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *args: Any,
        options: Options | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, *args, **kwargs)
        self._set_up(options)

    def _bytes_of(self, item: ReadItem) -> int:
        return int(self.storage_data[item.storage_index].length)

    def _places(self, items: Sequence[ReadItem]) -> Iterator[_Place]:
        for item in items:
            stored = self.storage_data[item.storage_index]
            span = (stored.offset, stored.length)
            yield _Place(stored.relative_path, *span, item, [span])

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        with self._prefetched(plan) as places:
            if places is not None:
                plan = replace(plan, items=[place.item for place in places])
            return super().read_data(plan, planner)

    def _slice_file(self, file: IO[bytes], sinfo: Any) -> IO[bytes]:
        """Called for each item, just before it is read."""
        if self._reading is not None:
            path = self._path_of(sinfo.relative_path)
            self._reading.come_to(path, sinfo.offset, sinfo.length)
        return super()._slice_file(file, sinfo)


class PrefetchingHuggingFaceStorageReader(_PrefetchingReader, HuggingFaceStorageReader):
    """`HuggingFaceStorageReader` of torch, for folders of safetensors files; of each tensor the
    part that this rank's plan names is brought in.

        dcp.load(state, storage_reader=PrefetchingHuggingFaceStorageReader("/models/llama"))

    path, options, prefetch and errors: as for `PrefetchingFileSystemReader`. `thread_count` counts
    where nothing is prefetched.
    """

    _holds_mappings = True

    def __init__(self, path: str, thread_count: int = 1, *, options: Options | None = None) -> None:
        super().__init__(path, thread_count)
        self._set_up(options)

    def _bytes_of(self, item: ReadItem) -> int:
        element: int = self.storage_data[item.storage_index].dtype.itemsize
        return prod(item.lengths) * element

    def _places(self, items: Sequence[ReadItem]) -> Iterator[_Place]:
        files = in_file_order(self._file_of(item) for item in items)
        shards = [shard for file in files for shard in resolve_shards(self._path_of(file))]
        tensors: dict[tuple[str, str], TensorRange] = {}
        for file, header in zip(files, read_headers(shards), strict=True):
            tensors.update(((file, tensor.name), tensor) for tensor in header.tensors)
        for item in items:
            file, name = self._file_of(item), item.storage_index.fqn
            whole = tensors.get((file, name))
            if whole is None:
                raise ValueError(f"{self._path_of(file)} has no tensor {name!r}")
            (part,) = AskedParts({name: _slices(item)}).narrowed([whole])
            yield _Place(file, part.offset, part.length, item, spans_of([part]), part.runs)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        with self._prefetched(plan) as places:
            if places is None:
                return super().read_data(plan, planner)
            for file, its in groupby(places, key=lambda place: place.file):
                self._read_file(self._path_of(file), its, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _read_file(self, path: str, places: Iterator[_Place], planner: LoadPlanner) -> None:
        with safe_open(path, framework="pt") as opened:
            for place in places:
                if self._reading is not None:
                    self._reading.come_to(path, place.offset, place.length, place.runs)
                item = place.item
                tensor = opened.get_slice(item.storage_index.fqn)[_slices(item)]
                target = planner.resolve_tensor(item).detach()
                if target.size() != tensor.size():
                    raise ValueError(
                        f"{path}: {item.storage_index.fqn} has the shape {tuple(tensor.size())} "
                        f"where {tuple(target.size())} is asked for"
                    )
                target.copy_(tensor)
                planner.commit_tensor(item, target)


def _slices(item: ReadItem) -> tuple[slice, ...]:
    """Of the tensor as it is stored, by dimension."""
    return tuple(
        slice(offset, offset + length)
        for offset, length in zip(item.storage_offsets, item.lengths, strict=True)
    )


def _share_of(options: PrefetchOptions, groups: int) -> PrefetchOptions:
    """What holds for the node, divided among `groups` of ranks that prefetch by themselves."""
    if groups == 1:
        return options
    budget = budget_in_force(options.memory_budget_bytes)
    return replace(
        options,
        memory_budget_bytes=None if budget is None else budget // groups,
        rate_limit_bytes_per_s=-(-options.rate_limit_bytes_per_s // groups),
        inflight_bytes=-(-options.inflight_bytes // groups),
    )
