"""What the tests of `slices=` share: parts of any kind, and what narrowing whole tensors gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from weights_support import Bits, bits, random_tensor

torch = pytest.importorskip("torch")


def narrowed(tensor: Any, part: Any) -> Any:
    """What is right, by other means than those under test: torch's own."""
    if part is None:
        return tensor
    if part and not isinstance(part[0], slice):
        dim, start, stop = (int(each) for each in part)
        return tensor.narrow(dim, start, stop - start)
    for dim, each in enumerate(part):
        start, stop, _ = each.indices(tensor.shape[dim])
        tensor = tensor.narrow(dim, start, stop - start)
    return tensor


def bits_of_parts(whole: dict[str, Any], parts: dict[str, Any]) -> list[Bits]:
    return [bits(name, narrowed(t, parts.get(name))) for name, t in whole.items()]


@st.composite
def part_of(draw: st.DrawFn, shape: tuple[int, ...], unit: int = 1) -> Any:
    """Of a tensor of this shape. Of its last dimension a multiple of `unit` from one on."""
    kind = draw(st.sampled_from(["whole", "dim", "slices"]))
    if kind == "whole" or not shape:
        return draw(st.sampled_from([None, ()]))

    def ends(dim: int) -> tuple[int, int]:
        step = unit if dim == len(shape) - 1 else 1
        low = draw(st.integers(0, shape[dim] // step))
        return low * step, draw(st.integers(low, shape[dim] // step)) * step

    if kind == "dim":
        dim = draw(st.integers(0, len(shape) - 1))
        return (draw(st.sampled_from([dim, dim - len(shape)])), *ends(dim))
    found = []
    for dim in range(draw(st.integers(1, len(shape)))):
        start, stop = ends(dim)
        size = shape[dim]
        found.append(
            slice(
                draw(st.sampled_from([start, start - size] if 0 < start < size else [start])),
                draw(st.sampled_from([stop, stop - size] if 0 < stop < size else [stop])),
                draw(st.sampled_from([None, 1])),
            )
        )
    if all(each.start == 0 for each in found):
        found = [slice(None, each.stop) for each in found]
    return tuple(found)


WAYS: dict[str, dict[str, Any]] = {
    "auto": {},
    "mmap": {"mode": "mmap"},
    "pread": {"mode": "pread"},
    "no prefetch": {"prefetch": False},
}
DTYPES = [
    torch.uint8,
    torch.bool,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float32,
    torch.int64,
    torch.complex64,
]
SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    whole: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 6))):
        name = f"t{number}"
        shape = draw(SHAPES)
        whole[name] = random_tensor(draw(st.sampled_from(DTYPES)), shape, number)
        if draw(st.booleans()):
            parts[name] = draw(part_of(shape))
    return whole, parts
