"""What is left of a mapped shard before its tensors can be made: its header, through the descriptor
that is mapped, and what an error of it means. Any thread.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

from shardahead import _core
from shardahead.checkpoint.safetensors_header import TensorRange, read_content
from shardahead.units import quoted

T = TypeVar("T")


def content_of(mapping: _core.FileMapping, before_read: Callable[[int, int], None]) -> bytes:
    """What parse_header takes; `before_read(offset, length)` is called before each read."""

    def read(offset: int, length: int) -> bytes:
        before_read(offset, length)
        return mapping.read(offset, length)

    return read_content(mapping.size_bytes, read)


def refuses_mappings(error: OSError) -> bool:
    """Of the mount, or for want of address space or of memory that may be promised."""
    return error.errno == errno.ENODEV or getattr(error, "operation", "") == "mmap"


def naming(tensor: TensorRange, call: Callable[[], T]) -> T:
    """What `call` gives; an error of the tensor's bytes with the tensor's name."""
    try:
        return call()
    except OSError as error:
        if hasattr(error, "operation"):
            error.strerror = f"{error.strerror} (reading tensor {quoted(tensor.name)})"
        raise
