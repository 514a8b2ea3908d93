"""Which files of a folder are its checkpoint, by their names alone. Pure; any thread.

A folder may hold several: the same weights in another precision, the original beside what was
converted, an adapter. One of them is taken by the rule below, as the loaders of transformers,
diffusers and Mistral would, and the others are told; where no rule would do, that is an error.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from shardahead.checkpoint.shard_index import parts_of_index_name
from shardahead.units import quoted

SortKey: TypeAlias = tuple[tuple[tuple[str, int, str], ...], str]


@dataclass(frozen=True)
class Kind:
    """One format. stems: what a checkpoint that is the folder's own is called, before the suffix.
    alone: several files that are not one numbered set are several checkpoints.
    """

    suffix: str
    stems: tuple[str, ...] = ()
    alone: bool = False


#: In this order. The first of which there is a file wins, and the others are left alone.
KINDS = (
    Kind(".safetensors", ("model", "diffusion_pytorch_model", "pytorch_model")),
    Kind(".bin", ("pytorch_model", "model", "diffusion_pytorch_model")),
    Kind(".pt", ("pytorch_model", "model")),
    Kind(".pth", ("pytorch_model", "model")),
    Kind(".gguf", alone=True),
)

# What the trainers of transformers, accelerate and DeepSpeed save beside the weights.
_NOT_WEIGHTS = re.compile(
    r"(?:(?:training_args|optimizer|scheduler|scaler|sampler)(?:_[0-9]+)?|rng_state.*)"
    r"\.(?:bin|pt|pth)",
)
# What llama.cpp lays beside the weights.
_BESIDE_GGUF = re.compile(r"(?:mmproj.*|.*imatrix.*)\.gguf", re.IGNORECASE)

# Second to all other weights of a folder, in any format: the formats of Mistral and Meta, adapters.
_ORIGINAL = re.compile(r"consolidated(?:[.-].*)?", re.DOTALL)
_ADAPTER = re.compile(r"(?:adapter_model|pytorch_lora_weights)(?:[.-].*)?", re.DOTALL)


class SeveralCheckpointsError(ValueError):
    """A folder has several, and no rule says which is meant. names: the first file of each."""

    def __init__(self, message: str, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names: tuple[str, ...] = tuple(names)


class MissingShardsError(FileNotFoundError):
    """A checkpoint that says which shards it has lacks some. paths: where they would be, in order,
    of very many the first.
    """

    paths: tuple[str, ...] = ()


def shards_missing(
    paths: Sequence[str], count: int, total: int, index: str = ""
) -> MissingShardsError:
    """`count` of `total` shards are not there, `paths` first; `index`: which one names them."""
    which = "the first of them" if count > 1 else "this one"
    text = f"{count} of the {total} shards missing, {which}"
    if index:
        text = f"{count} of the {total} shards that {quoted(index)} names missing, {which}"
    error = MissingShardsError(errno.ENOENT, text, paths[0])
    error.paths = tuple(paths)
    return error


_OF_SET = re.compile(r"(.*?)-([0-9]+)-of-([0-9]+)(.*)", re.DOTALL)
_VARIANT = re.compile(
    r"(?:fp|bf|float|bfloat|int|uint|nf|mxfp|nvfp)[0-9][0-9a-z_]*|[0-9]bit|(?:non_)?ema",
    re.IGNORECASE,
)
_TEXT_THEN_DIGITS = re.compile(r"([^0-9]*)([0-9]*)")
_MOST_NAMED = 6
_MOST_MISSING = 10_000  # of a set, whose name may say any number


@dataclass(frozen=True)
class Choice:
    """The names of one checkpoint's files: an index, or shards in order. left_out: the other files
    of its format; with an index, also those that it may name.
    """

    index: str = ""
    shards: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass
class _Group:
    """Files that are one checkpoint by their names: a file, or a numbered set."""

    stem: str  # without number and variant
    variant: str
    total: int = 0  # of a set
    names: list[str] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)


def choose(folder: str, names: Collection[str], kinds: Sequence[Kind] = KINDS) -> Choice:
    """The checkpoint of the folder in which there are files of these names.

    Raises ValueError where there is none, or where there are several and no rule says which;
    FileNotFoundError where one of a numbered set is missing.
    """
    for number, kind in enumerate(kinds):
        of_kind = _of_kind(names, kind)
        if not of_kind:
            continue
        own = [name for name in of_kind if not _is_second(name, kind)]
        if own:
            return _chosen(folder, kind, own, of_kind)
        for later in kinds[number + 1 :]:
            own = [name for name in _of_kind(names, later) if _is_own(name, later)]
            if own:
                return _chosen(folder, later, own, _of_kind(names, later))
        return _chosen(folder, kind, _first_of_second(of_kind, kind), of_kind)
    searched = ", ".join("*" + kind.suffix for kind in kinds)
    raise ValueError(f"no shards ({searched}) in the folder {folder!r}")


def shards_and_indexes(names: Collection[str]) -> list[str]:
    """All that may be of a checkpoint, in any format, in natural order."""
    found = {name for kind in KINDS for name in _of_kind(names, kind)}
    return sorted(found, key=natural_sort_key)


def natural_sort_key(path: str) -> SortKey:
    """A sort key that orders runs of the digits 0-9 by their value and all else by code point.

    The order is total: two keys are equal only if the paths are. Paths that differ only in
    leading zeros (`shard-1`, `shard-01`) are ordered as strings.
    """
    parts: list[tuple[str, int, str]] = []
    for text, digits in _TEXT_THEN_DIGITS.findall(path):
        # Without leading zeros, a longer number is a larger one; int() would limit its length.
        value = (digits.lstrip("0") or "0") if digits else ""
        parts.append((text, len(value), value))
    return tuple(parts), path


def some_of(names: Sequence[str]) -> str:
    """Names for a message, of which there may be thousands."""
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _of_kind(names: Collection[str], kind: Kind) -> list[str]:
    """Its shards and indexes, in natural order."""
    found = [name for name in names if _is_shard(name, kind) or _is_index(name, kind)]
    return sorted(found, key=natural_sort_key)


def _is_shard(name: str, kind: Kind) -> bool:
    return name.endswith(kind.suffix) and not _NOT_WEIGHTS.fullmatch(name)


def _is_index(name: str, kind: Kind) -> bool:
    parts = parts_of_index_name(name)
    return parts is not None and not kind.alone and parts[0].lower().endswith(kind.suffix)


def _base(name: str, kind: Kind) -> str:
    """Before the suffix, of a shard or an index."""
    parts = parts_of_index_name(name)
    whole = parts[0] if parts and _is_index(name, kind) else name
    return whole[: -len(kind.suffix)]


def _is_second(name: str, kind: Kind) -> bool:
    base = _base(name, kind)
    if kind.alone:
        return _BESIDE_GGUF.fullmatch(name) is not None
    return (_ORIGINAL.fullmatch(base) or _ADAPTER.fullmatch(base)) is not None


def _first_of_second(names: list[str], kind: Kind) -> list[str]:
    for begin in ("consolidated", "adapter_model"):
        found = [name for name in names if name.startswith(begin)]
        if found and not kind.alone:
            return found
    return names


def _is_own(name: str, kind: Kind) -> bool:
    """Whether its name says that it is the folder's checkpoint, or a part of it."""
    match = _OF_SET.fullmatch(_base(name, kind))
    return (match.group(1) if match else _base(name, kind)) in kind.stems


