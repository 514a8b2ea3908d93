"""A checkpoint is staged: its replica on this node is found, continued or made.

The caller's thread waits for storage and disk. Any thread; of several, and of several processes of
the node, one makes the replica, and the others wait for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from shardahead import _core
from shardahead.checkpoint.shards import Files, Shard, resolve_shards
from shardahead.node.launcher import LocalTopology
from shardahead.node.topology import local_topology
from shardahead.prefetch.exit_duties import ExitDuties
from shardahead.prefetch.options import (
    Options,
    PrefetchOptions,
    Size,
    Strategy,
    asked_by,
    resolve_options,
)
from shardahead.prefetch.progress import Progress
from shardahead.prefetch.report import Report
from shardahead.replica.original import Original, beside, look_at
from shardahead.replica.replica_folder import Place, find_replica, place_of
from shardahead.replica.replica_lock import ReplicaLock, take_lock
from shardahead.replica.staging import (
    OtherNodes,
    Staging,
    StagingStoppedError,
    copy_beside,
)
from shardahead.replica.whole_replica import Replica, write_document
from shardahead.units import quoted

_LOOK_SECONDS = 0.2  # for the end of another process that makes it
_EXIT_SECONDS = 1.0

_duties = ExitDuties(_EXIT_SECONDS)


def stage(
    files: Files,
    folder: str | os.PathLike[str],
    *,
    local_rank: int | None = None,
    local_size: int | None = None,
    threads: int | None = None,
    block_size: Size | None = None,
    strategy: Strategy | None = None,
    inflight_bytes: Size | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: Options | None = None,
) -> Replica:
    """Copies a checkpoint to this node's own disk, or into its memory, and gives the whole replica.

        replica = shardahead.stage("/mnt/models/llama", "/local/models")
        model = AutoModelForCausalLM.from_pretrained(replica.path)

    The replica is a folder in `folder` that has the checkpoint's name, its shards, byte for byte,
    and the small files beside them, so that any loader can be given it, now and at every later
    start. It has that name only once all of it is on the disk. One that is there and of the same
    version is given at once; one that was begun is continued, without reading again what is safely
    there; a checkpoint that has changed, by names, sizes, times of modification or what its files
    begin and end with, is staged anew. What is brought in for it, all who load the checkpoint on
    this node share.

    files, local_rank, local_size, threads, block_size, strategy, inflight_bytes, options: as for
        `prefetch_files`.
    folder: where replicas lie; must be there.
    progress: called in this thread, some times a second, with a `Progress`, whose bytes are those
        of the replica.

    Raises as `prefetch_files` does; NotADirectoryError where `folder` is none; OSError, with errno
    and filename, where there is no room (ENOSPC), what is copied cannot be written, or some of the
    original cannot be read; ESTALE where that has changed meanwhile; ValueError where something
    that is no replica lies in its place.
    """
    resolved = resolve_options(asked_by(locals()))
    shards = resolve_shards(files)
    where = local_topology(local_rank=local_rank, local_size=local_size)
    run = StageRun(shards, folder_of(folder), resolved, where)
    run.start()
    try:
        while not run.wait(_LOOK_SECONDS):
            if progress is not None:
                progress(run.progress())
    finally:
        run.stop()
    if progress is not None:
        progress(run.progress())
    return run.result()


def replica_of(files: Files, folder: str | os.PathLike[str]) -> Replica | None:
    """The whole replica of this version of a checkpoint in `folder`; None where there is none.

    Looks at the first and the last bytes of each shard of the original. Raises as `stage` does for
    what it is given.
    """
    return find_replica(look_at(resolve_shards(files)), folder_of(folder))


def folder_of(folder: str | os.PathLike[str]) -> str:
    """The folder of replicas, absolute. Raises NotADirectoryError, or OSError as stat(2)."""
    path = os.path.abspath(os.fsdecode(folder))
    os.listdir(path)
    return path


class StageRun:
    """Staging in a thread of its own, which is waited for, or not. A read on a dead server does not
    hold up the exit, and the next run goes on where this one was. Without `waits` it ends by
    StagingStoppedError where another process makes the replica.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        folder: str,
        options: PrefetchOptions,
        topology: LocalTopology,
        *,
        waits: bool = True,
        join: Callable[[Staging], OtherNodes] | None = None,
    ) -> None:
        self._shards = tuple(shards)
        self._folder = folder
        self._waits = waits
        self._join = join
        self._options = options
        self._topology = topology
        self._began_seconds = time.monotonic()
        self._seconds: float | None = None
        self._staging: Staging | None = None
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._result: list[Replica | BaseException] = []
        #: Whether it was there, and nothing was to be done.
        self.was_there: bool = False

    def start(self, told: Callable[[], object] = lambda: None) -> None:
        """Once; `told` is called in that thread at the end. Raises RuntimeError where no thread is
        to be had.
        """

        def run() -> None:
            self._run()
            told()

        _duties.start("shardahead-stage", run, self.stop)

    def stop(self) -> None:
        """Ends it soon, and waits for nothing."""
        self._stopped.set()
        if self._staging is not None:
            self._staging.stop()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        return self._ended.wait(seconds)

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    def result(self) -> Replica:
        """Once it has ended. Raises what has ended it, StagingStoppedError after stop()."""
        found = self._result[0]
        if isinstance(found, BaseException):
            raise found
        return found

    def progress(self) -> Progress:
        """In bytes of the replica; `node_read_bytes` are those that were copied by this run."""
        seconds = self._seconds
        if seconds is None:
            seconds = time.monotonic() - self._began_seconds
        planned = sum(shard.size_bytes for shard in self._shards)
        if self._staging is None:
            done = planned if self.was_there else 0
            return Progress(planned, done, 0, seconds)
        figures = self._staging.figures
        return Progress(planned, figures.done_bytes, figures.copied_bytes, seconds)

    @property
    def received_bytes(self) -> int:
        """From other nodes."""
        return 0 if self._staging is None else self._staging.figures.received_bytes

    def report(self) -> Report | None:
        """Of the prefetch, once it has ended; None where there was none."""
        return None if self._staging is None else self._staging.report

    def _run(self) -> None:
        try:
            self._result.append(self._stage())
        except BaseException as error:
            self._result.append(error)
        finally:
            self._seconds = time.monotonic() - self._began_seconds
            self._ended.set()

    def _stage(self) -> Replica:
        original = look_at(self._shards)
        place = place_of(original, self._folder)
        found = find_replica(original, self._folder)
        if found is not None and found.beside == beside(original):
            self.was_there = True
            return found
        with self._lock(place):
            found = find_replica(original, self._folder)  # another process may have made it
            if found is not None:
                self.was_there = True
                return _refreshed(found, original)
            self._staging = Staging(
                self._shards, original, place, self._options, self._topology, join=self._join
            )
            if self._stopped.is_set():
                raise StagingStoppedError
            return self._staging.run()

    def _lock(self, place: Place) -> ReplicaLock:
        while (lock := take_lock(place.lock)) is None:
            if not self._waits or self._stopped.wait(_LOOK_SECONDS):
                raise StagingStoppedError
        return lock


def _refreshed(replica: Replica, original: Original) -> Replica:
    """With what lies beside the shards of the original as it is now."""
    found = beside(original)
    if found == replica.beside:
        return replica
    known = set(replica.beside)
    copy_beside([file for file in found if file not in known], original.root, replica.path)
    replica = replace(replica, beside=found)
    write_document(replica.path, replica)
    return replica


def damaged_blocks(replica: Replica, check: Callable[[], object] = lambda: None) -> list[str]:
    """Of a whole replica what of its bytes is not what was copied, for people; reads all of it.
    `check` is called between blocks. Raises OSError where a file cannot be read.
    """
    layout = replica.layout
    found = []
    for number, (file, path) in enumerate(zip(replica.files, replica.paths, strict=True)):
        with open(path, "rb") as opened:
            for each in layout.of_file(number):
                check()
                block = layout.block(each)
                digest = _core.digest_block(
                    opened.fileno(), os.fsencode(path), block.offset, block.length
                )
                expected = replica.digests[8 * each : 8 * each + 8]
                if digest.to_bytes(8, "little") != expected:
                    found.append(
                        f"{quoted(file.name)}: bytes {block.offset} to "
                        f"{block.offset + block.length} are not what was copied"
                    )
    return found
