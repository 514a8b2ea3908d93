"""Which shards typed PATHs name: looks at what lies there, as typed_paths.py says what that is.

Each PATH stands for itself, they add up, and a shard that two of them name counts once. Reads
folders, indexes and model_index.json. May wait for storage; any thread.
"""

from __future__ import annotations

import argparse
import glob
import os
import stat
from collections.abc import Collection, Sequence

from shardahead import _core
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.file_identity import first_of_same
from shardahead.checkpoint.folder_rule import (
    SeveralCheckpointsError,
    natural_sort_key,
    shards_and_indexes,
    some_of,
)
from shardahead.checkpoint.opening import naming, open_regular
from shardahead.checkpoint.shard_index import is_index_name
from shardahead.checkpoint.shards import Shard, resolve_checkpoint, resolve_shards
from shardahead.command import path_errors
from shardahead.command.failure_text import denial_of
from shardahead.command.hub_cache import (
    cache_folder,
    cached_repositories,
    find_snapshot,
    repository_of,
    snapshot_of,
)
from shardahead.command.path_errors import NoShardsError
from shardahead.command.standard_streams import complain
from shardahead.command.typed_paths import (
    PIPELINE_INDEX,
    Filters,
    Listing,
    PathKind,
    Step,
    Typed,
    choice_without,
    distributed_shards,
    kind_of_absent,
    kind_of_file,
    kind_of_folder,
    parts_of_pipeline,
    steps,
)
from shardahead.units import quoted

_MOST_PIPELINE_BYTES = 1 << 20
_MOST_SUBFOLDERS = 64  # that a message is to tell of


def shards_of(options: argparse.Namespace) -> list[Shard]:
    """Of what cli.py parsed. What was passed over is said on standard error, by one local rank.

    Raises OSError where a PATH is not there or cannot be looked at, ValueError where it has no
    shards or several checkpoints, CheckpointError for what is wrong with an index.
    """
    filters = Filters(tuple(options.include), tuple(options.exclude), options.all)
    shards, notes = resolve_typed(options.path, filters)
    if options.shows:
        for note in notes:
            complain(note)
    return shards


def selection_of(options: argparse.Namespace) -> tuple[str, ...]:
    """--include, --exclude and --all for another command: as one word each, for a glob may begin
    with "-".
    """
    words = [f"--include={glob}" for glob in options.include]
    words += [f"--exclude={glob}" for glob in options.exclude]
    return (*words, "--all") if options.all else tuple(words)


def resolve_typed(
    paths: Sequence[str], filters: Filters | None = None
) -> tuple[list[Shard], list[str]]:
    """The shards, each once, and what is to be said of PATHs and files that were passed over."""
    filters = filters or Filters()
    typed = looked_at(paths)
    beside = [each.path for each in typed if each.kind is PathKind.BESIDE]
    if len(beside) == len(typed):
        raise NoShardsError(path_errors.no_shard(beside[0]))
    parts: list[list[Shard]] = []
    notes: list[str] = []
    for step in steps(typed):
        try:
            parts.append(_of_step(step, filters, notes))
        except NoShardsError:
            if not step.came_along:
                raise
            beside += step.paths
    shards = [shard for shard in _once(parts) if filters.take(shard.path)]
    if not shards:
        names = [os.path.basename(shard.path) for part in parts for shard in part]
        where = some_of(paths)
        raise NoShardsError(path_errors.nothing_left(where, filters, names))
    return shards, [*notes, *([path_errors.passed_over(beside)] if beside else [])]


def _once(parts: Sequence[Sequence[Shard]]) -> list[Shard]:
    shards = [shard for part in parts for shard in part]
    if len(parts) == 1:
        return shards
    statuses = [(0, s.size_bytes, s.device, s.inode, s.modified_nanoseconds) for s in shards]
    first = first_of_same([s.path for s in shards], statuses, compare_contents=True)
    return [shard for i, shard in enumerate(shards) if first[i] == i]


# ---- what lies there ----


def listing_of(folder: str) -> Listing:
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: natural_sort_key(entry.name)):
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that loops
                is_folder = False
            (folders if is_folder else files).append(entry.name)
    return Listing(tuple(files), tuple(folders))


def _names_in(folder: str) -> list[str] | None:
    """For a message; None where that cannot be told."""
    try:
        return sorted(os.listdir(folder or "."))
    except OSError:
        return None


def _why_not_listed(folder: str) -> str:
    """Who denies it, where it is not for want of a folder."""
    try:
        os.listdir(folder)
    except OSError as error:
        return denial_of(error)
    return ""


