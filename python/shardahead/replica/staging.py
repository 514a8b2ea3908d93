"""Makes a replica: each block is brought in from storage by a prefetch, with all others of this
node that load the checkpoint, copied, and marked; what is whole gets its name.

The replica's lock is held meanwhile, so that one process of the node does it. What was copied
before a kill is not read again. `run` is for one thread, of which stop() may be called by any.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from shardahead.checkpoint.opening import open_regular
from shardahead.checkpoint.shards import Shard, was_replaced
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.report import Report
from shardahead.prefetch.start import start_prefetch
from shardahead.replica import blocks_there, replica_folder, whole_replica
from shardahead.replica.blocks_there import ABSENT, BlocksThere, create_blocks, open_blocks
from shardahead.replica.copies import Copies
from shardahead.replica.layout import Block, Layout
from shardahead.replica.original import BesideFile, Original, beside, look_at
from shardahead.replica.replica_folder import Place
from shardahead.replica.room import require_room
from shardahead.replica.whole_replica import Replica, ReplicaError

#: Copies in flight besides the one that is waited for: one thread copies some GB/s.
COPY_THREADS = 2
#: Where no page is kept each copy waits for the server.
_COPY_THREADS_WITHOUT_CACHE = 8
#: After so many bytes what was copied is made safe from a crash.
SYNC_BYTES = 512 << 20
_MOST_ERRORS = 16
_WAIT_SECONDS = 0.05  # for other nodes
_NOTE_SECONDS = 0.2  # between two looks at what came of them


class StagingStoppedError(Exception):
    """Staging was asked to stop; what was copied is continued the next time."""


@dataclass
class StagingFigures:
    """How far it is. kept_bytes: copied by an earlier run. copied_bytes: by this one. Any thread
    may read; numbers only grow.
    """

    size_bytes: int = 0
    kept_bytes: int = 0
    copied_bytes: int = 0
    errors: list[OSError] = field(default_factory=list)
    #: Of those that other nodes have sent.
    received_bytes: int = 0

    @property
    def done_bytes(self) -> int:
        return self.kept_bytes + self.copied_bytes + self.received_bytes


class OtherNodes(Protocol):
    """The other nodes of a job, which read what this one need not (cluster/exchange.py)."""

    def to_read(self, absent: Sequence[int]) -> list[int]:
        """What of these blocks is this node's to read, when what it was given before is read."""
        ...

    def is_to_read(self, block: int) -> bool:
        """It was given to this node, and is not another's by now."""
        ...

    def has_copied(self, block: int) -> None:
        """It is there, and can be sent. Any thread."""

    def wait(self, seconds: float) -> None:
        """For anything to change."""

    def finish(self) -> None:
        """This node has all blocks: waits until those that take its own have them."""

    def stop(self) -> None:
        """Takes no part any more."""


