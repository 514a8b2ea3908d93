"""What a typed PATH is, by its name and by what lies there, and in which order several come. Pure.

A PATH stands for itself, and those that are typed add up. The filesystem is looked at elsewhere
(typed_files.py), and what is wrong with a PATH is worded in path_errors.py. Any thread.
"""

from __future__ import annotations

import enum
import fnmatch
import itertools
import json
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shardahead.checkpoint.folder_rule import (
    Choice,
    SeveralCheckpointsError,
    choose,
    natural_sort_key,
    shards_and_indexes,
)
from shardahead.checkpoint.shard_index import is_index_name

#: What diffusers calls the list of a pipeline's parts.
PIPELINE_INDEX = "model_index.json"
#: What torch.distributed.checkpoint writes: shards, and beside them the plan of what is where.
DISTRIBUTED_SUFFIX, DISTRIBUTED_PLAN = ".distcp", ".metadata"
#: What a repository's folder in a Hugging Face cache begins with.
REPOSITORY_BEGIN = "models--"

# What lies beside the weights and comes along with a shell's `*`; nothing of it is a shard.
_BESIDE = re.compile(
    r".*\.(?:json|jsonl|txt|md|rst|py|ya?ml|toml|jinja2?|model|tiktoken|vocab|html?|pdf|png|jpe?g"
    r"|gif|svg|webp|csv|sha256|md5|lock|log|sh|ipynb)|(?:LICENSE|LICENCE|NOTICE|README)(?:[.-].*)?",
    re.IGNORECASE | re.DOTALL,
)
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPOSITORY_ID = re.compile(rf"{_WORD}(?:/{_WORD})?")
_MOST_ID = 96  # characters, as the Hub has it


class PathKind(enum.Enum):
    """What a PATH turns out to be."""

    SHARD = enum.auto()
    INDEX = enum.auto()
    BESIDE = enum.auto()  # a file that is no shard
    PIPELINE = enum.auto()  # a folder of diffusers, or its model_index.json
    DISTRIBUTED = enum.auto()
    REPOSITORY = enum.auto()  # its folder in a Hugging Face cache
    FOLDER = enum.auto()
    GLOB = enum.auto()
    REPOSITORY_ID = enum.auto()
    NOTHING = enum.auto()


@dataclass(frozen=True)
class Listing:
    """Names of what is in a folder, hidden ones too, in natural order."""

    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def seen(self) -> list[str]:
        """The files that are not hidden."""
        return [name for name in self.files if not name.startswith(".")]


def kind_of_file(name: str) -> PathKind:
    """A file that is there, by its name. What is not known counts as a shard: any file may."""
    name = os.path.basename(name)
    if name == PIPELINE_INDEX:
        return PathKind.PIPELINE
    if is_index_name(name):
        return PathKind.INDEX
    is_beside = name == DISTRIBUTED_PLAN or _BESIDE.fullmatch(name)
    return PathKind.BESIDE if is_beside else PathKind.SHARD


def kind_of_folder(path: str, listing: Listing) -> PathKind:
    """A folder that is there, by its name and the names of what is in it."""
    files, folders = listing.files, listing.folders
    begins = os.path.basename(path.rstrip("/")).startswith(REPOSITORY_BEGIN)
    if "snapshots" in folders and (begins or {"refs", "blobs"} <= set(folders)):
        return PathKind.REPOSITORY
    if PIPELINE_INDEX in files:
        return PathKind.PIPELINE
    if distributed_shards(files) and (DISTRIBUTED_PLAN in files or not shards_and_indexes(files)):
        return PathKind.DISTRIBUTED
    return PathKind.FOLDER


def kind_of_absent(path: str) -> PathKind:
    """What is meant by a PATH that names nothing that is there."""
    if any(mark in path for mark in "*?["):
        return PathKind.GLOB
    if len(path) <= _MOST_ID and _REPOSITORY_ID.fullmatch(path) and not re.search(r"--|\.\.", path):
        return PathKind.REPOSITORY_ID
    return PathKind.NOTHING


def distributed_shards(names: Collection[str]) -> list[str]:
    """Those of torch.distributed.checkpoint, in natural order."""
    found = [n for n in names if n.endswith(DISTRIBUTED_SUFFIX) and not n.startswith(".")]
    return sorted(found, key=natural_sort_key)


