"""What `status` and `evict` do: one look at each file, and what was found, for people or as JSON.

Each takes what cli.py parsed and returns the exit status. Of several local ranks each finds out its
own, and one shows. One thread, which signals interrupt (endings.py): what may wait for storage is
done by another.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from shardahead.checkpoint.shards import Shard
from shardahead.command.damaged_shards import damages_in_memory
from shardahead.command.endings import interruptibly, reason_of
from shardahead.command.evict_beside import leave_to_rank_0
from shardahead.command.json_documents import json_text
from shardahead.command.readiness import Required, why_not_ready
from shardahead.command.residency_screen import (
    evict_line,
    residency_document,
    shards_shown,
    size_of,
    status_line,
    told_by,
)
from shardahead.command.results import finish
from shardahead.command.typed_files import shards_of
from shardahead.command.watch import watch
from shardahead.node.mounts import memory_types
from shardahead.node.page_keeping import forgetting
from shardahead.node.residency import FileResidency, evict_file, residency_of
from shardahead.units import counted, format_bytes

_NOT_LOOKED_AT = "not looked at"


def status(options: argparse.Namespace) -> int:
    required: Required | None = options.require
    if options.watch is not None:
        return watch(options, required)
    files, ended = _each_file(options, residency_of)
    reason = reason_of(ended) if ended else None
    if required is not None and ended is None:
        reason = why_not_ready(files, required)
    if not options.shows:
        return _finish_silently(reason, ended)
    damages: dict[str, str] = {}
    if required is None and ended is None:  # a probe asks often, and for one thing
        damages = interruptibly(partial(damages_in_memory, files))
    if options.json:
        document = residency_document(files, reason, damages)
        return finish(json_text("status", document), reason, ended)
    lines = [f"status: {status_line(files)}"]
    lines += shards_shown(files, each=options.each, damages=damages)
    if ended is None:
        lines += interruptibly(partial(forgetting, [file.path for file in files]))
    if options.verbose:
        lines += ["", told_by(files)]
    return finish("\n".join(lines), reason, ended)


def evict(options: argparse.Namespace) -> int:
    before: list[FileResidency] = []
    leave = None if options.shows else leave_to_rank_0
    files, ended = _each_file(options, partial(_look_and_evict, before), leave)
    reason: str | None = None
    if ended is None:
        try:
            reason = interruptibly(partial(_why_not_evicted, files))
        except KeyboardInterrupt as error:
            ended = error
    reason = reason_of(ended) if ended else reason
    if not options.shows:
        return _finish_silently(reason, ended)
    if options.json:
        return finish(json_text("evict", residency_document(files, reason)), reason, ended)
    count = min(len(before), sum(file.reason != _NOT_LOOKED_AT for file in files))
    lines = [f"evict: {evict_line(before[:count], files[:count], size_of(files))}"]
    if reason or options.verbose or options.each:
        lines += shards_shown(files, each=options.each)
    if options.verbose:
        lines += ["", told_by(files)]
    return finish("\n".join(lines), reason, ended)


def _finish_silently(reason: str | None, ended: KeyboardInterrupt | None) -> int:
    """The exit status. Why it is incomplete another rank says, but for a signal to this one."""
    return finish("", reason, ended, complains=ended is not None)


def _look_and_evict(before: list[FileResidency], path: str) -> FileResidency:
    found = residency_of(path)
    left = evict_file(path)
    before.append(found)
    return left


def _each_file(
    options: argparse.Namespace,
    look: Callable[[str], FileResidency],
    first: Callable[[Sequence[str], Callable[[], bool]], None] | None = None,
) -> tuple[list[FileResidency], KeyboardInterrupt | None]:
    """What `look` finds of each file, after `first` with all; of those that it did not come to,
    that it did not.
    """
    shards: list[Shard] = []
    found: list[FileResidency] = []
    ended: list[KeyboardInterrupt] = []

    def work() -> None:
        shards.extend(shards_of(options))
        if first is not None:
            first([shard.path for shard in shards], lambda: bool(ended))
        for shard in shards:
            if ended:
                return
            found.append(look(shard.path))

    try:
        interruptibly(work)
    except KeyboardInterrupt as error:
        ended.append(error)
    files = found[: len(shards)]
    for shard in shards[len(files) :]:
        files.append(FileResidency(shard.path, shard.size_bytes, None, "unknown", _NOT_LOOKED_AT))
    return files, ended[0] if ended else None


def _why_not_evicted(files: Sequence[FileResidency]) -> str | None:
    reasons = []
    left = [file for file in files if _left_bytes(file)]
    in_memory = memory_types([file.path for file in left])
    for kind in sorted(set(in_memory.values())):
        size = sum(_left_bytes(file) for file in left if in_memory.get(file.path) == kind)
        reasons.append(
            f"{format_bytes(size)} stayed: these files live in memory ({kind}), which is their "
            "storage: there is nothing else to read them from"
        )
    others = sum(_left_bytes(file) for file in left if file.path not in in_memory)
    if others:
        reasons.append(
            f"{format_bytes(others)} stayed: pages that a process has mapped or locked, or that "
            "are being read or written, cannot be dropped"
        )
    unknown = [file for file in files if file.resident_bytes is None]
    if unknown:
        count = counted(len(unknown), "file")
        reasons.append(f"what stayed of {count} is not known: {unknown[0].reason}")
    return "; ".join(reasons) or None


def _left_bytes(file: FileResidency) -> int:
    return (file.resident_bytes or 0) + (file.pending_bytes or 0)
