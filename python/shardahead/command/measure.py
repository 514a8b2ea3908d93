"""What a mount delivers: latency and rates, of bytes that are not in the page cache.

What is resident already is never measured: its rate would be that of memory. What was measured
stays resident. Reads through the engine, as any prefetch does. For one thread.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from shardahead import _core
from shardahead.checkpoint.shards import PathLike, Shard, resolve_shards
from shardahead.command.error_meanings import with_meaning
from shardahead.node.page_keeping import keeps_pages
from shardahead.node.residency import residency
from shardahead.node.topology import local_topology
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Options, Strategy, is_disabled, resolve_options
from shardahead.prefetch.start import start_prefetch
from shardahead.units import format_bytes

LATENCY_READS = 16
STREAMS = 4  # threads
MIN_RATE_BYTES = 4 * 1024**2  # less says more about starting threads than about the mount
_MIN_BLOCK_BYTES, _MAX_BLOCK_BYTES = 4 * 1024**2, 16 * 1024**2

_ASK_SECONDS = 0.005  # between two looks at how many requests wait

Ranges: TypeAlias = dict[PathLike, list[tuple[int, int]]]
Outcome: TypeAlias = Literal[
    "measured",
    "too_little",  # no rates
    "all_resident",
    "mostly_resident",  # what is not is too little for rates
    "being_read",  # or it could not be read
    "failed",  # some of it could not be read
    "residency_unknown",
    "in_memory",
    "not_allowed",
    "disabled",
]


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
    """Latency and rates of one mount; `outcome` says what was measured, or why it was not, and
    `reason` the same for people, or is "".

    `latency_seconds` is the median of `latency_reads` reads of one page each, far from each other.
    `plain` is one reader with pread, who depends on the kernel's readahead; `one_stream` and
    `streams` are Shardahead's own, with 1 and 4 threads; `peak_requests` is how many requests of
    a FUSE mount were in flight or waited to be at once, of all processes, while `streams` was
    measured, None where that cannot be told. `kept_bytes` is what of `read_bytes`, all that was
    read here, was resident afterwards; `keeping`, where that was little or nothing could be rated,
    what one page showed: csrc/node/keeping.h.
    """

    latency_seconds: float | None = None
    latency_reads: int = 0
    one_stream: Rate | None = None
    streams: Rate | None = None
    plain: Rate | None = None
    read_bytes: int = 0
    kept_bytes: int = 0
    reason: str = ""
    outcome: Outcome = "measured"
    peak_requests: int | None = None
    keeping: str = "unknown"

    @property
    def kept(self) -> bool:
        """Whether what was read stayed, as far as is known."""
        return self.kept_bytes >= self.read_bytes // 2 and keeps_pages(self.keeping) is not False


def measure(
    shards: Sequence[Shard], read_bytes: int, waiting: Callable[[], int | None] = lambda: None
) -> Measurement:
    """Reads up to `read_bytes` bytes of `shards`, files of one mount. `waiting` tells how many
    requests wait. Raises OSError where a file cannot be opened.
    """
    try:
        return _measured(shards, read_bytes, waiting)
    except OSError as error:
        if getattr(error, "operation", "open") == "open":
            raise
        return Measurement(reason=with_meaning(error), outcome="failed")


def _measured(
    shards: Sequence[Shard], read_bytes: int, waiting: Callable[[], int | None]
) -> Measurement:
    if read_bytes <= 0:
        return Measurement(reason="0 bytes were allowed for it", outcome="not_allowed")
    if is_disabled():
        return Measurement(reason="SHARDAHEAD_DISABLE is set", outcome="disabled")
    before = _resident_bytes(shards)
    if before is None:
        return Measurement(
            reason="residency unknown, so it might measure the page cache",
            outcome="residency_unknown",
        )
    absent = _absent(shards, read_bytes)
    if not absent:
        return _nothing_absent(shards, before)
    latencies = _latencies(absent)
    found = Measurement(statistics.median(latencies) if latencies else None, len(latencies))
    left = _sum(_absent(shards, read_bytes))
    if left < 3 * MIN_RATE_BYTES:
        found = _too_little(found, left, shards, read_bytes)
    else:
        found = _with_rates(found, shards, left // 3, before, waiting)
    if found.outcome not in ("measured", "failed") or not found.kept:
        found = replace(found, keeping=_keeping(_absent(shards, read_bytes)))
    return found


def _with_rates(
    found: Measurement,
    shards: Sequence[Shard],
    each_bytes: int,
    before_bytes: int,
    waiting: Callable[[], int | None],
) -> Measurement:
    errors: list[OSError] = []
    one_stream, _ = _rate(_absent(shards, each_bytes), "auto", 1, lambda: None, errors)
    streams, peak = _rate(_absent(shards, each_bytes), "auto", STREAMS, waiting, errors)
    # The plain reader last: its readahead brings in bytes that nobody counts.
    plain, _ = _rate(_absent(shards, each_bytes), "pread", 1, lambda: None, errors)
    if errors:
        found = replace(found, reason=with_meaning(errors[0]), outcome="failed")
    return replace(
        found,
        one_stream=one_stream,
        streams=streams,
        plain=plain,
        read_bytes=sum(rate.read_bytes for rate in (one_stream, streams, plain) if rate),
        kept_bytes=max(0, (_resident_bytes(shards) or 0) - before_bytes),
        peak_requests=peak,
    )


def _keeping(absent: Ranges) -> str:
    """Whether the mount keeps pages, found out as every prefetch does, on one page."""
    for path, ranges in absent.items():
        offset, length = ranges[-1]
        page = [(offset + length - 1, 1)]
        handle = _prefetch({path: page}, Options(threads=1), tries_mounts=True)
        try:
            return PrefetchConsumer(handle).keeping()
        finally:
            handle.cancel()  # not stop(), which would log what the page will say
    return "unknown"


def _nothing_absent(shards: Sequence[Shard], resident_bytes: int) -> Measurement:
    """Where no step of the files is without any page that is there."""
    left = sum(shard.size_bytes for shard in shards) - resident_bytes
    if left <= 0:
        return Measurement(
            reason="all of it is in memory, so that reading it would measure memory",
            outcome="all_resident",
        )
    if any(file.pending_bytes for file in residency([shard.path for shard in shards])):
        return Measurement(
            reason="what is not resident is being read, or could not be read", outcome="being_read"
        )
    return Measurement(
        reason=f"all but {format_bytes(left)} is in memory, so that reading it would measure "
        "memory",
        outcome="mostly_resident",
    )


def _too_little(
    found: Measurement, left_bytes: int, shards: Sequence[Shard], read_bytes: int
) -> Measurement:
    """Without rates, for want of bytes that may be read."""
    needed = 3 * MIN_RATE_BYTES
    size_bytes = sum(shard.size_bytes for shard in shards)
    reason = (
        f"no rates: {format_bytes(left_bytes)} may be read and are not resident, "
        f"{format_bytes(needed)} needed"
    )
    resident = min(size_bytes, read_bytes) >= needed
    return replace(found, reason=reason, outcome="mostly_resident" if resident else "too_little")


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


def _rate(
    ranges: Ranges,
    strategy: Strategy,
    threads: int,
    waiting: Callable[[], int | None],
    errors: list[OSError],
) -> tuple[Rate | None, int | None]:
    """The rate, and the most that `waiting` told meanwhile; what failed is added to `errors`."""
    if not ranges:  # others read them meanwhile
        return None, None
    share = _sum(ranges) // (4 * threads)  # some blocks for each thread
    block_bytes = max(_MIN_BLOCK_BYTES, min(share, _MAX_BLOCK_BYTES)) // 2**20 * 2**20
    options = Options(threads=threads, block_size=block_bytes, strategy=strategy)
    peak: int | None = None
    with _prefetch(ranges, options, tries_mounts=False) as handle:
        while not handle.done:
            if (now := waiting()) is not None:
                peak = max(now, peak or 0)
            with suppress(TimeoutError):
                handle.wait(_ASK_SECONDS)
        report = handle.report()
        errors += report.errors
        # The kernel's own readahead may have asked for some of it, which then counts as resident
        # while it is on its way. None of it was before, so all of it came, once it is here.
        if report.complete:
            consumer = PrefetchConsumer(handle)
            for index, shard in enumerate(handle.shards):
                for offset, length in ranges[shard.path]:
                    consumer.fetch_now(index, offset, length)
    rate = Rate(
        strategy,
        report.strategy_used,
        threads,
        report.planned_bytes - report.failed_bytes - report.left_out_bytes,
        report.seconds + handle.report().waited_seconds,
        report.incomplete_reason() or "",
    )
    return rate, peak


def _prefetch(ranges: Ranges, asked: Options, *, tries_mounts: bool) -> PrefetchHandle:
    """Of these ranges, by this process alone, and as fast as they come: a limit that is set is no
    property of the mount. Without `tries_mounts` what is measured is reading, also where pages do
    not stay.
    """
    shards = resolve_shards(list(ranges))
    return start_prefetch(
        shards,
        resolve_options(replace(asked, partition="block", window_bytes=0, rate_limit=0)),
        local_topology(local_rank=0, local_size=1),
        spans=[ranges[shard.path] for shard in shards],
        consumer=False,
        tries_mounts=tries_mounts,
        logs_end=False,  # the page tells it
    )