def parts_of_pipeline(content: bytes) -> list[str]:
    """The subfolders that a model_index.json names, in its order. It is untrusted: a name that
    leads out of the folder names no part. Raises ValueError where it is no such file.
    """
    try:
        index = json.loads(content)
    except RecursionError:
        index = None
    if not isinstance(index, dict):
        raise ValueError("no JSON object")
    return [
        name
        for name, part in index.items()
        if isinstance(part, list) and len(part) == 2 and part[0] is not None
        if "/" not in name and "\0" not in name and name not in ("", ".", "..")
    ]


# ---- which shards of what a PATH names ----


@dataclass(frozen=True)
class Filters:
    """--include, --exclude and --all: patterns of file names. Without any, the rule of a folder."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    all: bool = False

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude or self.all)

    @property
    def override_rule(self) -> bool:
        """Whether they say by themselves which shards of a folder are meant."""
        return bool(self.include) or self.all

    def take(self, path: str) -> bool:
        name = os.path.basename(path)
        wanted = not self.include or any(fnmatch.fnmatchcase(name, g) for g in self.include)
        return wanted and not any(fnmatch.fnmatchcase(name, g) for g in self.exclude)

    def text(self) -> str:
        """As they were typed."""
        words = [f"--include {glob!r}" for glob in self.include]
        words += [f"--exclude {glob!r}" for glob in self.exclude]
        return " ".join([*words, "--all"] if self.all else words)


def choice_without(folder: str, names: Collection[str], filters: Filters) -> Choice:
    """What the rule of a folder takes, without what is excluded; where nothing of that is left, or
    no rule says which of several is meant, what it takes of the other files.

    Raises as `choose` does.
    """
    kept = [name for name in names if filters.take(name)]
    try:
        choice = choose(folder, names)
    except (SeveralCheckpointsError, FileNotFoundError):
        return choose(folder, kept)
    shards = tuple(filter(filters.take, choice.shards))
    if shards or (choice.index and filters.take(choice.index)):
        return Choice(choice.index, shards, tuple(filter(filters.take, choice.left_out)))
    return choose(folder, kept)


# ---- in which order ----


@dataclass(frozen=True)
class Typed:
    """A PATH that is there. listing: of a folder. repository: the id by which it was found, if that
    was how.
    """

    path: str
    kind: PathKind
    listing: Listing | None = None
    repository: str = ""


@dataclass(frozen=True)
class Step:
    """What is to be looked up at once: several shards, or one of anything else. came_along: a
    folder that was typed beside files of the folder in which it lies, as a shell's `*` does.
    """

    kind: PathKind
    paths: tuple[str, ...]
    listing: Listing | None = None
    repository: str = ""
    came_along: bool = False


def steps(typed: Sequence[Typed]) -> list[Step]:
    """In the order typed. Of PATHs in one folder that follow each other, as a shell gives them, a
    model_index.json comes first; and at the place of the first of its shards and indexes all of
    them, the indexes first, each in natural order. Files that are no shards are left out.
    """
    found: list[Step] = []
    for _, run in itertools.groupby(typed, lambda each: os.path.dirname(each.path.rstrip("/"))):
        found += _steps_of_one_folder(list(run))
    return found


def _steps_of_one_folder(run: list[Typed]) -> list[Step]:
    files = sorted((t for t in run if t.kind in _OF_FILES), key=lambda t: natural_sort_key(t.path))
    indexes = [Step(t.kind, (t.path,)) for t in files if t.kind is PathKind.INDEX]
    shards = tuple(t.path for t in files if t.kind is PathKind.SHARD)
    of_files = [*indexes, *([Step(PathKind.SHARD, shards)] if shards else [])]
    pipelines = [t for t in run if _is_pipeline_file(t)]
    found = [Step(t.kind, (t.path,)) for t in pipelines[:1]]
    for each in run:
        if each.kind in _OF_FILES:
            found += of_files
            of_files = []
        elif each.kind is not PathKind.BESIDE and each not in pipelines:
            beside = bool(files or pipelines)
            found.append(Step(each.kind, (each.path,), each.listing, each.repository, beside))
    return found


_OF_FILES = (PathKind.SHARD, PathKind.INDEX)


def _is_pipeline_file(typed: Typed) -> bool:
    is_file = os.path.basename(typed.path) == PIPELINE_INDEX
    return typed.kind is PathKind.PIPELINE and is_file