def looked_at(paths: Sequence[str]) -> list[Typed]:
    for path in paths:
        if "\0" in path:
            raise ValueError(f"PATH has a NUL in it: {quoted(path)}")
    # A round trip each on a network filesystem, so they are asked for side by side.
    statuses = _core.statuses([os.fsencode(path) for path in paths])
    found: list[Typed] = []
    absent: list[FileNotFoundError] = []
    for path, status in zip(paths, statuses, strict=True):
        mode = status[0] if status else _mode(path)
        try:
            found += _of_absent(path) if mode is None else [_of_present(path, mode)]
        except FileNotFoundError as error:
            absent.append(error)
    if absent:
        raise path_errors.all_absent(absent)
    return found


def _mode(path: str) -> int | None:
    """None where nothing is there."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _of_present(path: str, mode: int) -> Typed:
    if not stat.S_ISDIR(mode):
        return Typed(path, kind_of_file(path))
    listing = listing_of(path)
    kind = kind_of_folder(path, listing)
    if kind is not PathKind.REPOSITORY:
        return Typed(path, kind, listing)
    repository = repository_of(os.path.abspath(path))
    snapshot = snapshot_of(path)
    if snapshot is None:
        raise NoShardsError(path_errors.no_snapshot(path, repository))
    return _of_snapshot(snapshot, repository)


def _of_snapshot(snapshot: str, repository: str) -> Typed:
    listing = listing_of(snapshot)
    return Typed(snapshot, kind_of_folder(snapshot, listing), listing, repository)


def _of_absent(path: str) -> list[Typed]:
    kind = kind_of_absent(path)
    if kind is PathKind.GLOB:
        matches = sorted(glob.glob(path), key=natural_sort_key)
        if matches:
            return [_of_match(match) for match in matches]
        if not os.path.lexists(path):
            names = _names_in(os.path.dirname(path))
            if names is None and os.path.isdir(folder := os.path.dirname(path) or "."):
                os.listdir(folder)  # raises why not
            raise FileNotFoundError(path_errors.matches_nothing(path, names))
    if kind is PathKind.REPOSITORY_ID:
        snapshot = find_snapshot(path, os.environ)
        if snapshot is not None:
            return [_of_snapshot(snapshot, path)]
        folder, _, name = path.partition("/")
        if name and not os.path.isdir(folder):
            cache = cache_folder(os.environ)
            cached = cached_repositories(cache)
            beside = _names_in(".") or ()
            denied = _why_not_listed(cache)
            raise FileNotFoundError(
                path_errors.absent_repository(path, cache, cached, beside, denied)
            )
    raise _absent(path)


def _of_match(path: str) -> Typed:
    mode = _mode(path)
    if mode is None:
        raise _absent(path)
    return _of_present(path, mode)


def _absent(path: str) -> FileNotFoundError:
    if os.path.islink(path):
        return FileNotFoundError(path_errors.absent(path, path, (), os.readlink(path)))
    missing = path.rstrip("/") or path
    while (folder := os.path.dirname(missing)) and not os.path.lexists(folder):
        missing = folder
    cached = path_errors.meant_repositories(path, cached_repositories(cache_folder(os.environ)))
    if cached:
        return FileNotFoundError(path_errors.not_by_its_id(path, cached))
    beside = _names_in(os.path.dirname(missing))
    return FileNotFoundError(path_errors.absent(path, missing, beside))


# ---- the shards of each ----


def _of_step(step: Step, filters: Filters, notes: list[str]) -> list[Shard]:
    path = step.paths[0]
    if step.kind is PathKind.SHARD:
        return resolve_shards(step.paths)
    if step.kind is PathKind.INDEX:
        return list(resolve_checkpoint(path).shards)
    try:
        if step.kind is PathKind.PIPELINE:
            return _of_pipeline(path, step.listing, filters, notes)
        return _of_folder(path, step.listing or listing_of(path), filters, notes)
    except FileNotFoundError as error:
        if not step.repository:
            raise
        problem = f"{quoted(error.filename or path)}: {error.strerror}"
        raise FileNotFoundError(path_errors.not_whole(problem, step.repository)) from error
    except NoShardsError as error:
        if not step.repository or filters:
            raise
        raise NoShardsError(path_errors.not_whole(str(error), step.repository)) from error


def _of_folder(folder: str, listing: Listing, filters: Filters, notes: list[str]) -> list[Shard]:
    names = listing.seen
    candidates = shards_and_indexes(names)
    of_plan = distributed_shards(names)
    if not candidates and not of_plan:
        holding = _holding(folder, listing.folders)
        raise NoShardsError(path_errors.no_shards(folder, listing, holding))
    if filters.override_rule:
        return _picked(folder, [*candidates, *of_plan], filters)
    kind = kind_of_folder(folder, Listing(listing.files))
    if kind is PathKind.DISTRIBUTED:
        if candidates:
            notes.append(_left_out(folder, "its *.distcp are", candidates))
        return resolve_shards([os.path.join(folder, name) for name in of_plan])
    try:
        if filters.exclude:
            return _without_excluded(folder, names, filters, notes)
        found = resolve_checkpoint(folder, listed=listing.files, tells=False)
    except SeveralCheckpointsError as error:
        indexes = all(map(is_index_name, error.names))
        text = path_errors.several_indexes if indexes else path_errors.several
        raise ValueError(text(folder, error)) from error
    taken = {os.path.basename(path) for path in (found.index, *(s.path for s in found.shards))}
    others = [name for name in [*candidates, *of_plan] if name not in taken]
    if others:
        notes.append(_left_out(folder, f"{found.called} is", others))
    return list(found.shards)


def _picked(folder: str, candidates: list[str], filters: Filters) -> list[Shard]:
    names = [name for name in candidates if filters.take(name)]
    if not any(kind_of_file(name) is PathKind.SHARD for name in names):
        raise NoShardsError(path_errors.nothing_left(quoted(folder), filters, candidates))
    typed = [Typed(os.path.join(folder, name), kind_of_file(name)) for name in names]
    return _once([_of_step(step, filters, []) for step in steps(typed)])


def _without_excluded(
    folder: str, names: Collection[str], filters: Filters, notes: list[str]
) -> list[Shard]:
    candidates = shards_and_indexes(names)
    if not any(map(filters.take, candidates)):
        raise NoShardsError(path_errors.nothing_left(quoted(folder), filters, candidates))
    choice = choice_without(folder, names, filters)
    if choice.index:
        shards = resolve_checkpoint(os.path.join(folder, choice.index)).shards
        kept = [shard for shard in shards if filters.take(shard.path)]
        others = [name for name in names if name != choice.index]
        return kept or _without_excluded(folder, others, filters, notes)
    if choice.left_out:
        notes.append(_left_out(folder, f"{some_of(choice.shards)} is", choice.left_out))
    return resolve_shards([os.path.join(folder, name) for name in choice.shards])


def _of_pipeline(
    path: str, listing: Listing | None, filters: Filters, notes: list[str]
) -> list[Shard]:
    """`listing` is None of the model_index.json of one."""
    folder = path if listing else os.path.dirname(path) or "."
    listing = listing or listing_of(folder)
    parts = parts_of(os.path.join(folder, PIPELINE_INDEX))
    found: list[list[Shard]] = []
    for part in parts:
        if part in listing.folders:
            inside = os.path.join(folder, part)
            found += _if_any(inside, listing_of(inside), filters, notes)
    own = shards_and_indexes(listing.seen)
    if own and (filters.override_rule or not found):
        found += _if_any(folder, listing, filters, notes)
    elif own:
        notes.append(_left_out(folder, f"what {PIPELINE_INDEX} names is", own))
    if not found and filters:
        raise NoShardsError(path_errors.nothing_left(quoted(folder), filters, own))
    if not found:
        text = f"no shards in the parts of the pipeline {quoted(folder)}"
        raise NoShardsError(f"{text}: {some_of(parts) or 'it has none'}")
    return _once(found)


def _if_any(folder: str, listing: Listing, filters: Filters, notes: list[str]) -> list[list[Shard]]:
    """Without shards are a scheduler, a tokenizer, and parts of which a pattern takes nothing."""
    try:
        return [_of_folder(folder, listing, filters, notes)]
    except NoShardsError:
        return []


def parts_of(index: str) -> list[str]:
    descriptor, _ = open_regular(index)
    with open(descriptor, "rb") as file, naming(index):
        content = file.read(_MOST_PIPELINE_BYTES + 1)
    if len(content) > _MOST_PIPELINE_BYTES:
        raise CheckpointError(f"{index!r} is larger than {_MOST_PIPELINE_BYTES} bytes", index)
    try:
        return parts_of_pipeline(content)
    except ValueError as error:
        raise CheckpointError(f"malformed {index!r}: {error}", index) from error


def _holding(folder: str, subfolders: Sequence[str]) -> list[str]:
    """Those of the subfolders in which there are shards."""
    holding = []
    for name in subfolders[:_MOST_SUBFOLDERS]:
        inside = os.path.join(folder, name)
        try:
            listing = listing_of(inside)
        except OSError:
            continue
        kind = kind_of_folder(inside, listing)
        if kind is not PathKind.FOLDER or shards_and_indexes(listing.seen):
            holding.append(name)
    return holding


def _left_out(folder: str, taken: str, names: Sequence[str]) -> str:
    return f"{quoted(folder)}: {taken} the checkpoint; left out: {some_of(names)}"
