"""Shards that are no good though every byte of them can be read: a download that was cut off, or
did not begin, a pointer in place of a file. By their sizes, first bytes, headers and directories;
tensors are not looked at. What begins as nothing that is known is not judged, nor what has an
ending of its own: any file can be warmed.

Reads, and may wait for storage. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from shardahead.checkpoint.errors import CheckpointError, ContentsError
from shardahead.checkpoint.file_kind import (
    file_kind,
    kind_of_no_distributed_file,
    kind_of_no_gguf_file,
    kind_of_no_pt_file,
)
from shardahead.checkpoint.opening import open_regular
from shardahead.checkpoint.pt_archive import MAGIC, damaged, read_archive
from shardahead.checkpoint.safetensors_header import MAX_HEADER_BYTES, read_header
from shardahead.checkpoint.shards import (
    MAX_INDEX_BYTES,
    PT_SUFFIXES,
    SAFETENSORS_SUFFIXES,
    Shard,
)
from shardahead.command.typed_paths import DISTRIBUTED_PLAN, DISTRIBUTED_SUFFIX
from shardahead.node.residency import FileResidency

_LENGTH_BYTES, _HEAD_BYTES = 8, 512


def damage_of(shards: Sequence[Shard]) -> str | None:
    """What is wrong with the first of them that no loader would take, and how many more there are;
    None where nothing is. Of what cannot be read others tell.
    """
    return first_of_damages([text for shard in shards if (text := damage_in(shard.path))])


def first_of_damages(found: Sequence[str]) -> str | None:
    """What is said of them all."""
    more = f"; and {len(found) - 1} more that no loader takes" if len(found) > 1 else ""
    return found[0] + more if found else None


def damages_in_memory(files: Sequence[FileResidency]) -> dict[str, str]:
    """What is wrong with those of which all is resident, or that are empty, by path: nothing comes
    from storage for that, but the plan beside an empty one.
    """
    there = [file.path for file in files if (file.resident_bytes or 0) >= file.size_bytes]
    return {path: text for path in there if (text := damage_in(path))}


def damage_in(path: str) -> str | None:
    """What is wrong with it; None where nothing is, it is not judged, or it cannot be read."""
    check = next((c for ends, c in _CHECKS if path.lower().endswith(ends)), None)
    if check is None:
        return None
    try:
        descriptor, status = open_regular(path)
        try:
            # No more than is asked for: who looks must not change what is resident.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            if status.st_size == 0:
                _check_empty(path)
            else:
                check(path, descriptor, status.st_size)
        finally:
            os.close(descriptor)
    except ContentsError as error:
        return str(error.of_file(path))
    except CheckpointError as error:
        return str(error)
    except OSError:
        pass
    return None


def _check_empty(path: str) -> None:
    """A rank that has nothing to save leaves one of torch.distributed.checkpoint, too: the plan,
    a pickle, names only those in which there is something.
    """
    folder, name = os.path.split(path)
    if name.lower().endswith(DISTRIBUTED_SUFFIX):
        try:
            with open(os.path.join(folder, DISTRIBUTED_PLAN), "rb") as plan:
                if os.fsencode(name) not in plan.read(MAX_INDEX_BYTES):
                    return
        except OSError:
            pass
    raise ContentsError("is empty, as a download that did not begin or a full disk leaves it")


def _check_safetensors(path: str, descriptor: int, _size_bytes: int) -> None:
    head = os.pread(descriptor, _HEAD_BYTES, 0)
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    is_one = head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES
    if is_one or file_kind(head):
        read_header(path)


def _check_pt(_path: str, descriptor: int, size_bytes: int) -> None:
    """Of torch's legacy format only its reader knows where it ends."""

    def read(offset: int, length: int) -> bytes:
        content = os.pread(descriptor, length, offset)
        if len(content) < length:
            raise damaged("it names bytes beyond its end")
        return content

    head = os.pread(descriptor, _HEAD_BYTES, 0)
    if kind := kind_of_no_pt_file(head):
        raise ContentsError(f"is no checkpoint: it looks like {kind}")
    if head.startswith(MAGIC):
        read_archive(read, size_bytes)


def _check_gguf(_path: str, descriptor: int, _size_bytes: int) -> None:
    if kind := kind_of_no_gguf_file(os.pread(descriptor, _HEAD_BYTES, 0)):
        raise ContentsError(f"is no GGUF file: it looks like {kind}")


def _check_distributed(_path: str, descriptor: int, _size_bytes: int) -> None:
    if kind := kind_of_no_distributed_file(os.pread(descriptor, _HEAD_BYTES, 0)):
        raise ContentsError(f"is no checkpoint: it looks like {kind}")


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[str, int, int], None]], ...] = (
    (SAFETENSORS_SUFFIXES, _check_safetensors),
    (PT_SUFFIXES, _check_pt),
    ((".gguf",), _check_gguf),
    ((DISTRIBUTED_SUFFIX,), _check_distributed),
)
