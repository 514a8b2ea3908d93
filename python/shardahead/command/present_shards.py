"""Which shards of typed PATHs are there already, of a checkpoint that is still being written. What
a load would refuse, an index before its shards, a numbered set with gaps, is no error here.

May wait for storage; any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from shardahead.checkpoint.folder_rule import MissingShardsError, choose, shards_and_indexes
from shardahead.checkpoint.shard_index import is_index_name, read_index
from shardahead.checkpoint.shards import MAX_INDEX_BYTES, Shard, resolve_shards
from shardahead.command.failure_text import failure_text
from shardahead.command.typed_files import listing_of, looked_at, parts_of, resolve_typed
from shardahead.command.typed_paths import (
    PIPELINE_INDEX,
    Filters,
    PathKind,
    Typed,
    distributed_shards,
)

_OF_SET = re.compile(r"(.*?-)([0-9]{1,9})(-of-)([0-9]{1,9})(.*)", re.DOTALL)
_MOST_OF_SET = 100_000


@dataclass(frozen=True)
class Present:
    """The shards that are there, why they are not all, and what is to be said of files that were
    passed over. missing: the paths of those that are known to be missing.
    """

    shards: list[Shard]
    problem: str | None = None
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def present_shards(paths: Sequence[str], filters: Filters) -> Present:
    """What `resolve_typed` gives; where it raises, the shards that are there, in the same order as
    far as that is known.
    """
    try:
        shards, notes = resolve_typed(paths, filters)
        return Present(shards, None, tuple(notes))
    except (OSError, ValueError) as error:
        problem, missing = failure_text(error), _missing_of(error)
    found: list[str] = []
    for path in paths:
        with suppress(OSError, ValueError):  # nothing of it is there
            for typed in looked_at([path]):
                found += [name for name in _present(typed, filters) if os.path.isfile(name)]
    try:
        return Present(_in_order(found), problem, missing=missing)
    except (OSError, ValueError) as error:  # one has gone meanwhile
        return Present([], failure_text(error))


def _missing_of(error: BaseException | None) -> tuple[str, ...]:
    """Of the error, or of one that it came from."""
    if isinstance(error, MissingShardsError):
        return error.paths
    return _missing_of(error.__cause__) if error is not None else ()


def complete_names(names: Collection[str]) -> list[str]:
    """With the names that numbered sets among them will have once they are whole. Pure."""
    found = dict.fromkeys(names)
    for name in names:
        match = _OF_SET.fullmatch(name)
        if match is None or int(match.group(4)) > _MOST_OF_SET:
            continue
        begin, digits, of, total, end = match.groups()
        first = 0 if int(digits) == 0 else 1
        for number in range(first, first + int(total)):
            found.setdefault(f"{begin}{number:0{len(digits)}d}{of}{total}{end}")
    return list(found)


def names_present(folder: str, names: Collection[str]) -> list[str]:
    """Those of `names` that are, or are going to be, of the checkpoint of this folder. Reads its
    index, where there is one and it can be read.
    """
    while True:
        try:
            choice = choose(folder, complete_names(names))
        except (OSError, ValueError):  # several checkpoints, say: which one is meant, time tells
            return []
        if not choice.index:
            return [name for name in choice.shards if name in set(names)]
        try:
            files = read_index(os.path.join(folder, choice.index), MAX_INDEX_BYTES)
        except (OSError, ValueError):  # half written
            names = [name for name in names if name != choice.index]
            continue
        return list(dict.fromkeys(files.values()))


def _present(typed: Typed, filters: Filters) -> list[str]:
    path = typed.path
    if typed.kind is PathKind.SHARD:
        return [path] if filters.take(path) else []
    if typed.kind is PathKind.INDEX:
        files = read_index(path, MAX_INDEX_BYTES)
        return _within(os.path.dirname(path), list(dict.fromkeys(files.values())), filters)
    if typed.kind is PathKind.PIPELINE:
        return _of_pipeline(typed, filters)
    if typed.kind is PathKind.BESIDE:
        return []
    return _of_folder(path, typed.listing.seen if typed.listing else [], filters)


def _of_folder(folder: str, names: Sequence[str], filters: Filters) -> list[str]:
    of_plan = distributed_shards(names)
    if filters.override_rule or (of_plan and not shards_and_indexes(names)):
        candidates = [*shards_and_indexes(names), *of_plan]
        return _within(folder, [n for n in candidates if not is_index_name(n)], filters)
    return _within(folder, names_present(folder, names), filters)


def _of_pipeline(typed: Typed, filters: Filters) -> list[str]:
    folder = typed.path if typed.listing else os.path.dirname(typed.path) or "."
    found: list[str] = []
    for part in parts_of(os.path.join(folder, PIPELINE_INDEX)):
        inside = os.path.join(folder, part)
        with suppress(OSError, ValueError):
            found += _of_folder(inside, listing_of(inside).seen, filters)
    return found


def _within(folder: str, names: Sequence[str], filters: Filters) -> list[str]:
    return [os.path.join(folder, name) for name in names if filters.take(name)]


def _in_order(paths: Sequence[str]) -> list[Shard]:
    """Each by itself: a list would be sorted."""
    return [shard for path in dict.fromkeys(paths) for shard in resolve_shards([path])]
