"""Where each tensor lies in a safetensors file: the header, read and checked, without torch.

Names, byte ranges, dtypes and shapes; what is wrong with the latter two is for the safetensors
library to say. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import index
from typing import Any

from shardahead.opening import open_regular
from shardahead.units import quoted

MAX_HEADER_BYTES = 100_000_000  # the safetensors library's own limit
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class TensorRange:
    """One tensor's bytes in its file: [offset, offset + length). `dtype` as the file names it, ""
    where the entry's dtype or shape are not what they should be.
    """

    name: str
    offset: int
    length: int
    dtype: str = ""
    shape: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.offset + self.length


@dataclass(frozen=True)
class Header:
    """Tensors, by ascending offset where they were read; `data_offset` is where the header ends and
    the data begin.
    """

    data_offset: int
    tensors: tuple[TensorRange, ...]


def read_header(
    path: str,
    before_read: Callable[[int, int], None] | None = None,
    opened: Callable[[os.stat_result], None] | None = None,
) -> Header:
    """The header of the file `path`. `opened(status)` is called when it is open,
    `before_read(offset, length)` before each read.

    Raises OSError as open and read do, and ValueError, naming the file, where it is not a
    safetensors file or its header contradicts its size.
    """
    descriptor, status = open_regular(path)

    def read(length: int, offset: int) -> bytes:
        if before_read is not None:
            before_read(offset, length)
        return _pread_full(descriptor, length, offset)

    try:
        if opened is not None:
            opened(status)
        size_bytes = status.st_size
        length = _length(path, read(_LENGTH_BYTES, 0), size_bytes)
        text = read(length, _LENGTH_BYTES)
        return _parse(path, text, _LENGTH_BYTES + length, size_bytes)
    except OSError as error:
        error.filename = error.filename or path
        raise
    finally:
        os.close(descriptor)


def parse_header(path: str, content: bytes, size_bytes: int) -> Header:
    """The header of a file of `size_bytes` that begins with `content`. Raises as read_header."""
    length = _length(path, content[:_LENGTH_BYTES], size_bytes)
    end = _LENGTH_BYTES + length
    return _parse(path, content[_LENGTH_BYTES:end], end, size_bytes)


def check_tiles(path: str, header: Header, size_bytes: int) -> None:
    """Raises ValueError where the tensors overlap or leave a gap, which the format forbids."""
    at = header.data_offset
    for tensor in header.tensors:
        if tensor.offset != at:
            raise ValueError(
                f"{path!r}: tensor {quoted(tensor.name)} begins at byte {tensor.offset}, "
                f"not at {at}"
            )
        at = tensor.end
    if at != size_bytes:
        raise ValueError(f"{path!r}: its tensors end at byte {at}, the file has {size_bytes}")


def _length(path: str, content: bytes, size_bytes: int) -> int:
    length = int.from_bytes(content, "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, size_bytes - _LENGTH_BYTES):
        raise ValueError(
            f"{path!r}: not a safetensors file, or truncated: a header of {length} bytes "
            f"in a file of {size_bytes}"
        )
    return length


def _kind(entry: dict[str, Any]) -> tuple[str, tuple[int, ...]]:
    """dtype and shape. The safetensors library complains about what is wrong with them."""
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or not isinstance(shape, list):
        return "", ()
    if not all(type(length) is int and length >= 0 for length in shape):
        return "", ()
    return dtype, tuple(shape)


def _pread_full(descriptor: int, length: int, offset: int) -> bytes:
    parts = []
    while length > 0:
        part = os.pread(descriptor, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def _parse(path: str, text: bytes, data_offset: int, size_bytes: int) -> Header:
    try:
        entries = json.loads(text)
        tensors = [
            TensorRange(
                str(name),
                data_offset + index(begin),
                index(end) - index(begin),
                *_kind(entry),
            )
            for name, entry in entries.items()
            if name != "__metadata__"
            for begin, end in [entry["data_offsets"]]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # Not repr(): that of a UnicodeDecodeError has all of the header in it.
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path!r}: not a safetensors header: {reason}") from None
    for tensor in tensors:
        if tensor.offset < data_offset or tensor.length < 0 or tensor.end > size_bytes:
            raise ValueError(
                f"{path!r}: tensor {quoted(tensor.name)} lies in bytes {tensor.offset} to "
                f"{tensor.end}, the file has {size_bytes}"
            )
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.end))
    return Header(data_offset, tuple(tensors))
