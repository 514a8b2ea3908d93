"""Prefetching files into the page cache.

The threads that move bytes live in the C++ core; here is the handle that Python holds of them. It
is not needed for correctness: prefetching is advice, and a load without it reads the same bytes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from shardahead import _core
from shardahead.keeping import keeping_reason, keeps_pages
from shardahead.launcher import LocalTopology
from shardahead.policy import PrefetchOptions, is_disabled, resolve_options
from shardahead.report import Report, describe_error, make_report
from shardahead.shards import Files, PathLike, Shard, resolve_shards
from shardahead.stripes import fit_blocks
from shardahead.topology import local_topology
from shardahead.units import printable

logger = logging.getLogger("shardahead")

Spans = Mapping[PathLike, Sequence[tuple[int, int]]]

_WAIT_SLICE_SECONDS = 0.05  # between two looks at Ctrl-C


class PrefetchHandle:
    """A running prefetch. Dropping the last reference cancels it.

    All methods may be called from any thread. In a forked child the handle is inert.
    """

    def __init__(
        self,
        core: _core.Prefetch,
        shards: Sequence[Shard],
        options: PrefetchOptions,
        topology: LocalTopology,
    ) -> None:
        self._core = core
        self._options = options
        self._topology = topology
        self._process = os.getpid()
        self._waited_seconds = 0.0
        self._log_lock = threading.Lock()
        self._logged = False
        self.shards = tuple(shards)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the prefetch has ended, also by cancel() or with errors.

        `timeout` is in seconds; raises TimeoutError after it. Ctrl-C interrupts at once.
        """
        if not self._wait(timeout):
            raise TimeoutError(f"the prefetch has not ended within {timeout} s")

    def cancel(self) -> None:
        """Takes no further block, and returns at once. Reads in flight end by themselves."""
        self._core.cancel()

    def stop(self, timeout: float | None = 60.0) -> None:
        """Cancels and waits up to `timeout` seconds for the threads to end. Never raises for what
        the prefetch did, nor when they have not ended: they then end with their last read.
        """
        self.cancel()
        self._wait(timeout)
        self._log_once()

    @property
    def done(self) -> bool:
        """Whether all threads have ended."""
        return self._core.done

    @property
    def failed(self) -> bool:
        """Whether a block could not be brought in."""
        return self._core.report().error_count > 0

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled before it was done."""
        return self._core.cancelled

    @property
    def errors(self) -> tuple[tuple[str, OSError], ...]:
        """(path, error) of the first blocks that failed; see Report.errors."""
        return tuple((error.filename, error) for error in self._core.report().errors)

    def progress(self) -> _core.Progress:
        """planned_bytes, done_bytes (by anyone on this node) and seconds so far."""
        return self._core.progress()

    def report(self) -> Report:
        """The figures so far; final once `done`."""
        figures = self._core.report()
        return make_report(
            figures,
            waited_seconds=self._waited_seconds,
            keeps_pages=keeps_pages(figures.keeping),
            keeps_pages_reason=keeping_reason(figures.keeping, self.shards[0].path),
            block_bytes=self._options.block_bytes,
            partition=self._core.partition_used,
            partition_reason=printable(self._core.partition_reason),
            local_rank=self._topology.rank,
            local_size=self._topology.size,
            topology_source=self._topology.source,
        )

    def consumed(
        self,
        file: int,
        offset: int,
        needed_offset: int | None = None,
        held_from_file: int | None = None,
    ) -> None:
        """For `consumer=True`: everything before byte `offset` of `shards[file]` has been consumed.

        `needed_offset`, where given, is the end of what is wanted next: the window reaches at least
        to there. The window is ahead of the slowest consumer of this node; one that has not moved
        for 2.5 s is not waited for. Where memory is short, what all have passed is dropped from the
        page cache; not from `shards[held_from_file]` on, where given, for what is still mapped
        cannot be dropped. Raises IndexError where there is no such file.
        """
        needed = offset if needed_offset is None else needed_offset
        self._core.consumed(file, offset, needed, held_from_file)

    def end_consumer(self) -> bool:
        """For `consumer=True`: no window waits for this consumer any more. Returns whether it was
        the last one of this node, as far as is known.
        """
        return self._core.end_consumer()

    def keeps_pages(self) -> bool | None:
        """Whether the mounts leave in the page cache what is brought in; None where that is not
        known. Waits until it is found out, which takes one page, for 10 s at most.
        """
        return keeps_pages(self._core.keeping())

    def meet(self, ranks: int) -> None:
        """For `consumer=True`, once all files have been opened for the last time: waits until
        `ranks` participants of this node have done so, 0.5 s for those that have not come, 2 s for
        those that are about it. Where every open() empties the page cache, what is read before has
        to be read again. The time spent is the report's `waited_seconds`.
        """
        started = time.perf_counter()
        try:
            self._core.meet(ranks)
        finally:
            self._waited_seconds += time.perf_counter() - started

    def map(self, file: int) -> _core.FileMapping:
        """`shards[file]` in memory, for the weight iterators. Raises OSError, ESTALE or ENODATA,
        where it is no longer the file that was looked at first.
        """
        self.shards[file].require_unchanged(*self._core.version(file))
        return self._core.map(file)

    def fetch_now(self, file: int, offset: int, length: int) -> None:
        """Returns when `length` bytes of `shards[file]` from `offset` on are in the page cache,
        whoever brings them. Raises OSError with errno, filename, operation and offset where they
        cannot be read. The time spent is the report's `waited_seconds`.
        """
        piece_bytes = 64 * 1024**2  # between two looks at Ctrl-C
        started = time.perf_counter()
        try:
            for at in range(offset, offset + length, piece_bytes):
                self._core.fetch_now(file, at, min(piece_bytes, offset + length - at))
        finally:
            self._waited_seconds += time.perf_counter() - started

    def __enter__(self) -> PrefetchHandle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "cancelled" if self.cancelled else "done" if self.done else "running"
        progress = self.progress()
        return (
            f"<PrefetchHandle {state}, {progress.done_bytes} of {progress.planned_bytes} bytes, "
            f"{len(self.shards)} files>"
        )

    def _wait(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _WAIT_SLICE_SECONDS if deadline is None else deadline - time.monotonic()
            if self._core.wait(max(0.0, min(left, _WAIT_SLICE_SECONDS))):
                self._log_once()
                return True
            if left <= 0:
                return False

    def _log_once(self) -> None:
        """One line per prefetch, however many files failed."""
        if os.getpid() != self._process:
            return  # the parent's to tell; and another thread of it may have held the lock
        with self._log_lock:
            if self._logged:
                return
            self._logged = True
        report = self.report()
        if report.keeps_pages is False:
            logger.warning("prefetch ended: %s", report.keeps_pages_reason)
        elif report.error_count:
            logger.warning(
                "prefetch incomplete, the load goes on without it: %s (%d errors in all); %s",
                describe_error(report.errors[0]),
                report.error_count,
                report.text(),
            )
        else:
            logger.info("prefetch: %s", report.text())


def prefetch_files(
    files: Files,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: int | None = None,
    *,
    strategy: str | None = None,
    partition: str | None = None,
    window_bytes: int | None = None,
    spans: Spans | None = None,
    consumer: bool = False,
    inflight_bytes: int | None = None,
) -> PrefetchHandle:
    """Starts bringing `files` into the page cache in the background, and returns at once.

    Keep the handle: dropping it cancels the prefetch.

    files: paths of shards, or one path: a shard, a folder, or an index (`*.index.json`). They are
        read in the index's order of first use, else in natural order (shard 2 before shard 10).
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
        default, is found by measuring: from 4 blocks, less or more.
    consumer: the caller reports what it has consumed, through `PrefetchHandle.consumed`.

    Raises ValueError (an argument and its value; no files; an empty folder), TypeError, and
    FileNotFoundError, PermissionError, IsADirectoryError or OSError with errno and filename where
    a file is missing, unreadable or not a regular file: all before any thread starts. What goes
    wrong later is in the handle's report and never raises.
    """
    options = resolve_options(
        threads=threads,
        block_size=block_size,
        strategy=strategy,
        partition=partition,
        window_bytes=window_bytes,
        inflight_bytes=inflight_bytes,
    )
    shards = resolve_shards(files)
    topology = local_topology(local_rank=local_rank, local_size=local_size)
    return start_prefetch(
        shards, options, topology, spans=_spans_of(shards, spans), consumer=consumer
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
) -> PrefetchHandle:
    """The prefetch of resolved shards with resolved options; `spans` as the core takes them. A
    consumer that does not release may hold what it has passed, which cannot be dropped then.
    """
    if is_disabled():
        spans = [[] for _ in shards]
    options = fit_blocks(options, shards)
    core = _core.Prefetch(
        paths=[os.fsencode(shard.path) for shard in shards],
        spans=spans,
        block_bytes=options.block_bytes,
        partition=options.partition,
        board_folder=os.fsencode(options.board_folder),
        inflight_bytes=options.inflight_bytes,
        local_rank=topology.rank,
        local_size=topology.size,
        strategy=options.strategy,
        threads=options.threads,
        window_bytes=options.window_bytes,
        memory_budget_bytes=options.memory_budget_bytes,
        consumer=consumer,
        consumer_releases=consumer_releases,
        tries_mounts=tries_mounts,
    )
    return PrefetchHandle(core, shards, options, topology)


def _spans_of(
    shards: Sequence[Shard], spans: Spans | None
) -> list[Sequence[tuple[int, int]] | None]:
    """`spans` by shard. Raises ValueError for a path that is no shard, or a range that is none."""
    wanted: list[Sequence[tuple[int, int]] | None] = [None] * len(shards)
    if spans is None:
        return wanted
    position = {os.path.abspath(shard.path): i for i, shard in enumerate(shards)}
    for path, ranges in spans.items():
        index = position.get(os.path.abspath(os.fsdecode(path)))
        if index is None:
            raise ValueError(f"spans names a file that is not in files: {os.fsdecode(path)!r}")
        wanted[index] = _checked_ranges(os.fsdecode(path), ranges)
    return wanted


def _checked_ranges(path: str, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    checked = []
    for offset, length in ranges:
        if offset < 0 or length < 0 or offset + length >= 2**63:
            raise ValueError(f"spans of {path!r}: not an (offset, length): {(offset, length)}")
        checked.append((int(offset), int(length)))
    return checked
