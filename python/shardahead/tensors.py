"""Tensors over bytes of a mapped safetensors file, each with a storage of its own.

The safetensors library gives one storage to all tensors of a file. Here each one says by itself
when no one holds it any more, so that its pages can be dropped while the file is still being read.
Same bytes, dtype and shape; as there, a view of a private mapping.
"""

from __future__ import annotations

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
        import torch

        dtype = getattr(torch, _DTYPES.get(tensor.dtype, ""), None)
        if (
            dtype is None
            or tensor.length != prod(tensor.shape) * dtype.itemsize
            or not tensor.length
        ):
            made: torch.Tensor = self._shard.get_tensor(tensor.name)
            return made
        held = self._mapping.hold(tensor.offset, tensor.length)
        return torch.frombuffer(held, dtype=torch.uint8).view(dtype).reshape(tensor.shape)