class Staging:
    """One replica on its way."""

    def __init__(
        self,
        shards: Sequence[Shard],
        original: Original,
        place: Place,
        options: PrefetchOptions,
        topology: LocalTopology,
        *,
        join: Callable[[Staging], OtherNodes] | None = None,
    ) -> None:
        self.figures: StagingFigures = StagingFigures(size_bytes=original.size_bytes)
        self.report: Report | None = None  # of the prefetch, once there was one
        self._shards = tuple(shards)
        self._original = original
        self._place = place
        self._options = options
        self._topology = topology
        self._join = join
        self._others: OtherNodes | None = None
        self._noted_received = 0.0
        self._layout = Layout([file.size_bytes for file in original.files])
        self._stopped = threading.Event()
        self._targets = [os.path.join(place.staging, file.name) for file in original.files]
        self._copied_since_sync: list[Block] = []
        self._noting = threading.Lock()

    @property
    def original(self) -> Original:
        return self._original

    @property
    def layout(self) -> Layout:
        return self._layout

    @property
    def targets(self) -> list[str]:
        """The files that are written, in `staging_folder`."""
        return self._targets

    @property
    def staging_folder(self) -> str:
        return self._place.staging

    def stop(self) -> None:
        """Ends `run` soon, by StagingStoppedError."""
        self._stopped.set()

    def run(self) -> Replica:
        """The replica, whole. The caller holds its lock.

        Raises OSError, with errno and filename, where there is no room, a file cannot be written,
        or some bytes of the original cannot be read: the first of `figures.errors` then, when all
        else is copied. ReplicaError where something else lies in its place; StagingStoppedError.
        """
        require_no_other(self._place)
        blocks = self._begin()
        try:
            if self._join is not None and blocks.absent():
                self._others = self._join(self)
            self._copy_all(blocks)
            replica = self._finish(blocks)
            if self._others is not None:
                self._others.finish()
            return replica
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                # Nobody is helped by a disk that is full of a half.
                self._remove_staged()
            raise
        finally:
            if self._others is not None:
                self._others.stop()

    # ---- before and after ----

    def _begin(self) -> BlocksThere:
        place, layout = self._place, self._layout
        sweep(place)
        blocks = None
        version = self._original.version
        if os.path.lexists(place.staging):
            blocks = open_blocks(place.staging, layout, version, write=True)
        if blocks is None:
            self._remove_staged()
            require_room(place.folder, layout.size_bytes, self._options.memory_budget_bytes)
            # It says whose it is before it has its name: else others would take that for taken.
            unfinished = os.path.join(place.folder, f".{place.name}.unfinished-{os.getpid()}")
            os.mkdir(unfinished, 0o755)
            whole_replica.write_source(unfinished, self._original.root)
            os.rename(unfinished, place.staging)
            self._make_files()
            blocks = create_blocks(place.staging, layout, version)
        absent = sum(layout.block(number).length for number in blocks.absent())
        require_room(place.folder, absent, self._options.memory_budget_bytes)
        self.figures.kept_bytes = layout.size_bytes - absent
        return blocks

    def _make_files(self) -> None:
        for file, path in zip(self._original.files, self._targets, strict=True):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as made:
                made.truncate(file.size_bytes)

    def _remove_staged(self) -> None:
        if os.path.lexists(self._place.staging):
            replica_folder.remove_folder(self._place.staging)

    def _finish(self, blocks: BlocksThere) -> Replica:
        # What was copied may be of two versions.
        if look_at(self._shards).version != self._original.version:
            self._remove_staged()
            raise was_replaced(self._original.root)
        found = beside(self._original)
        copy_beside(found, self._original.root, self._place.staging)
        for path in self._targets:
            _sync(path)
        replica = whole_replica.whole_replica(
            self._place.path,
            self._original,
            found,
            self._layout.block_bytes,
            blocks.digests(),
            self._targets,
        )
        whole_replica.write_document(self._place.staging, replica)
        replica_folder.publish(self._place)
        # Not before: whoever dies in between need not copy anything again.
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self._place.path, blocks_there.NAME))
        return replica

    # ---- the copies ----

    def _copy_all(self, blocks: BlocksThere) -> None:
        """Those that are this node's to read, until all are there."""
        tried: set[int] = set()
        while absent := [number for number in blocks.absent() if number not in tried]:
            mine = absent if self._others is None else self._others.to_read(absent)
            if mine:
                tried.update(self._copy(blocks, [self._layout.block(number) for number in mine]))
                continue
            assert self._others is not None
            self._others.wait(_WAIT_SECONDS)
            self._note_received(blocks)
            if self._stopped.is_set():
                raise StagingStoppedError
        self._noted_received = 0.0
        self._note_received(blocks)
        self._make_safe(blocks)
        if self.figures.errors:
            raise self.figures.errors[0]

    def _note_received(self, blocks: BlocksThere) -> None:
        now = time.monotonic()
        if self._others is None or now - self._noted_received < _NOTE_SECONDS:
            return
        self._noted_received = now
        left = sum(self._layout.block(number).length for number in blocks.absent())
        came = self._layout.size_bytes - left - self.figures.kept_bytes
        self.figures.received_bytes = came - self.figures.copied_bytes

    def _copy(self, blocks: BlocksThere, absent: Sequence[Block]) -> list[int]:
        """Gives those that were tried."""
        tried = []
        spans: list[list[tuple[int, int]]] = [[] for _ in self._shards]
        for block in absent:
            spans[block.file].append((block.offset, block.length))
        handle = start_prefetch(
            self._shards,
            self._options,
            self._topology,
            spans=spans,
            consumer=True,
            even_disabled=True,
            logs_end=False,
            entry="stage",
        )
        consumer = PrefetchConsumer(handle)
        try:
            cached = consumer.keeps_pages() is not False
            with Copies(
                self._shards,
                self._targets,
                COPY_THREADS if cached else _COPY_THREADS_WITHOUT_CACHE,
                partial(self._copied, blocks),
                self._failed,
            ) as copies:
                for block in absent:
                    self._note_received(blocks)
                    # Another node may have sent it meanwhile, or is to read it now.
                    if blocks.state(block.number) == ABSENT and self._is_to_read(block):
                        tried.append(block.number)
                        self._bring_in(consumer if cached else None, copies, block)
            consumer.end_consumer()
        finally:
            handle.stop(timeout=0)
            self.report = handle.report()
        return tried

    def _is_to_read(self, block: Block) -> bool:
        return self._others is None or self._others.is_to_read(block.number)

    def _bring_in(self, consumer: PrefetchConsumer | None, copies: Copies, block: Block) -> None:
        if self._stopped.is_set():
            raise StagingStoppedError
        if consumer is not None:
            # What is copied may be dropped where memory is short; what is about to be must not.
            consumer.consumed(block.file, copies.passed(block), block.offset + block.length)
            try:
                consumer.fetch_now(block.file, block.offset, block.length)
            except OSError as error:
                self._failed(error)
                return
        copies.put(block)

    def _failed(self, error: OSError) -> None:
        """Of the original. All else is copied first."""
        self.figures.errors.append(error)
        if len(self.figures.errors) >= _MOST_ERRORS:
            raise error

    def _copied(self, blocks: BlocksThere, block: Block, digest: int) -> None:
        blocks.note(block.number, digest)
        if self._others is not None:
            self._others.has_copied(block.number)
        with self._noting:
            self.figures.copied_bytes += block.length
            self._copied_since_sync.append(block)
            due = sum(each.length for each in self._copied_since_sync) >= SYNC_BYTES
        if due:
            self._make_safe(blocks)

    def _make_safe(self, blocks: BlocksThere) -> None:
        """What was copied is on the disk, and marked as that."""
        with self._noting:
            taken, self._copied_since_sync = self._copied_since_sync, []
        for file in sorted({block.file for block in taken}):
            _sync(self._targets[file])
        blocks.note_on_disk([block.number for block in taken])


