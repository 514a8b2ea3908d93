"""Which files make up a checkpoint, in the order in which they are consumed.

Takes one shard, one folder, one index, or a list of shards, and returns each file once with its
size and identity. It asks only the file system's metadata, and reads nothing but an index file:
no shard is opened here, so what cannot be read is reported by whoever opens it.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast

from shardahead import _core
from shardahead.opening import open_regular
from shardahead.units import quoted

PathLike: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
Files: TypeAlias = "PathLike | Iterable[PathLike]"
SortKey: TypeAlias = tuple[tuple[tuple[str, int, str], ...], str]

#: The largest index file that is read, in bytes. The index of a 1 TB checkpoint has about 10 MB.
MAX_INDEX_BYTES = 256 << 20
_PIECE_BYTES = 1 << 20

#: The longest name of a file in an index, in bytes: the kernel takes no longer path.
MAX_NAME_BYTES = 4095

INDEX_SUFFIX = ".index.json"

#: What a folder is searched for, in this order: (suffix of the shards, name of the usual index).
#: The first kind of which there is a file wins, and the others are left alone.
_KINDS: tuple[tuple[str, str | None], ...] = (
    (".safetensors", "model.safetensors.index.json"),
    (".bin", "pytorch_model.bin.index.json"),
    (".pt", None),
    (".pth", None),
    (".gguf", None),
)

#: Of what torch.save wrote.
PT_SUFFIXES = (".bin", ".pt", ".pth")

# What the trainers of transformers, accelerate and DeepSpeed save beside the weights.
_NOT_WEIGHTS = re.compile(
    r"(?:(?:training_args|optimizer|scheduler|scaler|sampler)(?:_[0-9]+)?|rng_state.*)"
    r"\.(?:bin|pt|pth)",
)

_TEXT_THEN_DIGITS = re.compile(r"([^0-9]*)([0-9]*)")

_SPECIAL_FILES = (
    (stat.S_ISFIFO, "FIFO"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "character device"),
    (stat.S_ISBLK, "block device"),
)


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint, as it was when it was looked at.

    path: as given, or joined to the folder as given; neither made absolute nor resolved, so the
        links of a Hugging Face cache stay in it.
    size_bytes: the size in bytes; may be 0.
    device, inode: what identifies the file on this node (st_dev, st_ino, links followed).
    modified_nanoseconds: since 1970; with the size, what tells two versions of it apart.
    """

    path: str
    size_bytes: int
    device: int
    inode: int
    modified_nanoseconds: int = field(default=0, compare=False)

    def require_unchanged(self, size_bytes: int, modified_nanoseconds: int) -> None:
        """Raises OSError, ENODATA or ESTALE, where this is no longer the file that it was: bytes of
        two versions must not be mixed.
        """
        if size_bytes < self.size_bytes:
            text = f"the file became shorter: it had {self.size_bytes} bytes"
            raise OSError(errno.ENODATA, text, self.path)
        if (size_bytes, modified_nanoseconds) != (self.size_bytes, self.modified_nanoseconds):
            text = "the file was replaced or written to while it was being loaded"
            raise OSError(errno.ESTALE, text, self.path)


def resolve_shards(
    files: PathLike | Iterable[PathLike], suffixes: Sequence[str] | None = None
) -> list[Shard]:
    """The shards that `files` names, each file once, in the order in which they are consumed.

    One path is a shard (any regular file), an index (a name that ends in `.index.json`) or a
    folder. Any other iterable is a list of shards.

    - Index: the files of its `weight_map`, in the order of their first use there, looked for in
      the folder of the index. It is untrusted: absolute names and names with a `..` in them are
      refused.
    - Folder: its index `model.safetensors.index.json`, or the only `*.safetensors.index.json`;
      else its `*.safetensors`; else the same for `pytorch_model.bin.index.json`,
      `*.bin.index.json` and `*.bin`; else `*.pt`; else `*.pth`; else `*.gguf`. Without an index
      in natural order (shard 2 before shard 10). Subfolders and hidden files are left out, and so
      are the states of optimizers, schedulers and random numbers that trainers save.
    - List: in natural order of the whole paths, so that ranks that were given the same files in
      different orders agree.

    `suffixes`, where given, are the kinds of shards that a folder is searched for.

    A file that is named twice, be it through a link, counts once, at its first position.

    Raises:
        TypeError: `files`, or an entry of it, is not a path.
        ValueError: `files` is empty; a path has a NUL in it; a folder has no shards; an index is
            malformed, names a file outside its folder, or is larger than `MAX_INDEX_BYTES`; an
            index stands in a list.
        FileNotFoundError, PermissionError, or another OSError of stat(2): as it is.
        IsADirectoryError: an entry of a list, or of an index, is a folder.
        OSError: EINVAL, a path is a FIFO, a socket or a device. These are never opened.

        Each OSError carries errno and filename.
    """
    if not isinstance(files, str | bytes | os.PathLike):
        return _unique(_paths_of_list(files))
    path = _decoded(files, "files")
    if stat.S_ISDIR(os.stat(path).st_mode):
        return _unique(_paths_of_folder(path, suffixes))
    if path.endswith(INDEX_SUFFIX):
        return _unique(_paths_of_index(path))
    return _unique([path])


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


