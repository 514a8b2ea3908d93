"""Bytes, rates, times and shares as people write and read them, and names that can be printed.

Pure; no I/O.
"""

from __future__ import annotations

import re
from fractions import Fraction

#: What a message shows of a text, in characters: a header may name a tensor with 100 MB.
_MAX_QUOTED = 200

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1024,
    "kib": 1024,
    "kb": 1000,
    "m": 1024**2,
    "mib": 1024**2,
    "mb": 1000**2,
    "g": 1024**3,
    "gib": 1024**3,
    "gb": 1000**3,
    "t": 1024**4,
    "tib": 1024**4,
    "tb": 1000**4,
}


def parse_bytes(text: str) -> int:
    """The number of bytes that `text` names: "16777216", "16MiB", "16M" (both 2**24), "16MB".

    Raises ValueError where it is not a whole number of bytes with a known unit.
    """
    # int() refuses more than 4300 digits, with a message of its own.
    match = re.fullmatch(r"\s*([0-9]{1,4000}(?:\.[0-9]{1,4000})?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None:
        raise ValueError(f"not a number of bytes: {quoted(text)} (examples: 16777216, 16MiB)")
    value = Fraction(match.group(1)) * unit
    if value.denominator != 1:
        raise ValueError(f"not a whole number of bytes: {quoted(text)}")
    return int(value)


def format_bytes(count: float) -> str:
    """`count` bytes in binary units, three significant digits: "1.50 GiB", "512 B"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < (1024 if unit == "B" else 1023.5):  # what is shown, not 1024 MiB
            # Not "g": it turns 1000 KiB into 1e+03 KiB.
            decimals = 0 if unit == "B" or abs(count) >= 99.95 else 1 if abs(count) >= 9.995 else 2
            return f"{count:.{decimals}f} {unit}"
        count /= 1024
    return f"{count:,.2f} TiB"


def format_rate(bytes_per_second: float) -> str:
    """A rate in millions of bytes per second, as all commands and reports give it: "309 MB/s",
    "1,250 MB/s", and below ten with decimals, "9.8 MB/s", "0.45 MB/s".
    """
    rate = max(bytes_per_second, 0.0) / 1e6
    decimals = 0 if rate >= 9.95 or rate == 0 else 1 if rate >= 0.995 else 2
    return f"{rate:,.{decimals}f} MB/s"


def format_seconds(seconds: float) -> str:
    """How long something took: in seconds, with decimals where it is short, "2 min 5 s" or
    "1 h 2 min".
    """
    if seconds <= 0:
        return "0 s"
    if seconds < 59.5:
        decimals = (
            0 if seconds >= 9.95 else 1 if seconds >= 0.995 else 2 if seconds >= 0.0995 else 3
        )
        return f"{max(seconds, 0.001):.{decimals}f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def format_share(part: int, whole: int) -> str:
    """What `part` is of `whole`, rounded down to a tenth: "100.0 %" is all of it. All of nothing is
    all.
    """
    tenths = 1000 if part >= whole else 1000 * part // whole
    return f"{tenths // 10}.{tenths % 10} %"


def counted(count: int, name: str) -> str:
    """A number of things that have a regular plural: "1 shard", "2 shards"."""
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def printable(path: str) -> str:
    """A path that any stream takes: bytes that are not UTF-8, and controls, are escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in path)


def quoted(name: object) -> str:
    """A name or a text as a message may show it: quoted, on one line, cut where it is long."""
    if isinstance(name, str) and len(name) > _MAX_QUOTED:
        return f"{name[:_MAX_QUOTED]!r}... ({len(name)} characters)"
    return repr(name)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # as os.fsdecode writes a byte that is not UTF-8
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()
