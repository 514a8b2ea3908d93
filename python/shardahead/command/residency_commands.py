"""What `status` and `evict` do: one look at each file, and a table of what was found.

Each takes what cli.py parsed and returns the exit status. One thread, which signals interrupt
(endings.py): what may wait for storage is done by another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from shardahead.checkpoint.shards import Shard
from shardahead.command.endings import interruptibly, reason_of
from shardahead.command.results import finish, table_of
from shardahead.command.typed_files import shards_of
from shardahead.node.mounts import memory_types
from shardahead.node.residency import FileResidency, evict_file, residency_of
from shardahead.units import format_bytes, printable


def status(options: argparse.Namespace) -> int:
    files, ended = _each_file(options, residency_of)
    reason = reason_of(ended) if ended else None
    return finish(_residency_text(options, files, reason), reason, ended)


def evict(options: argparse.Namespace) -> int:
    files, ended = _each_file(options, evict_file)
    reason: str | None = None
    if ended is None:
        try:
            reason = interruptibly(partial(_why_not_evicted, files))
        except KeyboardInterrupt as error:
            ended = error
    reason = reason_of(ended) if ended else reason
    return finish(_residency_text(options, files, reason), reason, ended)


def _each_file(
    options: argparse.Namespace, look: Callable[[str], FileResidency]
) -> tuple[list[FileResidency], KeyboardInterrupt | None]:
    """What `look` finds of each file; of those that it did not come to, that it did not."""
    shards: list[Shard] = []
    found: list[FileResidency] = []
    ended: list[KeyboardInterrupt] = []

    def work() -> None:
        shards.extend(shards_of(options))
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
        files.append(FileResidency(shard.path, shard.size_bytes, None, "unknown", "not looked at"))
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
        count = "1 file" if len(unknown) == 1 else f"{len(unknown)} files"
        reasons.append(f"what stayed of {count} is not known: {unknown[0].reason}")
    return "; ".join(reasons) or None


def _left_bytes(file: FileResidency) -> int:
    return (file.resident_bytes or 0) + (file.pending_bytes or 0)


def _residency_text(
    options: argparse.Namespace, files: Sequence[FileResidency], reason: str | None
) -> str:
    size = sum(file.size_bytes for file in files)
    known = all(file.resident_bytes is not None for file in files)
    resident = sum(file.resident_bytes or 0 for file in files) if known else None
    if options.json:
        document = {
            "size_bytes": size,
            "resident_bytes": resident,
            "reason": reason,
            "files": [_residency_dict(file) for file in files],
        }
        return json.dumps(document)
    rows = [(printable(file.path), format_bytes(file.size_bytes), _share(file)) for file in files]
    reasons = {file.reason for file in files if file.resident_bytes is None}
    total = FileResidency("in all", size, resident, "", "")
    table = table_of(
        ("shard", "size", "resident"), [*rows, ("in all", format_bytes(size), _share(total))]
    )
    lines = [table, *(f"unknown: {reason}" for reason in sorted(reasons))]
    pending = sum(file.pending_bytes or 0 for file in files)
    if pending:
        lines.append(
            f"not usable: {format_bytes(pending)} more are being read, or could not be read"
        )
    return "\n".join(lines)


def _residency_dict(file: FileResidency) -> dict[str, Any]:
    return {
        "path": printable(file.path),
        "size_bytes": file.size_bytes,
        "resident_bytes": file.resident_bytes,
        "pending_bytes": file.pending_bytes,
        "source": file.source,
        "reason": file.reason,
    }


def _share(file: FileResidency) -> str:
    if file.resident_bytes is None:
        return "unknown"
    percent = 100 * file.resident_bytes / file.size_bytes if file.size_bytes else 100.0
    return f"{format_bytes(file.resident_bytes)} ({percent:.1f} %)"
