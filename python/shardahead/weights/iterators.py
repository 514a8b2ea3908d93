"""Weight iterators: (name, tensor) of a checkpoint in file order, loaded through a prefetch.

They wait for the bytes of the next tensor instead of page-faulting into them, and yield the same
tensors with and without prefetch. torch and safetensors are imported when an iterator is made.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any

from shardahead.arguments import number_between
from shardahead.checkpoint.asked_names import Names
from shardahead.checkpoint.asked_parts import Slices
from shardahead.checkpoint.safetensors_header import TensorRange
from shardahead.checkpoint.shards import Files
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Mode, Options, Partition, Size, Strategy, asked_by
from shardahead.weights.checkpoint_pass import CheckpointPass, LoadProgress, Weight
from shardahead.weights.safetensors_load import Load

if TYPE_CHECKING:
    import torch

    from shardahead.weights.safetensors_load import ShardWeights

MAX_WORKERS = 256
_EXIT_SECONDS = 1.0


class WeightsIterator(Iterator[Weight]):
    """Iterator over (name, tensor), with the prefetch that it loads through.

    `prefetch` is the PrefetchHandle, or None without prefetch. The prefetch ends with the
    iteration, with close() or the end of a `with` block, however it ends, or when the iterator is
    dropped. One that is closed has come to its end, as a generator: next() raises StopIteration.
    Tensors that were handed out stay.
    """

    def __init__(self, load: CheckpointPass, weights: Generator[Weight, None, None]) -> None:
        self.prefetch: PrefetchHandle | None = load.prefetch.handle if load.prefetch else None
        self._load = load
        self._weights = weights

    @property
    def mode(self) -> str:
        """How tensors are got at: "mmap" or "pread"; "auto" until the first one is asked for."""
        return self._load.mode

    def __next__(self) -> Weight:
        return next(self._weights)

    def __iter__(self) -> WeightsIterator:
        return self

    def close(self) -> None:
        """Ends the iteration and its prefetch, and waits for nothing."""
        try:
            self._weights.close()
        finally:
            self._load.close()

    def __enter__(self) -> WeightsIterator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def safetensors_weights_iterator(
    files: Files,
    *,
    prefetch: bool = True,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    inflight_bytes: Size | None = None,
    window_bytes: Size | None = None,
    names: Names | None = None,
    slices: Slices | None = None,
    strict: bool = True,
    mode: Mode | None = None,
    learn: str | os.PathLike[str] | None = None,
    learn_key: str | None = None,
    replica: str | os.PathLike[str] | None = None,
    drop_after: bool = False,
    progress: Callable[[LoadProgress], None] | None = None,
    options: Options | None = None,
) -> WeightsIterator:
    """Iterates over (name, tensor) of safetensors files, shard after shard, by offset in each.

    The prefetch starts at once, before the first tensor is asked for. Tensors are CPU tensors with
    the shape and dtype that the file says, bit-identical with and without prefetch and in every
    `mode`.

    files, local_rank, local_size, threads, block_size, strategy, partition, inflight_bytes: as for
        `prefetch_files`. Where an index is given or found, a tensor comes from the shard that it
        names, and from there alone.
    prefetch: False reads as the safetensors library alone would; so does SHARDAHEAD_DISABLE=1.
    window_bytes: how far the prefetch may be ahead of this iterator; 0 is no limit. By default
        there is none where all that is wanted fits `memory_budget()`, else a quarter of it.
    names: only these tensors, a collection or a predicate; only their bytes are prefetched. An
        empty collection asks for nothing, and gets it. Of others, names that no shard holds are
        said once in the log.
    slices: only these parts of tensors, and only their bytes are prefetched: a mapping of names to
        parts, or a callable that gives one for a name, a shape and a dtype, the last two as the
        file has them, "BF16". A part is (dim, start, stop), a tuple of slices, or None for all of
        the tensor, as for names that the mapping lacks: docs/parts.md. In mode "mmap" what is
        yielded is a view with the strides of the whole tensor, in mode "pread" contiguous.
    strict: names, or a predicate, that match no tensor at all, and slices of none that is there,
        are a ValueError; False: they give nothing.
    mode: "mmap": tensors are views of a private mapping of the file. "pread": `threads` threads
        read them in parallel into memory of their own, up to `window_bytes` ahead (128 MiB by
        default, less where memory is short) or one tensor; no mapping, no prefetch, and every rank
        reads for itself. "auto", the default: "mmap" with a prefetch, "pread" where the mount turns
        out to keep no pages, or not to be mappable; the log says so once. There the ranks of a node
        that read the same at about the same time share what is read. In both, shards for whose
        mapping there is no address space are read; the log says so once.
    learn, learn_key: as for `prefetching`: what was touched of the tensors that were handed out.
        Where the last load like this one has left that, only that is waited for before a tensor is
        handed out; the rest of it comes in as it is touched, as through any mapping, and what
        cannot be read of it raises SIGBUS. In mode "pread" tensors are read, and count as touched,
        as a whole.
    replica: a folder on this node's own disk, or in its memory. Where the whole copy of this
        version of the checkpoint lies there, it is read; else one process of this node makes one
        beside the load, and goes on after it: `stage`, and docs/staging.md. Nothing of it can fail
        the load. With `prefetch` only.
    drop_after: drop the files from the page cache at the end, when no local rank is at them any
        more. With several ranks that takes the prefetch and its "dynamic" partition: ValueError
        without.
    progress: called after each tensor with a LoadProgress.
    options: `Options`, which count where the keyword is not given.

    Raises as `prefetch_files` does, ValueError for a folder without safetensors files and for a
    part that its tensor does not have, TypeError for what is no part, ImportError where torch or
    safetensors is missing, and CheckpointError for what is wrong with the contents of a file,
    before any of its tensors is handed out. While iterating: OSError with errno and filename if the
    bytes of the tensor itself cannot be read; what else fails is in `prefetch.report()`.
    """
    load = Load(
        files,
        options=asked_by(locals()),
        topology=(local_rank, local_size),
        prefetch=prefetch,
        names=names,
        slices=slices,
        strict=strict,
        drop_after=drop_after,
        progress=progress,
    )
    return weights_of(load)


def buffered_multi_thread_safetensors_weights_iterator(
    files: Files,
    max_workers: int = 4,
    *,
    prefetch: bool = True,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    partition: Partition | None = None,
    inflight_bytes: Size | None = None,
    window_bytes: Size | None = None,
    names: Names | None = None,
    slices: Slices | None = None,
    strict: bool = True,
    mode: Mode | None = None,
    learn: str | os.PathLike[str] | None = None,
    learn_key: str | None = None,
    replica: str | os.PathLike[str] | None = None,
    drop_after: bool = False,
    progress: Callable[[LoadProgress], None] | None = None,
    options: Options | None = None,
) -> WeightsIterator:
    """As `safetensors_weights_iterator`, same tensors in the same order, with `max_workers` threads
    that prepare tensors of up to that many shards ahead of the caller. 1 to 256 of them; in mode
    "pread", which has `threads` of its own, none.
    """
    max_workers = check_max_workers(max_workers)
    load = Load(
        files,
        options=asked_by(locals()),
        topology=(local_rank, local_size),
        prefetch=prefetch,
        names=names,
        slices=slices,
        strict=strict,
        drop_after=drop_after,
        progress=progress,
    )
    return weights_of(load, max_workers)


def check_max_workers(max_workers: object) -> int:
    """`max_workers` where it is a number of them; else TypeError or ValueError."""
    return number_between("max_workers", max_workers, 1, MAX_WORKERS)


def weights_of(
    load: Load, max_workers: int | None = None, shard_done: Callable[[], object] | None = None
) -> WeightsIterator:
    """The weights of `load`, prepared by `max_workers` threads or by none. `shard_done` is called
    in the consumer's thread when it asks for what comes after a shard.
    """
    shards = _one_by_one(load) if max_workers is None else _buffered(load, max_workers)
    if shard_done is not None:
        shards = _told(shards, shard_done)
    return WeightsIterator(load, load.iterate(shards))


def _told(
    shards: Generator[ShardWeights, None, None], shard_done: Callable[[], object]
) -> Generator[ShardWeights, None, None]:
    with closing(shards):
        for shard in shards:
            yield shard
            shard_done()


def _one_by_one(load: Load) -> Generator[ShardWeights, None, None]:
    reading = load.decide()
    if reading is not None:
        yield from reading.weights()
        return
    for index in range(len(load.shards)):
        yield index, load.weights_of(index)


class _ShardQueue:
    """The prepared tensors of one shard on their way from a worker to the consumer."""

    def __init__(self, prepare_alone: Callable[[], Iterator[Any]]) -> None:
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._prepare_alone = prepare_alone
        self._process = os.getpid()

    def drain(self) -> Iterator[tuple[TensorRange, torch.Tensor]]:
        done = 0
        while True:
            if os.getpid() != self._process:  # a forked child has none of the workers
                yield from islice(self._prepare_alone(), done, None)
                return
            item = self.items.get()
            if item is None:
                return
            done += 1
            if isinstance(item, BaseException):
                try:
                    raise item
                finally:
                    del item  # or the error and this frame would keep each other alive
            yield item
            del item  # the consumer decides how long a tensor lives


class _Worker(threading.Thread):
    """A daemon, not of an executor: a read on a dead server must not hold up the exit."""

    def __init__(self, number: int, work: Callable[[], None], stop: Callable[[], None]) -> None:
        super().__init__(target=work, name=f"shardahead-load-{number}", daemon=True)
        self.stop = stop
        _workers.add(self)
        self.start()


def _start_workers(count: int, work: Callable[[], None], stop: Callable[[], None]) -> int:
    """How many could be started: fewer do the same work."""
    for number in range(count):
        try:
            _Worker(number, work, stop)
        except RuntimeError:
            return number
    return count


_workers: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _stop_workers() -> None:
    """A thread inside torch while the interpreter goes down would abort the process."""
    deadline = time.monotonic() + _EXIT_SECONDS
    workers = [worker for worker in _workers if worker.is_alive()]
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))


def _buffered(load: Load, max_workers: int) -> Generator[ShardWeights, None, None]:
    """Shards in order, their tensors prepared by workers that are at most max_workers ahead."""
    reading = load.decide()
    if reading is not None:  # it has threads of its own
        yield from reading.weights()
        return
    queues = [_ShardQueue(partial(load.weights_of, index)) for index in range(len(load.shards))]
    ahead = threading.Semaphore(max_workers)
    stopped = threading.Event()
    indices = iter(range(len(load.shards)))
    take = threading.Lock()
    process = os.getpid()

    def prepare() -> None:
        while True:
            with take:  # permits are given in the order of the shards, or the first could starve
                ahead.acquire()
                index = None if stopped.is_set() else next(indices, None)
            if index is None:
                ahead.release()
                return
            try:
                for item in load.weights_of(index):
                    queues[index].items.put(item)
                    del item  # the consumer decides how long a tensor lives
                    if stopped.is_set():
                        return
                queues[index].items.put(None)
            except BaseException as error:  # it belongs to the consumer, whatever it is
                queues[index].items.put(error)

    def let_workers_go_on(permits: int) -> None:
        if os.getpid() == process:  # a forked child has none, and one may have held this lock
            ahead.release(permits)

    def stop() -> None:
        if os.getpid() == process:
            stopped.set()
        let_workers_go_on(max_workers)

    try:
        if not _start_workers(min(max_workers, len(load.shards)), prepare, stop):
            yield from _one_by_one(load)
            return
        for index, items in enumerate(queues):
            yield index, items.drain()
            items.items = queue.SimpleQueue()
            let_workers_go_on(1)
    finally:
        stop()
