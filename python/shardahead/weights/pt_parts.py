"""Parts of the tensors that torch.load made: views of them, and where their bytes lie.

Which part is asked for, `checkpoint.asked_parts` knows. No I/O. Any thread.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from shardahead.checkpoint.asked_parts import Bounds
from shardahead.units import quoted
from shardahead.weights.tensor_maker import torch_dtypes

if TYPE_CHECKING:
    import torch


@lru_cache(maxsize=64)
def dtype_name(dtype: torch.dtype) -> str:
    """As safetensors files call it, else as torch does."""
    names = {known: name for name, known in torch_dtypes().items()}
    return names.get(dtype) or str(dtype).removeprefix("torch.")


def narrowed(name: str, tensor: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """A view of this part. Raises ValueError where there is none of such a kind of tensor."""
    import torch

    kind = "quantized" if tensor.is_quantized else str(tensor.layout).removeprefix("torch.")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        raise ValueError(f"slices: tensor {quoted(name)} has no parts, for it is {kind}")
    # What is a view of a parameter must not remember it.
    return tensor.detach()[tuple(slice(start, stop) for start, stop in bounds)]


def place_of(part: torch.Tensor, storage: tuple[int, int]) -> list[tuple[int, int]]:
    """(offset, length) from the first byte of `part` to its last, whose storage is there; of an
    empty one none.
    """
    if not part.numel():
        return []
    last = sum((n - 1) * stride for n, stride in zip(part.shape, part.stride(), strict=True))
    size = part.element_size()
    return [(storage[0] + int(part.storage_offset()) * size, (int(last) + 1) * size)]
