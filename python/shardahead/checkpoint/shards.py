"""Which files make up a checkpoint, in the order in which they are consumed.

Takes one shard, one folder, one index, or a list of shards, and returns each file once with its
size and identity, and for an index which tensor is to come from which. It reads nothing but an
index, and of files that may be one and the same some pages: what cannot be read is reported by
whoever opens it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from shardahead import _core
from shardahead.checkpoint.file_identity import Status, first_of_same
from shardahead.checkpoint.folder_rule import (
    KINDS,
    choose,
    natural_sort_key,
    shards_missing,
    some_of,
)
from shardahead.checkpoint.opening import refuse_irregular
from shardahead.checkpoint.shard_index import is_index_name, read_index
from shardahead.units import quoted

logger = logging.getLogger("shardahead")

PathLike: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
#: What every entry takes: paths of shards, or one path: a shard, a folder, or an index.
Files: TypeAlias = PathLike | Iterable[PathLike]

#: The largest index file that is read, in bytes. That of a million tensors has about 100 MB.
MAX_INDEX_BYTES = 128 << 20

SAFETENSORS_SUFFIXES = (".safetensors",)
#: Of what torch.save wrote.
PT_SUFFIXES = (".bin", ".pt", ".pth")

_said: set[str] = set()


@dataclass(frozen=True)
class Shard:
    """One file of a checkpoint, as it was when it was looked at.

    path: as given, or joined to the folder as given. A relative one is made absolute, so that it
        stays the same file whatever the process changes its folder to; links are not resolved, so
        those of a Hugging Face cache stay in it.
    size_bytes: the size in bytes; may be 0.
    device, inode: what identifies the file on this node (st_dev, st_ino, links followed).
    modified_nanoseconds: since 1970; before 1677 and after 2262 the nearest that 64 bits can say.
    """

    path: str
    size_bytes: int
    device: int
    inode: int
    modified_nanoseconds: int = field(default=0, compare=False)

    def require_unchanged(self, size_bytes: int) -> None:
        """Raises OSError, ENODATA or ESTALE, where the file has another size than it had: bytes of
        two versions must not be mixed. A time of modification that has moved proves nothing: a
        touch moves it, and so do caches of object stores.
        """
        if size_bytes < self.size_bytes:
            text = f"the file became shorter: it had {self.size_bytes} bytes"
            raise OSError(errno.ENODATA, text, self.path)
        if size_bytes != self.size_bytes:
            raise was_replaced(self.path)


def was_replaced(path: str) -> OSError:
    """The error of a file of which another version has come."""
    text = "the file was replaced or written to while it was being loaded"
    return OSError(errno.ESTALE, text, path)


@dataclass(frozen=True)
class Checkpoint:
    """The shards, each file once, in the order in which they are consumed.

    index: the path of the index that says which tensor is whose; "" without one.
    owners: by that index, the position in `shards` of each tensor's; None without one.
    left_out: paths of other files of the folder that might have been meant.
    """

    shards: tuple[Shard, ...]
    index: str = ""
    owners: Mapping[str, int] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """As a message calls it: by the name of its index, or by those of its shards."""
        whole = [self.index] if self.index else [shard.path for shard in self.shards]
        return some_of([os.path.basename(path) for path in whole])


def resolve_shards(
    files: PathLike | Iterable[PathLike], suffixes: Sequence[str] | None = None
) -> list[Shard]:
    """The shards of `resolve_checkpoint`, which see."""
    return list(resolve_checkpoint(files, suffixes).shards)


def resolve_checkpoint(
    files: PathLike | Iterable[PathLike],
    suffixes: Sequence[str] | None = None,
    *,
    listed: Sequence[str] | None = None,
    tells: bool = True,
) -> Checkpoint:
    """The checkpoint that `files` names.

    One path is a shard (any regular file), an index (a name that ends in `.index.json`, or with a
    variant in `.index.fp16.json`, in any case) or a folder. Any other iterable is a list of shards.

    - Index: the files of its `weight_map`, in the order of their first use there, looked for in
      the folder of the index. It is untrusted: absolute names and names with a `..` in them are
      refused.
    - Folder: its `*.safetensors`; else `*.bin`; else `*.pt`; else `*.pth`; else `*.gguf`. Of one
      format its index, else what `model` and the other usual names call, a file before a numbered
      set (`model-00001-of-00003`); else the only numbered set; else all, in natural order (shard 2
      before shard 10). Plain names count before variants (`model.fp16`), and `consolidated*` and
      adapters only where there is nothing else. What is left out of that format is said once in
      the log. Subfolders and hidden files are left out, and so are the states of optimizers,
      schedulers and random numbers that trainers save.
    - List: in natural order of the whole paths, so that ranks that were given the same files in
      different orders agree.

    `suffixes`, where given, are the kinds of shards that a folder is searched for; `listed`, where
    given, says that `files` is a folder, and which files are in it, so that nobody looks again.
    Without `tells` what is left out is not said in the log: `left_out` has it.

    A file that is named twice, be it through a link, counts once, at its first position; files of
    an index only where the links lead to one path. Equal inode numbers alone prove nothing: some
    mounts give the same to all files.

    Raises:
        TypeError: `files`, or an entry of it, is not a path: an open file, say.
        ValueError: `files` is empty; a path has a NUL in it; a folder has no shards, or several
            checkpoints of which no rule says which is meant: several indexes, numbered sets or
            GGUF files; an index stands in a list.
        CheckpointError: an index is malformed, names a file outside its folder, or is larger than
            `MAX_INDEX_BYTES` or a million tensors.
        FileNotFoundError, PermissionError, or another OSError of stat(2): as it is. Also where one
            of a numbered set is missing in a folder without an index.
        IsADirectoryError: an entry of a list, or of an index, is a folder.
        OSError: EINVAL, a path is a FIFO, a socket or a device. These are never opened.

        Each OSError carries errno and filename.
    """
    is_path = isinstance(files, str | bytes | os.PathLike)
    given = [_decoded(files, "files")] if is_path else _paths_of_list(files)
    paths = _absolute(given)
    try:
        if is_path:
            if listed is not None:
                found = _of_folder(paths[0], suffixes, listed)
            else:
                found = _of_path(paths[0], suffixes)
            if tells:
                _tell_left_out(found, paths[0])
            return found
        return Checkpoint(tuple(_looked_at(sorted(paths, key=natural_sort_key))[0]))
    except OSError as error:
        if error.filename in paths:  # who gave a path is told of it as it was given
            error.filename = given[paths.index(error.filename)]
        raise


def _of_path(path: str, suffixes: Sequence[str] | None) -> Checkpoint:
    if stat.S_ISDIR(os.stat(path).st_mode):
        return _of_folder(path, suffixes, _names_in(path))
    if is_index_name(path):
        return _of_index(path)
    return Checkpoint(tuple(_looked_at([path])[0]))


def require_shard(path: str) -> Shard:
    """The regular file `path`, which is absolute, as a shard. Raises as `resolve_shards` does."""
    status = _status(path)
    refuse_irregular(status[0], path)
    return Shard(path, *status[1:])


def absolute_paths(paths: Iterable[PathLike]) -> list[str]:
    """As the paths of shards are."""
    return _absolute([os.fsdecode(path) for path in paths])


def _paths_of_list(files: object) -> list[str]:
    paths = [_decoded(entry, f"files[{i}]") for i, entry in enumerate(_iterable(files))]
    if not paths:
        raise ValueError("files is empty")
    for i, path in enumerate(paths):
        if is_index_name(path):
            raise ValueError(f"files[{i}] is an index, not a shard: pass it alone: {path!r}")
    return paths


def _iterable(files: object) -> Iterable[object]:
    """Not what can be iterated over and gives no paths: the lines of a file, bytes, keys."""
    wrong = (Mapping, bytearray, memoryview)
    is_open_file = hasattr(files, "read") or hasattr(files, "readline")
    if not isinstance(files, Iterable) or isinstance(files, wrong) or is_open_file:
        what = _type_name(files)
        raise TypeError(f"files must be a path or an iterable of paths, not {what}")
    return files


def _names_in(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not _is_folder(entry)]


def _of_folder(folder: str, suffixes: Sequence[str] | None, names: Sequence[str]) -> Checkpoint:
    kinds = [kind for kind in KINDS if suffixes is None or kind.suffix in suffixes]
    names = [name for name in names if not name.startswith(".")]
    choice = choose(folder, names, kinds)
    left_out = [os.path.join(folder, name) for name in choice.left_out]
    if choice.index:
        found = _of_index(os.path.join(folder, choice.index))
        named = {os.path.normpath(shard.path) for shard in found.shards}
        left_out = [path for path in left_out if os.path.normpath(path) not in named]
        found = Checkpoint(found.shards, found.index, found.owners, tuple(left_out))
    else:
        paths = [os.path.join(folder, name) for name in choice.shards]
        found = Checkpoint(tuple(_looked_at(paths)[0]), left_out=tuple(left_out))
    return found


def _tell_left_out(found: Checkpoint, folder: str) -> None:
    if found.left_out:
        others = some_of([os.path.basename(path) for path in found.left_out])
        _say_once(f"{folder!r}: {found.called} is the checkpoint; left out: {others}")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A dangling or looping link is a file in trouble, reported only if it is one of the shards.
    try:
        return entry.is_dir()
    except OSError:
        return False


def _of_index(path: str) -> Checkpoint:
    refuse_irregular(_status(path)[0], path)
    files = read_index(path, MAX_INDEX_BYTES)
    names = list(dict.fromkeys(files.values()))
    folder = os.path.dirname(path)
    paths = [os.path.join(folder, name) for name in names]
    try:
        shards, positions = _looked_at(paths, compare_contents=False)
    except FileNotFoundError as error:
        missing = [each for each in paths if not os.path.lexists(each)]
        if not missing:  # a link that leads nowhere
            raise
        raise shards_missing(missing, len(missing), len(paths), path) from error
    position_of = dict(zip(names, positions, strict=True))
    owners = {tensor: position_of[name] for tensor, name in files.items()}
    return Checkpoint(tuple(shards), path, owners)


def _looked_at(
    paths: Sequence[str], *, compare_contents: bool = True
) -> tuple[list[Shard], list[int]]:
    """Each file once, and where each path is among them."""
    # A round trip each on a network filesystem, so they are asked for side by side.
    found = _core.statuses([os.fsencode(path) for path in paths])
    statuses = [status or _status(path) for path, status in zip(paths, found, strict=True)]
    for path, status in zip(paths, statuses, strict=True):
        refuse_irregular(status[0], path)
    shards: list[Shard] = []
    positions: list[int] = []
    first = first_of_same(paths, statuses, compare_contents=compare_contents)
    for i, (path, status) in enumerate(zip(paths, statuses, strict=True)):
        positions.append(len(shards) if first[i] == i else positions[first[i]])
        if first[i] == i:
            shards.append(Shard(path, *status[1:]))
    return shards, positions


def _status(path: str) -> Status:
    found = os.stat(path)
    modified = min(max(found.st_mtime_ns, -(2**63)), 2**63 - 1)  # as the core has it
    return found.st_mode, found.st_size, found.st_dev, found.st_ino, modified


def _absolute(paths: list[str]) -> list[str]:
    """Links and `..` stay as they are. Also relative paths, where the process's folder cannot be
    reached by its own path.
    """
    if all(path.startswith("/") or not path for path in paths):
        return paths
    try:
        here = os.getcwd()
        if not os.path.samestat(os.stat(here), os.stat(".")):
            return paths
    except OSError:
        return paths
    return [os.path.join(here, _without_dots(path)) if path else path for path in paths]


def _without_dots(path: str) -> str:
    while path.startswith("./"):
        path = path[2:].lstrip("/")
    return "" if path == "." else path


def _decoded(path: object, argument: str) -> str:
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"{argument} must be a path, not {_type_name(path)}")
    decoded = os.fsdecode(path)
    if "\0" in decoded:
        raise ValueError(f"{argument} has a NUL in it: {quoted(decoded)}")
    return decoded


def _type_name(value: object) -> str:
    return type(value).__name__


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)
