"""What `status` and `evict` show: for people one line with what matters, then the shards; for
programs all of it. It lays out what it is given, and looks at no file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from shardahead.command.damaged_shards import first_of_damages
from shardahead.command.shard_names import apart
from shardahead.command.tables import (
    MOST_SHARDS,
    Row,
    lines_at_terminal,
    shard_row,
    showable,
    table_of,
)
from shardahead.node.residency import FileResidency
from shardahead.units import counted, format_bytes, format_share, printable

EACH = "--each shows every shard"
_ABOVE = 2  # lines of a table above its rows
_STATES = ("resident", "partly resident", "not resident", "unknown")


def status_line(files: Sequence[FileResidency]) -> str:
    size, resident = size_of(files), resident_of(files)
    if resident is None:
        known = sum(file.resident_bytes or 0 for file in files)
        at_least = f", at least {format_bytes(known)}" if known else ""
        return f"it is not known how much of {format_bytes(size)} is resident{at_least}"
    share = format_share(resident, size)
    return f"{format_bytes(resident)} of {format_bytes(size)} resident ({share})"


def evict_line(
    before: Sequence[FileResidency], after: Sequence[FileResidency], size_bytes: int
) -> str:
    """`before` and `after` are of the same files, which may not be all: those have `size_bytes`."""
    size = format_bytes(size_bytes)
    had, has = _there(before), _there(after)
    if had is None or has is None:
        return f"it is not known how much of {size} was resident, or is"
    if not had:
        return f"nothing of {size} was resident"
    if not has:
        return f"{format_bytes(had)} of {size} dropped"
    return f"{format_bytes(max(had - has, 0))} of {size} dropped, {format_bytes(has)} stayed"


def size_of(files: Sequence[FileResidency]) -> int:
    return sum(file.size_bytes for file in files)


def resident_of(files: Sequence[FileResidency]) -> int | None:
    """None where it is not known of each."""
    if any(file.resident_bytes is None for file in files):
        return None
    return sum(file.resident_bytes or 0 for file in files)


def shards_shown(
    files: Sequence[FileResidency],
    *,
    each: bool,
    most_lines: int | None = None,
    damages: Mapping[str, str] | None = None,
) -> list[str]:
    """The common folder, a row for each shard, and what else is to be said: by path, what is known
    to be wrong with some. Of more than MOST_SHARDS, or where they take more than `most_lines` of
    the terminal, one row for all that are alike, unless it is to be `each`.
    """
    summed_up = len(files) > MOST_SHARDS and not each
    paths = [printable(file.path) for file in files]
    _, names = apart(paths)
    table = "" if summed_up else _each_shard(files, names)
    if most_lines is not None and not each:
        summed_up = summed_up or lines_at_terminal(table) - _ABOVE > most_lines
    lines = [place(paths), ""]
    lines += [_summed_up(files), "", EACH] if summed_up else [table]
    remarks = []
    if summed_up and (first := _first_cold(files, names)):
        remarks.append(f"the first that is not resident: {showable(first)}")
    reasons = {file.reason for file in files if file.resident_bytes is None}
    remarks += [f"unknown: {reason}" for reason in sorted(reasons)]
    if pending := sum(file.pending_bytes or 0 for file in files):
        whose = [name for name, file in zip(names, files, strict=True) if file.pending_bytes]
        more = f" and {len(whose) - 1} more" if len(whose) > 1 else ""
        remarks.append(
            f"not usable: {format_bytes(pending)} more are being read, or could not be read: "
            f"{showable(whose[0])}{more}"
        )
    if damage := first_of_damages([*(damages or {}).values()]):
        remarks.append(f"a load will fail: {showable(damage)}")
    return [*lines, *([""] if remarks and not summed_up else []), *remarks]


def told_by(files: Sequence[FileResidency]) -> str:
    """Who has told what is resident, and of how many shards."""
    counts = Counter(file.source for file in files)
    told = ", ".join(f"{source} {counted(count, 'shard')}" for source, count in counts.items())
    return f"told by: {told}"


def place(paths: Sequence[str]) -> str:
    """How many shards there are, and where: `paths` are printable."""
    count, (folder, _) = counted(len(paths), "shard"), apart(paths)
    if folder:
        return f"{count} in {showable(folder)}"
    folders = len({path.rpartition("/")[0] for path in paths})
    return f"{count} in {counted(folders, 'folder')}" if folders > 1 else count


def residency_document(
    files: Sequence[FileResidency],
    reason: str | None,
    damages: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All of it, in types that the json module writes. Where there are `damages`, none or some,
    each file has its own.
    """
    return {
        "size_bytes": size_of(files),
        "resident_bytes": resident_of(files),
        "reason": reason,
        "files": [
            {
                **_residency_dict(file),
                **({} if damages is None else {"damage": damages.get(file.path)}),
            }
            for file in files
        ],
    }


def _each_shard(files: Sequence[FileResidency], names: Sequence[str]) -> str:
    rows = [
        shard_row(name, _cells([file]), file.resident_bytes, file.size_bytes)
        for name, file in zip(names, files, strict=True)
    ]
    return table_of(("shard", "size", "resident"), rows, bars=True, any_order=True)


def _summed_up(files: Sequence[FileResidency]) -> str:
    groups: dict[str, list[FileResidency]] = {state: [] for state in _STATES}
    for file in files:
        groups[_state(file)].append(file)
    rows = [
        Row(f"{len(group)} {state}", _cells(group), resident_of(group), size_of(group))
        for state, group in groups.items()
        if group
    ]
    return table_of(("shards", "size", "resident"), rows, bars=True)


def _first_cold(files: Sequence[FileResidency], names: Sequence[str]) -> str | None:
    cold = (name for name, file in zip(names, files, strict=True) if _state(file) in _STATES[1:3])
    return next(cold, None)


def _state(file: FileResidency) -> str:
    if file.resident_bytes is None:
        return _STATES[3]
    if file.resident_bytes >= file.size_bytes:
        return _STATES[0]
    return _STATES[1] if file.resident_bytes else _STATES[2]


def _cells(files: Sequence[FileResidency]) -> tuple[str, str]:
    size, resident = size_of(files), resident_of(files)
    share = "unknown" if resident is None else format_share(resident, size)
    return format_bytes(size), share


def _there(files: Sequence[FileResidency]) -> int | None:
    """Also what cannot be used."""
    resident = resident_of(files)
    return None if resident is None else resident + sum(file.pending_bytes or 0 for file in files)


def _residency_dict(file: FileResidency) -> dict[str, Any]:
    return {
        "path": file.path,
        "size_bytes": file.size_bytes,
        "resident_bytes": file.resident_bytes,
        "pending_bytes": file.pending_bytes,
        "source": file.source,
        "reason": file.reason,
    }