def _chosen(folder: str, kind: Kind, own: list[str], of_kind: list[str]) -> Choice:
    indexes = [name for name in own if _is_index(name, kind)]
    shards = [name for name in own if not _is_index(name, kind)]
    plain = [name for name in indexes if not (parts_of_index_name(name) or ("", ""))[1]]
    groups = _groups(shards, kind)
    is_whole = any(not group.variant and group.stem in kind.stems for group in groups)
    if plain or (indexes and not is_whole):
        index = _one_index(folder, kind, plain or indexes)
        return Choice(index, (), tuple(name for name in of_kind if name != index))
    chosen = _one_checkpoint(folder, kind, groups)
    left_out = set(of_kind) - set(chosen)
    return Choice("", tuple(chosen), tuple(sorted(left_out, key=natural_sort_key)))


def _one_index(folder: str, kind: Kind, indexes: list[str]) -> str:
    for stem in kind.stems:
        usual = [name for name in indexes if _base(name, kind).lower() == stem]
        if len(usual) == 1:
            return usual[0]
    if len(indexes) == 1:
        return indexes[0]
    raise SeveralCheckpointsError(
        f"several indexes in the folder {folder!r}: pass the one that is meant: {some_of(indexes)}",
        indexes,
    )


def _one_checkpoint(folder: str, kind: Kind, groups: list[_Group]) -> list[str]:
    """The names of its files, in order."""
    groups = _without_variants(folder, groups)
    for stem in kind.stems:
        of_stem = [group for group in groups if group.stem == stem]
        single = next((group for group in of_stem if not group.total), None)
        if single is not None:
            return single.names
        if of_stem:
            return _one_set(folder, kind, of_stem)
    sets = [group for group in groups if group.total]
    if kind.alone and len(groups) > 1:
        raise _several(folder, groups)
    if sets:
        return _one_set(folder, kind, sets)
    return sorted((name for group in groups for name in group.names), key=natural_sort_key)


