"""What a replica is a copy of: the files of a checkpoint, what tells one version of them from
another, and what lies beside the shards that an engine needs too. Reads the first and the last
bytes of each shard. Any thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from shardahead.checkpoint.folder_rule import KINDS
from shardahead.checkpoint.opening import naming, open_regular
from shardahead.checkpoint.shard_index import is_index_name
from shardahead.checkpoint.shards import Shard

#: Of a shard that are digested: of safetensors the header, where it is no longer, and data.
HEAD_BYTES = 64 << 10
TAIL_BYTES = 4 << 10
# Of a file beside the shards, where a tokenizer has some ten MB; of all of them.
_MOST_BESIDE_BYTES = 256 << 20
_MOST_BESIDE_ALL_BYTES = 1 << 30
_MOST_BESIDE_FILES = 1000
_PIPELINE = "model_index.json"
_OF_A_MODEL = ("config.json", _PIPELINE, "params.json", "tokenizer.json", ".metadata")
_LOOKS = 16  # at once: each waits for the server
_WEIGHTS = (*(kind.suffix for kind in KINDS), ".distcp", ".h5", ".msgpack", ".onnx", ".tflite")


@dataclass(frozen=True)
class OriginalFile:
    """name: relative to the folder that holds all of them. digest: of its first and last bytes, as
    hexadecimal text.
    """

    name: str
    path: str
    size_bytes: int
    modified_nanoseconds: int
    digest: str


@dataclass(frozen=True)
class BesideFile:
    """A file that an engine reads beside the shards."""

    name: str
    size_bytes: int
    modified_nanoseconds: int


@dataclass(frozen=True)
class Original:
    """The files of one version of a checkpoint, in the order in which they are consumed. root: the
    folder that holds all of them.
    """

    root: str
    files: tuple[OriginalFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def version(self) -> str:
        """Equal where names, sizes, times of modification and the digests are: one version."""
        found = hashlib.sha256()
        for file in self.files:
            text = (file.name, file.size_bytes, file.modified_nanoseconds, file.digest)
            found.update(repr(text).encode("utf-8", "surrogatepass"))
        return found.hexdigest()

    @property
    def contents(self) -> str:
        """The same without times, which differ from one mount to another."""
        found = hashlib.sha256()
        for file in self.files:
            text = (file.name, file.size_bytes, file.digest)
            found.update(repr(text).encode("utf-8", "surrogatepass"))
        return found.hexdigest()


def look_at(shards: Sequence[Shard]) -> Original:
    """The original that these shards are. Raises OSError, with errno and filename, where one cannot
    be read, or has another size than it had.
    """
    root = os.path.commonpath([os.path.dirname(shard.path) or "." for shard in shards])
    with ThreadPoolExecutor(min(_LOOKS, len(shards)), "shardahead-look") as pool:
        files = tuple(pool.map(partial(_look_at, root), shards))
    return Original(root, files)


def _look_at(root: str, shard: Shard) -> OriginalFile:
    descriptor, status = open_regular(shard.path)
    try:
        shard.require_unchanged(status.st_size)
        with naming(shard.path):
            # Else the kernel reads on, by as much as its readahead of this mount.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            head = os.pread(descriptor, HEAD_BYTES, 0)
        tail_offset = max(0, status.st_size - TAIL_BYTES)
        with naming(shard.path, tail_offset):
            tail = os.pread(descriptor, TAIL_BYTES, tail_offset)
    finally:
        os.close(descriptor)
    return OriginalFile(
        name=os.path.relpath(shard.path, root),
        path=shard.path,
        size_bytes=status.st_size,
        modified_nanoseconds=status.st_mtime_ns,
        digest=hashlib.blake2b(head + tail, digest_size=16).hexdigest(),
    )


def beside(original: Original) -> tuple[BesideFile, ...]:
    """Files of its folder that are no weights, where it is a model's: configurations, tokenizers,
    indexes; of a pipeline also those of its parts. Hidden files are left out, but for what
    torch.distributed.checkpoint calls `.metadata`.
    """
    try:
        names = os.listdir(original.root)
    except OSError:
        return ()
    if not any(name in _OF_A_MODEL or is_index_name(name) for name in names):
        return ()
    shards = {file.name for file in original.files}
    found: list[BesideFile] = []
    total = 0
    for file in _walk(original.root, "", depth=2 if _PIPELINE in names else 0):
        if file.name in shards or file.name.lower().endswith(_WEIGHTS):
            continue
        total += file.size_bytes
        if len(found) == _MOST_BESIDE_FILES or total > _MOST_BESIDE_ALL_BYTES:
            break
        found.append(file)
    return tuple(found)


def _walk(root: str, inside: str, depth: int) -> Iterator[BesideFile]:
    with suppress(OSError), os.scandir(os.path.join(root, inside)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = os.path.join(inside, entry.name)
            if entry.name.startswith(".") and entry.name != ".metadata":
                continue
            with suppress(OSError):
                status = entry.stat()
                if stat.S_ISDIR(status.st_mode):
                    if depth and not entry.is_symlink():
                        yield from _walk(root, name, depth - 1)
                elif stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BESIDE_BYTES:
                    yield BesideFile(name, status.st_size, status.st_mtime_ns)
