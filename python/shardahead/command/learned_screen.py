"""What `plan --learned` shows of the profile of a load: which part of each shard it wants; or of
all profiles in a folder: where in the checkpoint each of them reads. Reads them, and lays out what
they hold.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate, chain
from typing import Any

from shardahead.checkpoint.shards import Shard
from shardahead.command.residency_screen import EACH
from shardahead.command.shard_names import apart
from shardahead.command.tables import MOST_SHARDS, shard_row, showable, table_of
from shardahead.prefetch.byte_ranges import Ranges, common, merged, total
from shardahead.prefetch.profile import Profile, ProfileError
from shardahead.prefetch.profile_file import named_files, read_profile
from shardahead.units import counted, format_bytes, format_share, printable, quoted

_MAP_COLUMNS = 48


def profiles_of(path: str, shards: Sequence[Shard]) -> list[tuple[str, Profile]]:
    """The profile in the file `path`, or those of these shards in that folder, by whose they are.
    Raises ValueError where there is none, or that of other files, and OSError where it cannot be
    read.
    """
    if not os.path.isdir(path):
        return [(path, profile_of(path, shards))]
    found = []
    for name in sorted(os.listdir(path)):
        with suppress(ValueError, OSError):  # what else lies there
            found.append((os.path.join(path, name), profile_of(os.path.join(path, name), shards)))
    if not found:
        raise ValueError(f"--learned: no profile of these shards in the folder {quoted(path)}")
    return sorted(found, key=lambda each: _in_order(each[1].who))


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


def learned_page(profiles: Sequence[Profile], shards: Sequence[Shard], *, each: bool) -> list[str]:
    """For people: a single profile shard by shard, several beside each other."""
    if len(profiles) == 1:
        return learned_lines(profiles[0], shards, each=each)
    return learned_map(profiles) if profiles else []


def learned_map(profiles: Sequence[Profile]) -> list[str]:
    """A line for each profile, and one for all together: the checkpoint from its beginning to its
    end, and how much of it is wanted where.
    """
    size_bytes = sum(size for _, size in profiles[0].files)
    united = [merged(chain(*ranges)) for ranges in zip(*(p.ranges for p in profiles), strict=True)]
    rows = [(printable(profile.who), profile.ranges) for profile in profiles]
    rows.append(("any of them", tuple(united)))
    widest = max(len(name) for name, _ in rows)
    sizes = [size for _, size in profiles[0].files]
    lines = [
        f"{name:<{widest}}  {strip(ranges, sizes, _MAP_COLUMNS)}  "
        f"{format_share(sum(map(total, ranges)), size_bytes):>5}"
        for name, ranges in rows
    ]
    full, part, none = _marks()
    legend = f"{full} all of it, {part} a part, {none} nothing; the shards in their order"
    wanted = format_bytes(sum(map(total, united)))
    return [f"learned: {len(profiles)} profiles, {wanted} together", "", *lines, "", legend]


def strip(ranges: Sequence[Ranges], sizes: Sequence[int], columns: int) -> str:
    """The files one after the other in so many columns: whether all, a part or nothing of what a
    column stands for is wanted.
    """
    size_bytes = sum(sizes)
    positions = [0, *accumulate(sizes)]
    wanted = merged(
        (begin + offset, length)
        for begin, of_file in zip(positions, ranges, strict=False)
        for offset, length in of_file
    )
    marks = _marks()
    shown = []
    for column in range(columns):
        begin, end = (size_bytes * at // columns for at in (column, column + 1))
        found = total(common(((begin, end - begin),), wanted)) if end > begin else 0
        # To a hundredth: grains are larger than what is wanted of them.
        all_of_it = found * 100 >= 99 * (end - begin) > 0
        shown.append(marks[0] if all_of_it else marks[1] if found else marks[2])
    return "".join(shown)


def _marks() -> tuple[str, str, str]:
    fancy = ("█", "▒", "·")
    return fancy if showable("".join(fancy)) == "".join(fancy) else ("#", ":", ".")


def _in_order(who: str) -> list[tuple[int, str]]:
    """Rank 2 before rank 10."""
    parts = re.split(r"([0-9]+)", who)
    return [(int(p), "") if p.isdigit() and p.isascii() else (-1, p) for p in parts]


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
        shard_row(
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
