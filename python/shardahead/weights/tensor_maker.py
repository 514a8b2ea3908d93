"""Tensors over the bytes of a safetensors file, mapped or read, each with a storage of its own.

The safetensors library gives one storage to all tensors of a file. Here each one says by itself
when no one holds it any more, so that its pages can be dropped while the file is still being read.
Same bytes, dtype and shape; as there, a view of a private mapping. That library opens files by
path, and maps them so that memory for all of them is set aside: it is not asked to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shardahead import _core
from shardahead.checkpoint.dtypes import DTYPE_BITS
from shardahead.checkpoint.errors import CheckpointError
from shardahead.checkpoint.safetensors_header import TensorRange
from shardahead.units import quoted

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


# Of two elements to the byte: torch counts the bytes.
_PACKED_DTYPES = {"F4": "float4_e2m1fn_x2"}


def torch_dtypes() -> dict[str, torch.dtype]:
    """Those of whole bytes that this version of torch has, by what a file calls them."""
    found = {name: _dtype_of(name) for name in _DTYPES}
    return {name: dtype for name, dtype in found.items() if dtype is not None}


class TensorMaker:
    """Makes the tensors of the safetensors file `path` from its mapping. `expected(offset, length)`
    is what of these bytes has been brought in, so that it can be found out whether it can be read;
    None for all of them.
    """

    def __init__(
        self,
        path: str,
        mapping: _core.FileMapping,
        expected: Callable[[int, int], Sequence[tuple[int, int]] | None],
    ) -> None:
        self._path = path
        self._mapping = mapping
        self._expected = expected

    def __call__(self, tensor: TensorRange) -> torch.Tensor:
        held: _core.HeldBytes | None = None
        if tensor.runs is not None:
            held = self._mapping.hold_runs(tensor.offset, tensor.runs)
        elif tensor.length:
            expected = self._expected(tensor.offset, tensor.length)
            held = self._mapping.hold(tensor.offset, tensor.length, expected)
        return tensor_from(self._path, tensor, held, in_place=True)


def check_dtypes(path: str, tensors: Sequence[TensorRange]) -> None:
    """Raises CheckpointError where torch cannot have one of them."""
    dtypes = {tensor.dtype for tensor in tensors}
    unknown = {dtype for dtype in dtypes if dtype in DTYPE_BITS and _dtype_of(dtype) is None}
    if not unknown and dtypes.isdisjoint(_PACKED_DTYPES):
        return
    for tensor in tensors:
        reason = ""
        if tensor.dtype in unknown:
            reason = f"this version of torch has no {tensor.dtype}"
        elif tensor.dtype in _PACKED_DTYPES and tensor.shape[-1] % 2:
            reason = f"torch has {tensor.dtype} in pairs, and its last size is {tensor.shape[-1]}"
        if reason:
            raise _cannot_be_made(path, tensor, reason)


def tensor_from(
    path: str,
    tensor: TensorRange,
    content: _core.HeldBytes | _core.TensorBytes | None,
    *,
    in_place: bool = False,
) -> torch.Tensor:
    """The tensor of these bytes, None for none. Of a part they are those that are wanted, packed,
    or `in_place` all from the first to the last. Raises CheckpointError where there is no such
    tensor; for what check_dtypes lets pass, there is.
    """
    import torch

    dtype = _dtype_of(tensor.dtype)
    if dtype is None:
        return _by_the_library(path, tensor, content, in_place=in_place)
    shape = tensor.shape
    strides = tensor.part.strides if tensor.part is not None and in_place else None
    if tensor.dtype in _PACKED_DTYPES:
        shape = (*shape[:-1], shape[-1] // 2)
        strides = strides and (*(stride // 2 for stride in strides[:-1]), 1)
    try:
        if content is None:
            # Not torch.empty(shape): sizes beside a 0 may be larger than it takes.
            flat = torch.empty(0, dtype=torch.uint8).view(dtype)
        else:
            flat = torch.frombuffer(content, dtype=torch.uint8).view(dtype)
        return flat.reshape(shape) if strides is None else flat.as_strided(shape, strides)
    except RuntimeError as error:
        raise _cannot_be_made(path, tensor, _said_by(error)) from error


def _by_the_library(
    path: str,
    tensor: TensorRange,
    content: _core.HeldBytes | _core.TensorBytes | None,
    *,
    in_place: bool,
) -> torch.Tensor:
    """A dtype that is younger than this: the safetensors library makes it, of a file in memory that
    holds nothing else.
    """
    from safetensors.torch import load

    entry = {
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "data_offsets": [0, tensor.wanted_bytes],
    }
    text = json.dumps({tensor.name: entry}).encode()
    data = b"" if content is None else bytes(memoryview(content))
    if tensor.runs is not None and in_place:
        data = b"".join(data[at : at + length] for at, length in tensor.runs.ranges())
    try:
        return load(len(text).to_bytes(8, "little") + text + data)[tensor.name]
    except Exception as error:  # SafetensorError, KeyError, TypeError: whatever it meets
        raise _cannot_be_made(path, tensor, _said_by(error)) from error


def _said_by(error: Exception) -> str:
    return quoted(f"{type(error).__name__}: {error}")


def _cannot_be_made(path: str, tensor: TensorRange, reason: str) -> CheckpointError:
    text = f"{path!r}: tensor {quoted(tensor.name)} cannot be made: {reason}"
    return CheckpointError(text, path, tensor.name)


def _dtype_of(name: str) -> torch.dtype | None:
    """None where it is not known here, or this version of torch has none."""
    import torch

    dtype = getattr(torch, _DTYPES.get(name) or _PACKED_DTYPES.get(name, ""), None)
    return dtype if isinstance(dtype, torch.dtype) else None
