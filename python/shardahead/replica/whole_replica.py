"""A whole replica, and the document in its folder that says that it is one: written last, and read
as what anyone may have put there. Any thread.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardahead.checkpoint.opening import naming
from shardahead.replica.layout import Layout
from shardahead.replica.original import BesideFile, Original
from shardahead.version import __version__

DOCUMENT = ".shardahead-replica.json"
SCHEMA = "shardahead/replica/1"
_SOURCE = ".shardahead-source"
_MOST_DOCUMENT_BYTES = 64 << 20


class ReplicaError(ValueError):
    """What lies where a replica is to lie is none, or none that can be used."""


@dataclass(frozen=True)
class ReplicaFile:
    """One shard of a whole replica. `modified_nanoseconds` and `digest` are of the original;
    `written_nanoseconds` is when the copy was written last.
    """

    name: str
    size_bytes: int
    modified_nanoseconds: int
    digest: str
    written_nanoseconds: int


@dataclass(frozen=True)
class Replica:
    """A whole copy of a checkpoint on this node, which any loader can be given.

    path: its folder, in which the files have the names of the original's.
    source: the folder of which it is a copy.
    files: its shards, in the order in which they are consumed.
    beside: what else was copied of the folder, as it was there.
    block_bytes, digests: XXH3 of 64 bits of each block, eight bytes each.
    staged_unix_seconds: when it became whole.
    """

    path: str
    source: str
    files: tuple[ReplicaFile, ...]
    beside: tuple[BesideFile, ...]
    block_bytes: int
    digests: bytes
    staged_unix_seconds: float

    @property
    def size_bytes(self) -> int:
        """Of all its shards."""
        return sum(file.size_bytes for file in self.files)

    @property
    def paths(self) -> list[str]:
        """Of its shards."""
        return [os.path.join(self.path, file.name) for file in self.files]

    @property
    def layout(self) -> Layout:
        """Its blocks, of which `digests` are."""
        return Layout([file.size_bytes for file in self.files], self.block_bytes)

    def is_of(self, original: Original) -> bool:
        """Whether it is a copy of this very version."""
        mine = [(f.name, f.size_bytes, f.modified_nanoseconds, f.digest) for f in self.files]
        theirs = [(f.name, f.size_bytes, f.modified_nanoseconds, f.digest) for f in original.files]
        return mine == theirs

    def damage(self) -> str | None:
        """What of its files is not as it was when it became whole; None where all are. Looks at
        sizes and times, not at bytes.
        """
        for file, path in zip(self.files, self.paths, strict=True):
            try:
                status = os.stat(path)
            except OSError as error:
                return f"{file.name}: {error.strerror}"
            if not stat.S_ISREG(status.st_mode):
                return f"{file.name}: not a regular file"
            if status.st_size != file.size_bytes:
                return f"{file.name}: {status.st_size} bytes instead of {file.size_bytes}"
            if status.st_mtime_ns != file.written_nanoseconds:
                return f"{file.name}: written to since it was staged"
        return None


def write_source(folder: str, root: str) -> None:
    """Says whose copy the folder is, before there is anything else in it."""
    with open(os.path.join(folder, _SOURCE), "xb") as file:
        file.write(os.fsencode(root))


def source_of(folder: str) -> str | None:
    """None where the folder does not say: it is none of ours. Raises ReplicaError where it is a
    link, or another user's.
    """
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise ReplicaError(f"{folder!r} is no folder")
    if status.st_uid not in (os.geteuid(), 0):
        raise ReplicaError(f"{folder!r} belongs to another user ({status.st_uid})")
    try:
        content = _read(os.path.join(folder, _SOURCE), os.pathconf("/", "PC_PATH_MAX"))
    except OSError:
        return None
    return os.fsdecode(content)


def write_document(folder: str, replica: Replica) -> None:
    """Into the folder of a replica that is whole but for this; on the disk when it returns."""
    fields = {
        "schema": SCHEMA,
        "version": __version__,
        "source": replica.source,
        "staged_unix_seconds": replica.staged_unix_seconds,
        "block_bytes": replica.block_bytes,
        "files": [vars(file) for file in replica.files],
        "beside": [vars(file) for file in replica.beside],
        "digests": base64.b64encode(replica.digests).decode(),
    }
    path = os.path.join(folder, DOCUMENT)
    unfinished = path + ".unfinished"
    with open(unfinished, "w", encoding="ascii") as file:
        json.dump(fields, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, path)
    sync_folder(folder)


def read_replica(path: str) -> Replica:
    """The whole replica that the folder `path` is. Raises ReplicaError where it is none."""
    source_of(path)
    try:
        content = _read(os.path.join(path, DOCUMENT), _MOST_DOCUMENT_BYTES)
    except OSError as error:
        raise ReplicaError(f"{path!r} is no whole replica: {error.strerror}") from error
    try:
        return _decoded(path, json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ReplicaError(f"{path!r}: its {DOCUMENT} is malformed: {error}") from error


def _decoded(path: str, fields: Mapping[str, Any]) -> Replica:
    if fields["schema"] != SCHEMA:
        raise ReplicaError(f"{path!r} was made by another version: {fields['schema']!r}")
    files = tuple(ReplicaFile(**each) for each in fields["files"])
    beside = tuple(BesideFile(**each) for each in fields["beside"])
    for file in files:
        _check_file(file, 3)
    for other in beside:
        _check_file(other, 2)
    if type(fields["block_bytes"]) is not int or fields["block_bytes"] < 4096:
        raise ValueError(f"no size of blocks: {fields['block_bytes']!r}")
    try:
        digests = base64.b64decode(fields["digests"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"no digests: {error}") from None
    replica = Replica(
        path=path,
        source=str(fields["source"]),
        files=files,
        beside=beside,
        block_bytes=fields["block_bytes"],
        digests=digests,
        staged_unix_seconds=float(fields["staged_unix_seconds"]),
    )
    if len(digests) != 8 * len(replica.layout):
        raise ValueError(f"{len(digests)} bytes of digests for {len(replica.layout)} blocks")
    return replica


def _check_file(file: ReplicaFile | BesideFile, expected_numbers: int) -> None:
    if type(file.name) is not str or not file.name or "\0" in file.name:
        raise ValueError(f"no name: {file.name!r}")
    if os.path.isabs(file.name) or ".." in file.name.split(os.sep):
        raise ValueError(f"a name outside its folder: {file.name!r}")
    numbers = [value for value in vars(file).values() if type(value) is int]
    if len(numbers) != expected_numbers or file.size_bytes < 0:
        raise ValueError(f"no numbers of {file.name!r}")


def _read(path: str, most_bytes: int) -> bytes:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file, naming(path):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"more than {most_bytes} bytes", path)
    return content


def whole_replica(
    path: str,
    original: Original,
    beside: tuple[BesideFile, ...],
    block_bytes: int,
    digests: bytes,
    paths: Sequence[str],
) -> Replica:
    """What will be whole at `path`, of the files `paths`, which are written."""
    files = tuple(
        ReplicaFile(
            name=file.name,
            size_bytes=file.size_bytes,
            modified_nanoseconds=file.modified_nanoseconds,
            digest=file.digest,
            written_nanoseconds=os.stat(path).st_mtime_ns,
        )
        for file, path in zip(original.files, paths, strict=True)
    )
    return Replica(
        path=path,
        source=original.root,
        files=files,
        beside=beside,
        block_bytes=block_bytes,
        digests=digests,
        staged_unix_seconds=time.time(),
    )


def sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
