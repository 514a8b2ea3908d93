"""Which part of each tensor a caller asked for, and where its bytes lie. Torch is not needed.

Pure but for what the caller's callable does. What is wrong with a part is a ValueError or TypeError
that names tensor, shape and part. One pass over a checkpoint has one AskedParts; any thread.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

from shardahead import _core
from shardahead.arguments import shown, whole_number
from shardahead.checkpoint.dtypes import DTYPE_BITS
from shardahead.checkpoint.safetensors_header import TensorPart, TensorRange
from shardahead.units import quoted

#: What is wanted of a tensor: (dim, start, stop); a slice for each of its dimensions, or for the
#: first of them; None is all of it.
Part: TypeAlias = tuple[int, int, int] | tuple[slice, ...] | None
#: The parts of tensors: by name, or what a callable gives for a name, a shape and a dtype.
Slices: TypeAlias = Mapping[str, Part] | Callable[[str, tuple[int, ...], str], Part]
#: By dimension, where it begins and ends.
Bounds: TypeAlias = tuple[tuple[int, int], ...]


class _Layout(NamedTuple):
    """Of a part in any tensor of one shape and dtype."""

    first_byte: int
    extent_bytes: int
    shape: tuple[int, ...]
    part: TensorPart | None  # None where it is all of the tensor


class AskedParts:
    """`slices`: None for whole tensors, a mapping or a callable. Raises TypeError for what is
    neither, and as `bounds_of` for parts of a mapping that are none of any tensor.
    """

    def __init__(self, slices: Slices | None) -> None:
        self.listed: tuple[str, ...] | None = None
        self._part_of: Callable[[str, tuple[int, ...], str], object] | None = None
        self._layouts: dict[Any, _Layout] = {}
        if slices is None:
            return
        if isinstance(slices, Mapping):
            parts = _checked(slices)
            self.listed = tuple(parts)
            self._part_of = (lambda name, _shape, _dtype: parts.get(name)) if parts else None
        elif callable(slices):
            self._part_of = slices
        else:
            raise TypeError(
                f"slices must be a mapping of names to parts or a callable, not {shown(slices)}"
            )

    def __bool__(self) -> bool:
        """Whether any part may be asked for."""
        return self._part_of is not None

    def bounds(self, name: str, shape: tuple[int, ...], dtype: str) -> Bounds | None:
        """What is wanted of this tensor; None for all of it. Raises as `bounds_of`."""
        if self._part_of is None:
            return None
        part = self._part_of(name, shape, dtype)
        return None if part is None else bounds_of(name, shape, part)

    def narrowed(self, tensors: Iterable[TensorRange]) -> Iterator[TensorRange]:
        """Of each tensor of a safetensors file the wanted part. Raises as `bounds_of`, and
        ValueError where it would begin or end within a byte. There may be hundreds of thousands.
        """
        part_of, layouts, new = self._part_of, self._layouts, tuple.__new__
        if part_of is None:
            yield from tensors
            return
        for tensor in tensors:
            name, offset, _, dtype, shape, _ = tensor
            part = part_of(name, shape, dtype)
            if part is None:
                yield tensor
                continue
            # Shapes repeat, so layouts do. Only what is exactly (int, int, int) is its own key:
            # True is equal to 1.
            key: Any = (part, shape, dtype)
            if (
                type(part) is not tuple
                or len(part) != 3
                or not (type(part[0]) is type(part[1]) is type(part[2]) is int)
            ):
                key = (bounds_of(name, shape, part), shape, dtype)
            layout = layouts.get(key)
            if layout is None:
                layout = layouts[key] = _layout_of(tensor, bounds_of(name, shape, part), part)
            first_byte, extent_bytes, part_shape, lies = layout
            if lies is None:
                yield tensor
            else:
                # As TensorRange(...) makes it, in half the time.
                yield new(
                    TensorRange, (name, offset + first_byte, extent_bytes, dtype, part_shape, lies)
                )


def bounds_of(name: str, shape: tuple[int, ...], part: object) -> Bounds:
    """By dimension, where `part` of a tensor of this shape begins and ends.

    Raises TypeError for what is no part, and ValueError for one that no tensor of the shape has.
    """
    of_dim, of_slices = _ends_of(name, shape, part)
    bounds = [(0, size) for size in shape]
    if of_dim is None and len(of_slices) > len(shape):
        raise _no_part(name, shape, part, f"{len(of_slices)} slices, {len(shape)} dimensions")
    for dim, (start, stop) in enumerate(of_slices) if of_dim is None else [of_dim]:
        if not -len(shape) <= dim < len(shape):
            raise _no_part(name, shape, part, f"there is no dimension {dim}")
        size = shape[dim]
        low = 0 if start is None else start
        high = size if stop is None else stop
        if of_dim is None:  # slices count from the end, too
            low, high = (end + size if end < 0 else end for end in (low, high))
        if not (0 <= low <= size and 0 <= high <= size):
            raise _no_part(name, shape, part, f"dimension {dim} has {size}")
        if low > high:
            raise _no_part(name, shape, part, f"it begins at {low} and ends at {high}")
        bounds[dim] = (low, high)
    return tuple(bounds)


_Ends = tuple[int | None, int | None]


def _ends_of(
    name: str, shape: tuple[int, ...] | None, part: object
) -> tuple[tuple[int, _Ends] | None, list[_Ends]]:
    """The dimension and its ends, or the ends of each slice. Raises as `bounds_of`."""

    def number(what: str, value: object) -> int:
        if type(value) is int:
            return value
        return whole_number(f"{_where(name, shape)}: {what} of {shown(part)}", value)

    if isinstance(part, tuple):
        slices = [each for each in part if isinstance(each, slice)]
        if len(slices) == len(part):
            ends: list[_Ends] = []
            for each in slices:
                if each.step is not None and number("step", each.step) != 1:
                    raise _no_part(name, shape, part, f"a step of {each.step}")
                low = None if each.start is None else number("start", each.start)
                ends.append((low, None if each.stop is None else number("stop", each.stop)))
            return None, ends
        if len(part) == 3 and not slices:
            dim, start, stop = part
            return (number("dim", dim), (number("start", start), number("stop", stop))), []
    raise TypeError(
        f"{_where(name, shape)}: a part is (dim, start, stop), a tuple of slices, or None, not "
        f"{shown(part)}"
    )


def _no_part(name: str, shape: tuple[int, ...] | None, part: object, why: str) -> ValueError:
    return ValueError(f"{_where(name, shape)} has no part {shown(part)}: {why}")


def _where(name: str, shape: tuple[int, ...] | None) -> str:
    of_shape = "" if shape is None else f" of shape {shown(shape)}"
    return f"slices: tensor {quoted(name)}{of_shape}"


def _checked(slices: Mapping[Any, Any]) -> dict[str, object]:
    """The mapping as it is now. Raises as `bounds_of` for what can be known without shapes."""
    parts: dict[str, object] = {}
    for name, part in slices.items():
        if not isinstance(name, str):
            raise TypeError(f"slices must have names as keys, not {shown(name)}")
        if part is not None:
            _ends_of(name, None, part)
        parts[name] = part
    return parts


def _layout_of(tensor: TensorRange, bounds: Bounds, asked: object) -> _Layout:
    whole = tensor.shape
    shape = tuple(stop - start for start, stop in bounds)
    if shape == whole:
        return _Layout(0, tensor.length, shape, None)
    strides = strides_of(whole)
    bits = _bits_of(tensor, asked)
    within = f"an element of {tensor.dtype} has {bits} bits, and it would cut a byte"
    start, stop = bounds[-1]
    if (start, stop) != (0, whole[-1]) and (start * bits % 8 or stop * bits % 8):
        raise _no_part(tensor.name, whole, asked, within)
    if 0 in shape:
        return _Layout(0, 0, shape, TensorPart(strides, None, 0, ()))
    first, run, levels = _runs_of(whole, bounds, strides, bits)
    if any(each % 8 for each in (first, run, *(stride for _, stride in levels))):
        raise _no_part(tensor.name, whole, asked, within)
    run_bytes = run // 8
    if not levels:
        part = TensorPart(strides, None, run_bytes, ((0, run_bytes),))
        return _Layout(first // 8, run_bytes, shape, part)
    runs = _core.ByteRuns(run_bytes, [(count, stride // 8) for count, stride in levels])
    spans = tuple(runs.joined(_core.SHORT_GAP_BYTES - 1).ranges())
    part = TensorPart(strides, runs, runs.packed_bytes, spans)
    return _Layout(first // 8, runs.extent_bytes, shape, part)


def _bits_of(tensor: TensorRange, asked: object) -> int:
    """Of an element. Of dtypes that the safetensors library alone knows its bytes tell."""
    known = DTYPE_BITS.get(tensor.dtype)
    count = math.prod(tensor.shape)
    if known is not None or not count:
        return known or 8
    bits, rest = divmod(8 * tensor.length, count)
    if rest or not bits:
        why = f"where elements of {tensor.dtype} lie is not known"
        raise _no_part(tensor.name, tensor.shape, asked, why)
    return bits


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a row-major tensor, in elements, as torch has them."""
    sizes = (max(size, 1) for size in reversed(shape[1:]))
    return tuple(accumulate(sizes, operator.mul, initial=1))[::-1] if shape else ()


def _runs_of(
    whole: Sequence[int], bounds: Bounds, strides: Sequence[int], bits: int
) -> tuple[int, int, list[tuple[int, int]]]:
    """The first bit, the bits of a run, and (count, stride in bits) from the outermost level on."""
    first = sum(start * stride for (start, _), stride in zip(bounds, strides, strict=True)) * bits
    run = bits
    levels: list[tuple[int, int]] = []  # the innermost first
    for size, (start, stop), elements in reversed([*zip(whole, bounds, strides, strict=True)]):
        count, stride = stop - start, elements * bits
        if size == 1:
            continue
        if not levels and run == stride:
            run *= count
        elif levels and levels[-1][0] * levels[-1][1] == stride:
            levels[-1] = (levels[-1][0] * count, levels[-1][1])
        elif count > 1:
            levels.append((count, stride))
    return first, run, levels[::-1]
