"""What `plan` shows for people: one line with what would be read and by whom, then the shards in
their order. It lays out what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

from shardahead.command.residency_screen import EACH, place
from shardahead.command.shard_names import apart
from shardahead.command.tables import MOST_SHARDS, Row, shard_row, table_of
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.options import PrefetchOptions
from shardahead.units import counted, format_bytes, printable

_SHOWN_ENDS = 5  # shards at the beginning and at the end, of many


def plan_line(
    size_bytes: int,
    blocks: int,
    options: PrefetchOptions,
    where: LocalTopology,
    share_blocks: int,
    share_bytes: int,
) -> str:
    """`share_blocks` and `share_bytes` are this rank's, where it has a share of its own."""
    of_all = f"{format_bytes(size_bytes)} in {counted(blocks, 'block')}"
    if where.size == 1:
        return f"plan: {of_all}, read in this order"
    if options.partition == "dynamic":
        ranks = counted(where.size, "local rank")
        return f"plan: {of_all}, which {ranks} would claim in this order"
    return (
        f"plan: {of_all}; local rank {where.rank} of {where.size}: "
        f"{counted(share_blocks, 'block')}, {format_bytes(share_bytes)} "
        f"(partition {options.partition})"
    )


def plan_details(options: PrefetchOptions, where: LocalTopology) -> str:
    return (
        f"blocks of {format_bytes(options.block_bytes)}; partition {options.partition}; local rank "
        f"{where.rank} of {where.size} ({where.source})"
    )


def planned_shards(
    paths: Sequence[str], sizes: Sequence[int], blocks: Sequence[int], *, each: bool
) -> list[str]:
    """A row for each shard; of many, unless it is to be `each`, of the first and of the last."""
    shown = [printable(path) for path in paths]
    _, names = apart(shown)
    rows = [
        shard_row(name, (format_bytes(size), str(count)))
        for name, size, count in zip(names, sizes, blocks, strict=True)
    ]
    summed_up = len(rows) > MOST_SHARDS and not each
    if summed_up:
        between = slice(_SHOWN_ENDS, -_SHOWN_ENDS)
        count, size = len(rows[between]), format_bytes(sum(sizes[between]))
        rows[between] = [Row(f"({count} more)", (size, str(sum(blocks[between]))))]
    table = table_of(("shard, in this order", "size", "blocks"), rows)
    return [place(shown), "", table, *(["", EACH] if summed_up else [])]
