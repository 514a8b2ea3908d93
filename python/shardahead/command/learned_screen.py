"""What `plan --learned` shows of the profile of a load: which part of each shard it wants. Reads
the profile, and lays out what it holds.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from shardahead.checkpoint.shards import Shard
from shardahead.command.residency_screen import EACH
from shardahead.command.shard_names import apart
from shardahead.command.tables import MOST_SHARDS, Row, table_of
from shardahead.prefetch.byte_ranges import total
from shardahead.prefetch.profile import Profile, ProfileError
from shardahead.prefetch.profile_file import named_files, read_profile
from shardahead.units import counted, format_bytes, format_share, printable, quoted


def profile_of(path: str, shards: Sequence[Shard]) -> Profile:
    """The profile in the file `path`, of these shards. Raises ValueError where it is none, or that
    of other files, and OSError where it cannot be read.
    """
    try:
        profile = read_profile(path, named_files(shards))
    except ProfileError as error:
        raise ValueError(f"--learned: {quoted(path)} is passed over: {error}") from None
    if profile is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return profile


def learned_document(path: str, profile: Profile) -> dict[str, Any]:
    """For programs."""
    size_bytes = sum(size for _, size in profile.files)
    return {
        "profile": path,
        "who": profile.who,
        "grain_bytes": profile.grain_bytes,
        "wanted_bytes": profile.touched_bytes,
        "wanted_share": profile.touched_bytes / size_bytes if size_bytes else None,
        "order": list(profile.order),
        "ranges": [[list(each) for each in ranges] for ranges in profile.ranges],
    }


def learned_lines(profile: Profile, shards: Sequence[Shard], *, each: bool) -> list[str]:
    """For people: one line, and a row for each shard of which something is wanted."""
    size_bytes = sum(shard.size_bytes for shard in shards)
    wanted = profile.touched_bytes
    line = (
        f"learned: {printable(profile.who)} touched {format_bytes(wanted)} "
        f"({format_share(wanted, size_bytes)}), in grains of {format_bytes(profile.grain_bytes)}"
    )
    _, names = apart([printable(shard.path) for shard in shards])
    rows = [
        Row(
            name,
            (
                format_bytes(total(ranges)),
                format_share(total(ranges), shard.size_bytes),
                counted(len(ranges), "range"),
            ),
        )
        for name, shard, ranges in zip(names, shards, profile.ranges, strict=True)
        if ranges
    ]
    shown = rows if each else rows[:MOST_SHARDS]
    if not shown:
        return [line]
    table = table_of(("shard", "touched", "share", "in"), shown)
    return [line, "", table, *(["", EACH] if len(shown) < len(rows) else [])]
