"""Numbers that callers give: the same ones are taken everywhere, and refused by name. Pure."""

from __future__ import annotations

import math
import operator
import re
from typing import SupportsFloat, SupportsIndex, cast

from shardahead.units import parse_bytes, quoted

_MAX_SHOWN = 200  # characters of a value that a message shows


def whole_number(name: str, value: object, kind: str = "a whole number") -> int:
    """`value` as an int: an int, or what stands for one, as numpy's integers do. Raises TypeError
    with `name` and the value for anything else: True, 4.0, "4", None.
    """
    try:
        number = None if _is_bool(value) else operator.index(cast("SupportsIndex", value))
    except Exception:  # whatever its __index__ raises
        number = None
    if number is None:
        raise TypeError(f"{name} must be {kind}, not {shown(value)}")
    return number


def _is_bool(value: object) -> bool:
    """Also those of numpy and torch, of which some stand for 0 and 1."""
    return isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))


def number_between(name: str, value: object, least: int, most: int) -> int:
    """`value` as an int of that range, else TypeError or ValueError with `name` and the value."""
    number = whole_number(name, value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be between {least} and {most}, not {shown(number)}")
    return number


def seconds(name: str, value: object) -> float | None:
    """`value` as a number of seconds, also one of numpy; None is no limit. Raises TypeError or
    ValueError with `name` and the value for anything else, NaN included.
    """
    if value is None:
        return None
    try:
        refused = _is_bool(value) or isinstance(value, str | bytes | bytearray)
        number = None if refused else float(cast("SupportsFloat", value))
    except Exception:  # whatever its __float__ raises
        number = None
    if number is None:
        raise TypeError(f"{name} must be a number of seconds or None, not {shown(value)}")
    if math.isnan(number):
        raise ValueError(f"{name} must be a number of seconds or None, not {shown(value)}")
    return number


def parse_count(text: str) -> int:
    """The count that `text` names: digits and nothing else. Raises ValueError with the text."""
    # More digits than any limit here; int() refuses very many with a message of its own.
    if not re.fullmatch(r"\s*[0-9]{1,30}\s*", text, re.ASCII):
        raise ValueError(f"not a whole number: {shown(text)}")
    return int(text)


def parse_rate(text: str) -> int:
    """The bytes per second that `text` names: "200MB", "200MB/s", "209715200". Raises ValueError
    where it is no whole number of bytes with a known unit.
    """
    try:
        return parse_bytes(re.sub(r"/\s*s\s*$", "", text, flags=re.IGNORECASE))
    except ValueError:
        examples = "examples: 200MB, 200MiB/s"
        raise ValueError(f"not a number of bytes per second: {quoted(text)} ({examples})") from None


def shown(value: object) -> str:
    """repr(value), cut where it is long."""
    try:
        text = repr(value)
    except Exception:
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
