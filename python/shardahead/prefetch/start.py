"""Prefetching files into the page cache: what is asked for is checked, then the core starts.

It is not needed for correctness: prefetching is advice, and a load without it reads the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from shardahead import _core
from shardahead.arguments import shown, whole_number
from shardahead.checkpoint.shards import Files, Shard, resolve_shards
from shardahead.node.fixed_share import proven_share
from shardahead.node.launcher import LocalTopology
from shardahead.node.topology import local_topology
from shardahead.prefetch.figures import LoadFigures, PrefetchFigures
from shardahead.prefetch.fitted_blocks import fit_blocks
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.load_record import begin_record
from shardahead.prefetch.options import (
    Options,
    Partition,
    PrefetchOptions,
    Size,
    Strategy,
    asked_by,
    is_disabled,
    resolve_options,
)

#: By path, the (offset, length) ranges. The keys of a mapping are of just one type to a type
#: checker, which would refuse a dict of str for one of paths of any kind.
Spans: TypeAlias = Mapping[Any, Sequence[tuple[int, int]]]


def prefetch_files(
    files: Files,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    *,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    window_bytes: Size | None = None,
    spans: Spans | None = None,
    consumer: bool = False,
    inflight_bytes: Size | None = None,
    options: Options | None = None,
) -> PrefetchHandle:
    """Starts bringing `files` into the page cache in the background, and returns at once.

    Keep the handle: dropping it cancels the prefetch.

    files: paths of shards, or one path: a shard, a folder, or an index (`*.index.json`, or of a
        variant, `*.index.fp16.json`). They are read in the index's order of first use, else in
        natural order (shard 2 before shard 10). Of a folder one checkpoint is taken, by the rule of
        docs/settings.md.
    local_rank, local_size: this process and how many share the work on this node; see
        `local_topology` for the default. They count with `partition` "block" or "file".
    threads: worker threads of this process, 1 to 256; 4 by default.
    block_size: bytes claimed and advised at once, 4 KiB to 1 GiB; 16 MiB by default, on Lustre the
        nearest multiple of the stripe size of the largest file, where stripes are up to 64 MiB.
    strategy: "auto" (default), "populate", "fadvise", "readahead" or "pread".
    partition: "dynamic" (default): all who load the same files on this node claim blocks from one
        board in shared memory; where that cannot be shared it falls back to "block", and the report
        says why. "block": block i to local rank i mod local size; "file": file i.
    window_bytes: how far to be ahead of the slowest consumer, with `consumer=True`; else the
        prefetch ends after that many bytes of the checkpoint. 0 is no limit. By default there is
        none where all that is wanted fits `memory_budget()`; else it is that budget, or a quarter
        of it with a consumer, and what all consumers of the node have passed is dropped. The budget
        is looked at twice a second.
    spans: for some of the files, the (offset, length) ranges in bytes that are wanted; files that
        are not named are wanted whole.
    inflight_bytes: what the whole node may have in flight, with `partition` "dynamic"; 0, the
        default, is found by measuring: from 4 blocks, 64 MiB at least, less or more. A value
        that one process sets holds for all that load the same files meanwhile; of several the
        least.
    consumer: the caller reports what it has consumed, through `PrefetchHandle.consumed`.
    options: `Options`, which count where the keyword is not given.

    Sizes are numbers of bytes, or text with a unit: "16MiB".

    Raises ValueError (an argument and its value; no files; an empty folder), TypeError,
    CheckpointError for what is wrong with an index, and FileNotFoundError, PermissionError,
    IsADirectoryError or OSError with errno and filename where a file is missing, unreadable or not
    a regular file: all before any thread starts. What goes wrong later is in the handle's report
    and never raises.
    """
    resolved = resolve_options(asked_by(locals()))
    shards = resolve_shards(files)
    topology = local_topology(local_rank=local_rank, local_size=local_size)
    return start_prefetch(
        shards,
        resolved,
        topology,
        spans=_spans_of(shards, spans),
        consumer=consumer,
        entry="prefetch_files",
    )


def start_prefetch(
    shards: Sequence[Shard],
    options: PrefetchOptions,
    topology: LocalTopology,
    *,
    spans: Sequence[Sequence[tuple[int, int]] | None],
    consumer: bool,
    consumer_releases: bool = True,
    tries_mounts: bool = True,
    even_disabled: bool = False,
    logs_end: bool = True,
    entry: str = "",
    learning: Learning | None = None,
) -> PrefetchHandle:
    """The prefetch of resolved shards with resolved options; `spans` as the core takes them. A
    consumer that does not release may hold what it has passed, which cannot be dropped then.
    `even_disabled`: SHARDAHEAD_DISABLE does not count. Without `logs_end` the caller tells how it
    ended. `entry`: whose load this prefetch is; "" of one that is a part of a load, or of none.
    `learning`, of the same shards, narrows the spans, and is told what is touched of its mappings.
    """
    if not even_disabled and is_disabled():
        spans = [[] for _ in shards]
    elif learning is not None:
        spans = learning.narrowed(spans)
    options = fit_blocks(options, shards)

    def fixed_share() -> tuple[int, int]:
        nonlocal topology
        topology = proven_share(topology)
        return topology.rank, topology.size

    core = _core.Prefetch(
        paths=[os.fsencode(shard.path) for shard in shards],
        spans=spans,
        block_bytes=options.block_bytes,
        partition=options.partition,
        board_folder=os.fsencode(options.board_folder),
        inflight_bytes=options.inflight_bytes,
        local_rank=topology.rank,
        local_size=topology.size,
        rate_limit_bytes_per_s=options.rate_limit_bytes_per_s,
        strategy=options.strategy,
        threads=options.threads,
        window_bytes=options.window_bytes,
        memory_budget_bytes=options.memory_budget_bytes,
        consumer=consumer,
        consumer_releases=consumer_releases,
        tries_mounts=tries_mounts,
        doubted=learning is not None and learning.has_profile,
        touched=learning.touched if learning is not None else None,
        fixed_share=fixed_share,
    )
    figures = PrefetchFigures(core, options, topology, shards[0].path, learning)
    record = None
    if entry:
        load = LoadFigures()
        load.prefetch = figures
        load.learning = learning
        load.wanted_bytes = sum(shard.size_bytes for shard in shards) if consumer else 0
        record = begin_record(entry, shards, options, topology, load)
    return PrefetchHandle(figures, shards, record, logs_end=logs_end)


def _spans_of(
    shards: Sequence[Shard], spans: Spans | None
) -> list[Sequence[tuple[int, int]] | None]:
    """`spans` by shard. Raises ValueError for a path that is no shard, or a range that is none, and
    TypeError for what is no mapping, or no sequence of ranges.
    """
    wanted: list[Sequence[tuple[int, int]] | None] = [None] * len(shards)
    if spans is None:
        return wanted
    if not isinstance(spans, Mapping):
        raise TypeError(f"spans must be a mapping of paths to ranges, not {shown(spans)}")
    position = {os.path.abspath(shard.path): i for i, shard in enumerate(shards)}
    for path, ranges in spans.items():
        index = position.get(os.path.abspath(os.fsdecode(path)))
        if index is None:
            raise ValueError(f"spans names a file that is not in files: {os.fsdecode(path)!r}")
        wanted[index] = _checked_ranges(os.fsdecode(path), ranges)
    return wanted


def _checked_ranges(path: str, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    if not isinstance(ranges, Iterable):
        raise TypeError(f"spans of {path!r} must be a sequence of ranges, not {shown(ranges)}")
    checked = []
    for entry in ranges:
        try:
            offset, length = entry
        except (TypeError, ValueError):
            message = f"spans of {path!r}: not an (offset, length): {shown(entry)}"
            raise ValueError(message) from None
        offset = whole_number(f"spans of {path!r}: offset", offset)
        length = whole_number(f"spans of {path!r}: length", length)
        if offset < 0 or length < 0 or offset + length >= 2**63:
            raise ValueError(f"spans of {path!r}: not an (offset, length): {(offset, length)}")
        checked.append((offset, length))
    return checked
