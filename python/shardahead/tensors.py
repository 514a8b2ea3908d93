"""Tensors over the bytes of a safetensors file, mapped or read, each with a storage of its own.

The safetensors library gives one storage to all tensors of a file. Here each one says by itself
when no one holds it any more, so that its pages can be dropped while the file is still being read.
Same bytes, dtype and shape; as there, a view of a private mapping.
"""

from __future__ import annotations

import json
import os
from math import prod
from typing import TYPE_CHECKING, Any

from shardahead import _core
from shardahead.safetensors_header import TensorRange

if TYPE_CHECKING:
    import torch

# What a file calls them, and torch. Left out are those of which an element is no whole byte.
_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}


class TensorMaker:
    """Makes the tensors of one open safetensors file from its mapping."""

    def __init__(self, shard: Any, mapping: _core.FileMapping) -> None:
        self._shard = shard
        self._mapping = mapping

    def __call__(self, tensor: TensorRange) -> torch.Tensor:
        """What the library does not know here, or has no bytes, is the safetensors library's."""
        dtype = _dtype_of(tensor)
        if dtype is None:
            made: torch.Tensor = self._shard.get_tensor(tensor.name)
            return made
        return _view(self._mapping.hold(tensor.offset, tensor.length), dtype, tensor)


def tensor_from(tensor: TensorRange, content: _core.TensorBytes | None) -> torch.Tensor:
    """The tensor of these bytes, None for none. What is not known here is the safetensors library's
    to make, of a file in memory that holds nothing else.
    """
    dtype = _dtype_of(tensor)
    if dtype is not None and content is not None:
        return _view(content, dtype, tensor)
    from safetensors import safe_open

    entry = {
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "data_offsets": [0, tensor.length],
    }
    text = json.dumps({tensor.name: entry}).encode()
    descriptor = os.memfd_create("shardahead", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.write(b"" if content is None else memoryview(content))
        with safe_open(f"/proc/self/fd/{descriptor}", framework="pt") as shard:
            made: torch.Tensor = shard.get_tensor(tensor.name)
            return made
    finally:
        os.close(descriptor)


def _dtype_of(tensor: TensorRange) -> torch.dtype | None:
    """None where the library is to say what this tensor is, or that it is none."""
    import torch

    dtype = getattr(torch, _DTYPES.get(tensor.dtype, ""), None)
    if not isinstance(dtype, torch.dtype) or not tensor.length:
        return None
    return dtype if tensor.length == prod(tensor.shape) * dtype.itemsize else None


def _view(
    content: _core.HeldBytes | _core.TensorBytes, dtype: torch.dtype, tensor: TensorRange
) -> torch.Tensor:
    import torch

    return torch.frombuffer(content, dtype=torch.uint8).view(dtype).reshape(tensor.shape)
