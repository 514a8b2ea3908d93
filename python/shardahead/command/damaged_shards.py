"""Shards that are no good though every byte of them can be read: a download that was cut off, a
pointer in place of a file. By their first bytes, headers and directories; tensors are not looked
at. What begins as nothing that is known, or is empty, is not judged: any file can be warmed.

Reads, and may wait for storage. Any thread.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from shardahead.checkpoint.errors import CheckpointError, ContentsError
from shardahead.checkpoint.file_kind import file_kind, kind_of_no_pt_file
from shardahead.checkpoint.opening import open_regular
from shardahead.checkpoint.pt_archive import MAGIC, damaged, read_archive
from shardahead.checkpoint.safetensors_header import MAX_HEADER_BYTES, read_header
from shardahead.checkpoint.shards import PT_SUFFIXES, SAFETENSORS_SUFFIXES, Shard

_LENGTH_BYTES, _HEAD_BYTES = 8, 512


def damage_of(shards: Sequence[Shard]) -> str | None:
    """What is wrong with the first of them that no loader would take, and how many more there are;
    None where nothing is. Of what cannot be read others tell.
    """
    found = [text for shard in shards if (text := _damage(shard.path))]
    if not found:
        return None
    more = f"; and {len(found) - 1} more that no loader takes" if len(found) > 1 else ""
    return found[0] + more


def _damage(path: str) -> str | None:
    try:
        if path.lower().endswith(SAFETENSORS_SUFFIXES):
            _check_header(path)
        elif path.lower().endswith(PT_SUFFIXES):
            _check_archive(path)
    except CheckpointError as error:
        return str(error)
    except OSError:
        pass
    return None


def _check_header(path: str) -> None:
    descriptor, _ = open_regular(path)
    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
    finally:
        os.close(descriptor)
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    is_one = head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and length <= MAX_HEADER_BYTES
    if is_one or (head and file_kind(head)):
        read_header(path)


def _check_archive(path: str) -> None:
    """Of torch's legacy format only its reader knows where it ends."""
    descriptor, status = open_regular(path)

    def read(offset: int, length: int) -> bytes:
        content = os.pread(descriptor, length, offset)
        if len(content) < length:
            raise damaged("it names bytes beyond its end")
        return content

    try:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if kind := kind_of_no_pt_file(head):
            raise ContentsError(f"is no checkpoint: it looks like {kind}")
        if head.startswith(MAGIC):
            read_archive(read, status.st_size)
    except ContentsError as error:
        raise error.of_file(path) from error
    finally:
        os.close(descriptor)
