"""The dtypes of safetensors files, without torch: what is known of them here, and whether the
installed safetensors library knows more. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

_MAX_INTEGER = 2**64  # of the safetensors library

#: How many bits an element of each dtype has.
DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("C64", "F64", "I64", "U64"), 64),
}


def bits_of(shape: list[int], bits: int) -> int | None:
    """None where the safetensors library's numbers would overflow on the way."""
    count = 1
    for length in shape:
        count *= length
        if count >= _MAX_INTEGER:
            return None
    return count * bits if count * bits < _MAX_INTEGER else None


@lru_cache(maxsize=64)
def library_knows(dtype: str) -> bool:
    """Whether the safetensors library has a dtype of this name: one younger than this table."""
    if len(dtype) > 64:
        return False
    try:
        from safetensors import deserialize

        text = json.dumps({"t": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}}).encode()
        deserialize(len(text).to_bytes(8, "little") + text)  # type: ignore[no-untyped-call]
    except Exception:  # ImportError, SafetensorError: whatever it has against it
        return False
    return True
