"""What a load makes of `replica=`: it reads the whole replica of its checkpoint, where there is
one; else its process makes one beside it, unless another does, and goes on after the load.

Nothing here fails a load: what goes wrong is said once, in the log. Any thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.shards import (
    Checkpoint,
    Shard,
    require_shard,
    resolve_checkpoint,
)
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.options import PrefetchOptions, resolve_options
from shardahead.replica.original import look_at
from shardahead.replica.replica_folder import find_replica
from shardahead.replica.stage import StageRun, folder_of
from shardahead.replica.staging import StagingStoppedError
from shardahead.units import format_bytes, printable

logger = logging.getLogger("shardahead")

_said: set[str] = set()


def replicated(checkpoint: Checkpoint, options: PrefetchOptions) -> Checkpoint | None:
    """The checkpoint with the shards of its replica in `options.replica`; None where there is none
    to read.
    """
    if options.replica is None:
        return None
    try:
        found = find_replica(look_at(checkpoint.shards), folder_of(options.replica))
        if found is None:
            return None
        return replace(checkpoint, shards=tuple(require_shard(path) for path in found.paths))
    except (OSError, CheckpointError) as error:
        _say(options.replica, error)
        return None


def replicated_files(files: Sequence[str]) -> list[str]:
    """What a loader that opens its files by itself is to be given in place of them: those of the
    whole replica in `SHARDAHEAD_REPLICA_FOLDER`, in natural order, or themselves.

    Raises OSError and ValueError as `resolve_checkpoint` does, and ValueError for settings.
    """
    options = resolve_options()
    if options.replica is None:
        return list(files)
    whole = replicated(resolve_checkpoint(list(files)), options)
    return list(files) if whole is None else [shard.path for shard in whole.shards]


def stage_beside(
    shards: Sequence[Shard], options: PrefetchOptions, topology: LocalTopology
) -> None:
    """Begins to make a replica, where one is asked for, and waits for nothing."""
    if options.replica is None:
        return
    try:
        folder = folder_of(options.replica)
        run = StageRun(shards, folder, options, topology, waits=False)
        run.start(lambda: _tell(folder, run))
    except (OSError, RuntimeError) as error:  # no folder, no thread
        _say(options.replica, error)


def _tell(folder: str, run: StageRun) -> None:
    try:
        replica = run.result()
    except StagingStoppedError:  # another process does it, or the exit has come
        return
    except Exception as error:
        _say(folder, error)
        return
    if not run.was_there:
        logger.info(
            "%s is staged: %s, from which the next load reads",
            printable(replica.path),
            format_bytes(replica.size_bytes),
        )


def _say(folder: str, error: BaseException) -> None:
    message = f"no replica in {printable(os.fspath(folder))}, the load goes on without: {error}"
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