def _paths_of_list(files: Iterable[PathLike]) -> list[str]:
    if not isinstance(files, Iterable):
        raise TypeError(f"files must be a path or an iterable of paths, not {_type_name(files)}")
    paths = [_decoded(entry, f"files[{i}]") for i, entry in enumerate(files)]
    if not paths:
        raise ValueError("files is empty")
    for i, path in enumerate(paths):
        if path.endswith(INDEX_SUFFIX):
            raise ValueError(f"files[{i}] is an index, not a shard: pass it alone: {path!r}")
    return sorted(paths, key=natural_sort_key)


def _paths_of_folder(folder: str, suffixes: Sequence[str] | None) -> list[str]:
    kinds = [kind for kind in _KINDS if suffixes is None or kind[0] in suffixes]
    with os.scandir(folder) as entries:
        names = [e.name for e in entries if not e.name.startswith(".") and not _is_folder(e)]
    for suffix, usual_index in kinds:
        if usual_index is not None:
            indexes = [name for name in names if name.endswith(suffix + INDEX_SUFFIX)]
            if usual_index in indexes:
                indexes = [usual_index]
            if len(indexes) == 1:
                return _paths_of_index(os.path.join(folder, indexes[0]))
        shards = [n for n in names if n.endswith(suffix) and not _NOT_WEIGHTS.fullmatch(n)]
        if shards:
            return [os.path.join(folder, name) for name in sorted(shards, key=natural_sort_key)]
    searched = ", ".join("*" + suffix for suffix, _ in kinds)
    raise ValueError(f"no shards ({searched}) in the folder {folder!r}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A dangling or looping link is a file in trouble, reported only if it is one of the shards.
    try:
        return entry.is_dir()
    except OSError:
        return False


def _paths_of_index(path: str) -> list[str]:
    content = _read_index(path)
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed index {path!r}: not JSON: {error}") from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise ValueError(f"malformed index {path!r}: it has no object 'weight_map'")
    if not weight_map:
        raise ValueError(f"malformed index {path!r}: its 'weight_map' is empty")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise ValueError(
                f"malformed index {path!r}: the file of {quoted(tensor)} is not a string"
            )
    names = list(dict.fromkeys(cast("dict[str, str]", weight_map).values()))
    for name in names:
        _refuse_unsafe_name(name, path)
    folder = os.path.dirname(path)
    return [os.path.join(folder, name) for name in names]


def _read_index(path: str) -> bytes:
    _refuse_irregular(_status(path)[0], path)
    # The file may have been replaced by a FIFO since.
    descriptor, _ = open_regular(path)
    with open(descriptor, "rb") as file:
        content = bytearray()
        # In pieces: read(n) allocates n bytes, however few there are.
        while piece := file.read(_PIECE_BYTES):
            content += piece
            if len(content) > MAX_INDEX_BYTES:
                raise ValueError(f"index {path!r} is larger than {MAX_INDEX_BYTES} bytes")
    return bytes(content)


def _refuse_unsafe_name(name: str, index: str) -> None:
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(f"malformed index {index!r}: not a file name: {quoted(name)}") from error
    if not encoded or b"\0" in encoded or len(encoded) > MAX_NAME_BYTES:
        raise ValueError(f"malformed index {index!r}: not a file name: {quoted(name)}")
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"index {index!r} names a file outside its folder: {quoted(name)}")


def _unique(paths: Sequence[str]) -> list[Shard]:
    shards: dict[tuple[int, int], Shard] = {}
    # A round trip each on a network filesystem, so they are asked for side by side.
    statuses = _core.statuses([os.fsencode(path) for path in paths])
    for path, status in zip(paths, statuses, strict=True):
        mode, size, device, inode, modified = status or _status(path)
        _refuse_irregular(mode, path)
        shards.setdefault((device, inode), Shard(path, size, device, inode, modified))
    return list(shards.values())


def _status(path: str) -> tuple[int, int, int, int, int]:
    found = os.stat(path)
    return found.st_mode, found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns


def _refuse_irregular(mode: int, path: str) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    kind = next((name for test, name in _SPECIAL_FILES if test(mode)), "unknown kind")
    raise OSError(errno.EINVAL, f"not a regular file: {kind}", path)


def _decoded(path: PathLike, argument: str) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{argument} must be a path, not {_type_name(path)}")
    decoded = os.fsdecode(path)
    if "\0" in decoded:
        raise ValueError(f"{argument} has a NUL in it: {decoded!r}")
    return decoded


def _type_name(value: object) -> str:
    return type(value).__name__