def copy_beside(files: Sequence[BesideFile], root: str, folder: str) -> None:
    """These of the folder `root` into `folder`, each in place of what is there, and on the disk."""
    for file in files:
        target = os.path.join(folder, file.name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        unfinished = f"{target}.unfinished"
        with suppress(FileNotFoundError):
            os.unlink(unfinished)
        with ExitStack() as opened:
            source, _ = open_regular(os.path.join(root, file.name))
            read = opened.enter_context(open(source, "rb"))
            written = opened.enter_context(open(unfinished, "xb"))
            shutil.copyfileobj(read, written, 1 << 20)
        _sync(unfinished)
        os.rename(unfinished, target)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def require_no_other(place: Place) -> None:
    """Raises ReplicaError where something lies in a replica's place that is none."""
    with suppress(OSError):
        os.rmdir(place.staging)  # of a process that died when it had made just this
    for path in (place.path, place.staging):
        if os.path.lexists(path) and whole_replica.source_of(path) is None:
            raise ReplicaError(f"{path!r} is there, and is no replica: it is left alone")


def sweep(place: Place) -> None:
    """What a process left that died while it removed a replica of this name, or began one."""
    for name in os.listdir(place.folder):
        rest = name.removeprefix(f".{place.name}.")
        if rest != name and rest.startswith(("removed-", "unfinished-", "staging.removed-")):
            shutil.rmtree(os.path.join(place.folder, name), ignore_errors=True)