def _one_set(folder: str, kind: Kind, sets: list[_Group]) -> list[str]:
    if len(sets) > 1:
        raise _several(folder, sets)
    (chosen,) = sets
    first = 0 if 0 in chosen.numbers else 1  # both are in use
    if len(chosen.numbers) < chosen.total:
        numbers = (n for n in range(first, first + chosen.total) if n not in chosen.numbers)
        paths = [
            os.path.join(folder, _name_in_set(chosen.names[0], number, kind))
            for number in islice(numbers, _MOST_MISSING)
        ]
        raise shards_missing(paths, chosen.total - len(chosen.numbers), chosen.total)
    return chosen.names


def _name_in_set(name: str, number: int, kind: Kind) -> str:
    """As the others of the set, of which `name` is one, are called."""
    match = _OF_SET.fullmatch(_base(name, kind))
    if match is None:
        return name
    begin, digits, total, end = match.groups()
    return f"{begin}-{number:0{len(digits)}d}-of-{total}{end}{kind.suffix}"


def _several(folder: str, groups: list[_Group]) -> SeveralCheckpointsError:
    first = [group.names[0] for group in groups]
    return SeveralCheckpointsError(
        f"several checkpoints in the folder {folder!r}: pass the files of the one that is meant, "
        f"or move the others: {some_of(first)}",
        first,
    )


def _groups(shards: list[str], kind: Kind) -> list[_Group]:
    groups: dict[tuple[str, int], _Group] = {}
    bases = {_base(name, kind) for name in shards}
    for name in shards:
        base, number, total = _base(name, kind), None, 0
        match = _OF_SET.fullmatch(base)
        if match:
            base = match.group(1) + match.group(4)
            number, total = int(match.group(2)), int(match.group(3))
        stem, dot, tail = base.rpartition(".")
        is_variant = bool(dot) and (
            _VARIANT.fullmatch(tail) is not None or (stem in bases and not tail.isdigit())
        )
        found = _Group(stem if is_variant else base, tail if is_variant else "", total)
        group = groups.setdefault((base, total), found)
        group.names.append(name)
        if number is not None:
            group.numbers.add(number)
    return list(groups.values())


def _without_variants(folder: str, groups: list[_Group]) -> list[_Group]:
    """The plain one of each stem, else its only variant."""
    kept: list[_Group] = []
    for stem in dict.fromkeys(group.stem for group in groups):
        of_stem = [group for group in groups if group.stem == stem]
        plain = [group for group in of_stem if not group.variant]
        if not plain and len({group.variant for group in of_stem}) > 1:
            raise _several(folder, of_stem)
        kept += plain or of_stem
    return kept
