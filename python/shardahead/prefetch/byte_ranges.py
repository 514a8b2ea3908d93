"""Arithmetic on the wanted ranges of one file: (offset, length) in bytes, sorted and merged,
without empty ones. Pure, any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in any order, with empty, overlapping and adjoining ones, as they are kept here."""
    found: list[tuple[int, int]] = []
    for offset, length in sorted(ranges):
        if length <= 0:
            continue
        if found and offset <= found[-1][0] + found[-1][1]:
            begin, before = found[-1]
            found[-1] = (begin, max(before, offset + length - begin))
        else:
            found.append((offset, length))
    return tuple(found)


def in_grains(ranges: Ranges, grain_bytes: int, size_bytes: int) -> Ranges:
    """The ranges grown to whole grains on both sides, up to the end of the file."""
    return merged(
        (begin, min(-(-(offset + length) // grain_bytes) * grain_bytes, size_bytes) - begin)
        for offset, length in ranges
        for begin in (offset // grain_bytes * grain_bytes,)
    )


def common(some: Ranges, others: Ranges) -> Ranges:
    """What is in both."""
    found = []
    i = j = 0
    while i < len(some) and j < len(others):
        begin = max(some[i][0], others[j][0])
        end_of_some, end_of_others = sum(some[i]), sum(others[j])
        end = min(end_of_some, end_of_others)
        if begin < end:
            found.append((begin, end - begin))
        if end_of_some < end_of_others:
            i += 1
        else:
            j += 1
    return tuple(found)


def total(ranges: Sequence[tuple[int, int]]) -> int:
    """Their bytes."""
    return sum(length for _, length in ranges)
