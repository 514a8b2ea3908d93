"""What a mount delivers: latency and rates, of bytes that are not in the page cache.

What is resident already is never measured: its rate would be that of memory. What was measured
stays resident. Reads through the engine, as any prefetch does. For one thread.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shardahead import _core
from shardahead.checkpoint.shards import PathLike, Shard, resolve_shards
from shardahead.node.topology import local_topology
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.options import Options, Strategy, is_disabled, resolve_options
from shardahead.prefetch.start import start_prefetch
from shardahead.units import format_bytes

LATENCY_READS = 16
STREAMS = 4  # threads
MIN_RATE_BYTES = 4 * 1024**2  # less says more about starting threads than about the mount
_MIN_BLOCK_BYTES, _MAX_BLOCK_BYTES = 4 * 1024**2, 16 * 1024**2

Ranges = dict[PathLike, list[tuple[int, int]]]


@dataclass(frozen=True)
class Rate:
    """How fast `read_bytes` that were not resident came, with this strategy and so many threads.

    `strategy_used` is what "auto" came to; `error` why not all of it came, or "".
    """

    strategy: str
    strategy_used: str
    threads: int
    read_bytes: int
    seconds: float
    error: str

    @property
    def bytes_per_second(self) -> float:
        return self.read_bytes / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Measurement:
    """Latency and rates of one mount; `reason` says what was not measured and why, or is "".

    `latency_seconds` is the median of `latency_reads` reads of one page each, far from each other.
    `plain` is one reader with pread, who depends on the kernel's readahead; `one_stream` and
    `streams` are Shardahead's own, with 1 and 4 threads. `kept_bytes` is what of `read_bytes`, all
    that was read here, was resident afterwards.
    """

    latency_seconds: float | None = None
    latency_reads: int = 0
    one_stream: Rate | None = None
    streams: Rate | None = None
    plain: Rate | None = None
    read_bytes: int = 0
    kept_bytes: int = 0
    reason: str = ""


def measure(shards: Sequence[Shard], read_bytes: int) -> Measurement:
    """Reads up to `read_bytes` bytes of `shards`, files of one mount. Raises OSError where a file
    cannot be opened or a page not be read.
    """
    if read_bytes <= 0:
        return Measurement(reason="0 bytes were allowed for it")
    if is_disabled():
        return Measurement(reason="SHARDAHEAD_DISABLE is set")
    before = _resident_bytes(shards)
    if before is None:
        return Measurement(reason="residency unknown, so it might measure the page cache")
    absent = _absent(shards, read_bytes)
    if not absent and before < sum(shard.size_bytes for shard in shards):
        return Measurement(reason="what is not resident is being read, or could not be read")
    if not absent:
        return Measurement(reason="all resident")
    latencies = _latencies(absent)
    latency = statistics.median(latencies) if latencies else None
    left = _sum(_absent(shards, read_bytes))
    if left < 3 * MIN_RATE_BYTES:
        return Measurement(latency, len(latencies), reason=_too_little(left))
    # The plain reader last: its readahead brings in bytes that nobody counts.
    ways: list[tuple[Strategy, int]] = [("auto", 1), ("auto", STREAMS), ("pread", 1)]
    one_stream, streams, plain = (
        _rate(_absent(shards, left // 3), strategy, threads) for strategy, threads in ways
    )
    return Measurement(
        latency,
        len(latencies),
        one_stream,
        streams,
        plain,
        read_bytes=sum(rate.read_bytes for rate in (one_stream, streams, plain) if rate),
        kept_bytes=max(0, (_resident_bytes(shards) or 0) - before),
    )


def _too_little(left_bytes: int) -> str:
    needed = format_bytes(3 * MIN_RATE_BYTES)
    return f"no rates: {format_bytes(left_bytes)} may be read and are not resident, {needed} needed"


def _resident_bytes(shards: Sequence[Shard]) -> int | None:
    total = 0
    for shard in shards:
        found = _core.residency(os.fsencode(shard.path)).resident_bytes
        if found is None:
            return None
        total += found
    return total


def _absent(shards: Sequence[Shard], limit_bytes: int) -> Ranges:
    """The first `limit_bytes` of the shards that are not resident."""
    ranges: Ranges = {}
    for shard in shards:
        if limit_bytes <= 0:
            break
        # None: somebody else's by now.
        found = _core.absent_ranges(os.fsencode(shard.path), limit_bytes)
        if found:
            ranges[shard.path] = found
            limit_bytes -= sum(length for _, length in found)
    return ranges


def _sum(ranges: Ranges) -> int:
    return sum(length for found in ranges.values() for _, length in found)


def _steps(ranges: Ranges) -> Iterator[tuple[PathLike, int]]:
    """The middle of each step, so that neighbours are far away."""
    step_bytes = _core.PROBE_STEP_BYTES
    for path, found in ranges.items():
        for offset, length in found:
            for at in range(offset, offset + length, step_bytes):
                yield path, at + min(step_bytes, offset + length - at) // 2


def _latencies(absent: Ranges) -> list[float]:
    steps = list(_steps(absent))
    # A step that was touched is not absent any more: most are left to the rates.
    count = max(1, min(LATENCY_READS, len(steps) // 8))
    seconds = []
    for path, offset in steps[:: -(-len(steps) // count)]:  # one by one, for Ctrl-C
        seconds += _core.read_latencies(os.fsencode(path), [offset])
    return seconds


def _rate(ranges: Ranges, strategy: Strategy, threads: int) -> Rate | None:
    if not ranges:  # others read them meanwhile
        return None
    share = _sum(ranges) // (4 * threads)  # some blocks for each thread
    options = resolve_options(
        Options(
            threads=threads,
            block_size=max(_MIN_BLOCK_BYTES, min(share, _MAX_BLOCK_BYTES)) // 2**20 * 2**20,
            strategy=strategy,
            partition="block",
            window_bytes=0,
        )
    )
    shards = resolve_shards(list(ranges))
    handle = start_prefetch(
        shards,
        options,
        local_topology(local_rank=0, local_size=1),
        spans=[ranges[shard.path] for shard in shards],
        consumer=False,
        tries_mounts=False,  # what is measured is reading, also where pages do not stay
    )
    with handle:
        handle.wait()
        report = handle.report()
        # The kernel's own readahead may have asked for some of it, which then counts as resident
        # while it is on its way. None of it was before, so all of it came, once it is here.
        if report.complete:
            consumer = PrefetchConsumer(handle)
            for index, shard in enumerate(handle.shards):
                for offset, length in ranges[shard.path]:
                    consumer.fetch_now(index, offset, length)
    return Rate(
        strategy,
        report.strategy_used,
        threads,
        report.planned_bytes - report.failed_bytes - report.left_out_bytes,
        report.seconds + handle.report().waited_seconds,
        report.incomplete_reason() or "",
    )
