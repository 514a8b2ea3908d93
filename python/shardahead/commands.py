"""What each command of `shardahead` does, and how it shows what it found.

Each takes what cli.py parsed and returns the exit status. One thread, which Ctrl-C interrupts.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from shardahead import _core
from shardahead.doctor import as_dict, as_text, examine
from shardahead.handle import PrefetchHandle
from shardahead.launcher import LocalTopology
from shardahead.policy import resolve_options
from shardahead.prefetch import prefetch_files
from shardahead.report import Report
from shardahead.residency import FileResidency, residency
from shardahead.residency import evict as evict_files
from shardahead.shards import Shard, resolve_shards
from shardahead.stripes import fit_blocks
from shardahead.topology import local_topology
from shardahead.units import format_bytes, printable

DONE, INCOMPLETE, WRONG_USAGE = 0, 1, 2
_INTERRUPT_WAIT_SECONDS = 0.3


def warm(options: argparse.Namespace) -> int:
    handle = prefetch_files(
        _files(options),
        options.local_rank,
        options.local_size,
        options.threads,
        options.block_size,
        strategy=options.strategy,
        partition=options.partition,
        window_bytes=0 if options.force else None,
        inflight_bytes=options.inflight,
    )
    interrupted = False
    try:
        _show_progress(handle, quiet=options.quiet or options.json)
    except KeyboardInterrupt:
        interrupted = True
        handle.stop(timeout=_INTERRUPT_WAIT_SECONDS)
    report = handle.report()
    reason = "interrupted" if interrupted else report.incomplete_reason()
    if reason and report.left_out_bytes and report.window_source == "memory":
        reason += "; --force reads on"
    after = None
    if not reason:
        try:
            after = _resident_after(handle, report)
        except OSError as error:
            reason = str(error)
    if after is not None and after < report.planned_bytes // 2:
        reason = (
            f"only {format_bytes(after)} of {format_bytes(report.planned_bytes)} stayed in the "
            "page cache: memory is short, or this mount does not keep pages"
        )
    if options.json:
        document = {**report.to_dict(), "resident_after_bytes": after, "reason": reason}
        print(json.dumps(document))
    else:
        print(f"warm: {report.text()}")
    if reason:
        complain(f"incomplete: {reason}")
    return INCOMPLETE if reason else DONE


def _resident_after(handle: PrefetchHandle, report: Report) -> int | None:
    """What is resident once the only rank is done; None where it cannot be told.

    Waits for pages that are still being read. Raises OSError for the first that cannot be read: it
    stays in the page cache, where it was taken for resident.
    """
    if report.local_size > 1 or report.planned_bytes == 0:
        return None
    total = 0
    for index, file in enumerate(residency([shard.path for shard in handle.shards])):
        if file.resident_bytes is None:
            return None
        total += file.resident_bytes
        if file.pending_bytes:
            handle.fetch_now(index, 0, file.size_bytes)
            total += file.pending_bytes
    return total


def _show_progress(handle: PrefetchHandle, *, quiet: bool) -> None:
    """Waits for the end; on a terminal with a bar of bytes, rate and time left."""
    if quiet or not sys.stderr.isatty():
        handle.wait()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("warm"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("warm", total=handle.progress().planned_bytes)
        while not handle.done:
            try:
                handle.wait(0.1)
            except TimeoutError:
                bar.update(task, completed=handle.progress().done_bytes)
        bar.update(task, completed=handle.progress().done_bytes)


def status(options: argparse.Namespace) -> int:
    _show_residency(options, residency(_files(options)))
    return DONE


def evict(options: argparse.Namespace) -> int:
    files = evict_files(_files(options))
    _show_residency(options, files)
    left = sum((file.resident_bytes or 0) + (file.pending_bytes or 0) for file in files)
    if left:
        complain(
            f"incomplete: {format_bytes(left)} stayed: pages that a process has mapped, or that "
            "are being read or written, cannot be dropped"
        )
    return INCOMPLETE if left else DONE


def _show_residency(options: argparse.Namespace, files: list[FileResidency]) -> None:
    size = sum(file.size_bytes for file in files)
    known = all(file.resident_bytes is not None for file in files)
    resident = sum(file.resident_bytes or 0 for file in files) if known else None
    if options.json:
        document = {
            "size_bytes": size,
            "resident_bytes": resident,
            "files": [_residency_dict(file) for file in files],
        }
        print(json.dumps(document))
        return
    rows = [(printable(file.path), format_bytes(file.size_bytes), _share(file)) for file in files]
    reasons = {file.reason for file in files if file.resident_bytes is None}
    total = FileResidency("in all", size, resident, "", "")
    _print_table(
        ("shard", "size", "resident"), [*rows, ("in all", format_bytes(size), _share(total))]
    )
    for reason in sorted(reasons):
        print(f"unknown: {reason}")
    pending = sum(file.pending_bytes or 0 for file in files)
    if pending:
        print(f"not usable: {format_bytes(pending)} more are being read, or could not be read")


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


def plan(options: argparse.Namespace) -> int:
    shards = resolve_shards(_files(options))
    chosen = fit_blocks(
        resolve_options(block_size=options.block_size, partition=options.partition), shards
    )
    where = local_topology(local_rank=options.local_rank, local_size=options.local_size)
    sizes = [shard.size_bytes for shard in shards]
    spans = [None] * len(sizes)
    blocks = _core.plan_blocks(sizes, spans, chosen.block_bytes)
    # Who claims what is not known before; a fixed share is.
    share = list(range(len(blocks)))
    if chosen.partition != "dynamic":
        share = _core.plan_share(
            sizes, spans, chosen.block_bytes, chosen.partition, where.rank, where.size
        )
    if not options.json:
        _show_plan(shards, blocks, share, chosen.partition, where)
        return DONE
    document = {
        "size_bytes": sum(sizes),
        "block_bytes": chosen.block_bytes,
        "partition": chosen.partition,
        "local_rank": where.rank,
        "local_size": where.size,
        "topology_source": where.source,
        "files": [{"path": printable(s.path), "size_bytes": s.size_bytes} for s in shards],
        "blocks": [
            {"file": file, "offset": offset, "length": length} for file, offset, length in blocks
        ],
        "share": share,
    }
    print(json.dumps(document))
    return DONE


def _show_plan(
    shards: Sequence[Shard],
    blocks: Sequence[tuple[int, int, int]],
    share: Sequence[int],
    partition: str,
    where: LocalTopology,
) -> None:
    counts = [0] * len(shards)
    for file, _, _ in blocks:
        counts[file] += 1
    rows = [
        (printable(s.path), format_bytes(s.size_bytes), str(n))
        for s, n in zip(shards, counts, strict=True)
    ]
    size = format_bytes(sum(shard.size_bytes for shard in shards))
    _print_table(("shard, in order", "size", "blocks"), [*rows, ("in all", size, str(len(blocks)))])
    if partition == "dynamic":
        print(
            f"partition dynamic: {where.size} local ranks ({where.source}) claim them in this order"
        )
        return
    mine = sum(blocks[index][2] for index in share)
    print(
        f"local rank {where.rank} of {where.size} ({where.source}), partition {partition}: "
        f"{len(share)} blocks, {format_bytes(mine)}"
    )


def doctor(options: argparse.Namespace) -> int:
    facts, advice = examine(_files(options), options.read_bytes)
    if options.json:
        print(json.dumps(as_dict(facts, advice)))
        return DONE
    text = as_text(facts, advice)
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
    return DONE


def _print_table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(heads):
        table.add_column(
            head, justify="right" if column else "left", overflow="fold", no_wrap=column > 0
        )
    encoding = sys.stdout.encoding or "utf-8"
    for number, row in enumerate(rows):
        cells = [cell.encode(encoding, "backslashreplace").decode(encoding) for cell in row]
        table.add_row(*cells, end_section=number == len(rows) - 2)
    width = None if sys.stdout.isatty() else max(80, 50 + max(len(row[0]) for row in rows))
    Console(width=width, markup=False, highlight=False).print(table)


def _files(options: argparse.Namespace) -> str | list[str]:
    paths: list[str] = options.path
    return paths[0] if len(paths) == 1 else paths


def complain(message: str) -> None:
    print(f"shardahead: {printable(message)}", file=sys.stderr)
