"""What a load of a checkpoint has touched, as it is kept for the next one: a value, how it becomes
the bytes of a file, and how it is made of bytes that anyone may have written. No I/O, any thread.

JSON, so that people can look at it; the ranges, of which there may be many, are in it as numbers of
grains, each of few bytes (LEB128), packed by zlib and written in base64.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shardahead import _core
from shardahead.prefetch.byte_ranges import Ranges, common, in_grains, merged, total
from shardahead.prefetch.early_touches import MAX_EARLY_BYTES, is_small

SCHEMA = "shardahead/profile/1"
#: Of its file: no more is read, and none is written that is larger.
MAX_PROFILE_BYTES = 1024**2
#: Of all files together, for they are more in memory than here.
MAX_RANGES = 2**18
LEAST_GRAIN_BYTES = _core.TOUCHED_GRAIN_BYTES
_MOST_GRAIN_BYTES = 2**40
_MAX_UNPACKED_BYTES = 4 * 1024**2
_MOST_NUMBER_BYTES = 9  # of seven bits each: no file has more than 2**63 bytes

# What two profiles that mean the same may differ by, as a part of the older one.
_SUPERFLUOUS_SHARE = 8
#: Of a loader that is looked at from time to time, so many in a row must differ by more.
DOUBTING_LOADS = 3


class ProfileError(ValueError):
    """Why bytes are no profile, or one of something else."""


@dataclass(frozen=True)
class Doubt:
    """That a profile wants too much: `loads` in a row left much of it, and touched `ranges`."""

    loads: int
    ranges: tuple[Ranges, ...]


@dataclass(frozen=True)
class Profile:
    """`files` are names and sizes of the shards of a checkpoint, `ranges` what was touched of each,
    in grains of `grain_bytes`, and `order` the files in the order in which that began. `who` read,
    with which `version` of this package. `early`: what of each was touched ahead of what lies
    around it, in grains of LEAST_GRAIN_BYTES; empty where that is not known.
    """

    files: tuple[tuple[str, int], ...]
    who: str
    grain_bytes: int
    ranges: tuple[Ranges, ...]
    order: tuple[int, ...]
    version: str
    doubt: Doubt | None = None
    early: tuple[Ranges, ...] = ()

    @property
    def touched_bytes(self) -> int:
        return sum(total(ranges) for ranges in self.ranges)

    def coarser(self, grain_bytes: int) -> Profile:
        """The same in larger grains."""
        sizes = [size for _, size in self.files]

        def grown(ranges: tuple[Ranges, ...]) -> tuple[Ranges, ...]:
            return tuple(in_grains(r, grain_bytes, s) for r, s in zip(ranges, sizes, strict=True))

        doubt = self.doubt
        if doubt is not None:
            doubt = replace(doubt, ranges=grown(doubt.ranges))
        return replace(self, grain_bytes=grain_bytes, ranges=grown(self.ranges), doubt=doubt)


def encoded(profile: Profile) -> bytes | None:
    """The bytes of its file, without doubt and in larger grains where it would be too large; None
    where it is too large in any: of a hundred thousand files, say.
    """
    if profile.doubt is not None:
        content = _encoded(profile)
        if content is not None:
            return content
        profile = replace(profile, doubt=None)
    while profile.grain_bytes <= _MOST_GRAIN_BYTES:
        content = _encoded(profile)
        if content is not None:
            return content
        profile = profile.coarser(2 * profile.grain_bytes)
    return None


def decoded(content: bytes) -> Profile:
    """The profile of these bytes. Raises ProfileError where they are not those of one."""
    if len(content) > MAX_PROFILE_BYTES:
        raise ProfileError(f"it has more than {MAX_PROFILE_BYTES} bytes")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"it is no JSON ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise ProfileError("it is no object")
    schema = document.get("schema")
    if schema != SCHEMA:
        raise ProfileError("it is of another version" if schema else "it does not say what it is")
    grain_bytes: Any = document.get("grain_bytes")
    if not _is_number(grain_bytes, LEAST_GRAIN_BYTES, _MOST_GRAIN_BYTES):
        raise ProfileError("grain_bytes is out of range")
    files = tuple(_file(entry) for entry in _list(document, "files"))
    order = tuple(_list(document, "order"))
    if not all(_is_number(at, 0, len(files) - 1) for at in order) or len(set(order)) != len(order):
        raise ProfileError("order names no file, or one twice")
    sizes = [size for _, size in files]
    return Profile(
        files=files,
        who=_text(document, "who"),
        grain_bytes=grain_bytes,
        ranges=_ranges(_text(document, "ranges"), grain_bytes, sizes),
        order=order,
        version=_text(document, "version"),
        doubt=_doubt(document.get("doubt"), grain_bytes, sizes),
        early=_early(document.get("early"), sizes),
    )


def next_profile(
    before: Profile | None, touched: Profile, *, sampled: bool = False, given_up: bool = False
) -> Profile | None:
    """What is to be kept after a load that began with `before` and touched `touched`; None where
    that is what there is.

    Where nearly all of `before` was touched the need is the same, and both are kept together. Else
    the need has changed, and only what was touched counts. `sampled`: the loader was looked at from
    time to time, so what was not seen may have been touched all the same: then the need has changed
    where the profile was `given_up`, for most of what was touched was not in it, or where so many
    loads in a row left much of it; what any of them touched counts then.
    """
    if before is None or (sampled and given_up):
        return touched
    if not touched.early:
        touched = replace(touched, early=before.early)
    grain_bytes = max(before.grain_bytes, touched.grain_bytes)
    old, new = before.coarser(grain_bytes), touched.coarser(grain_bytes)
    pairs = list(zip(old.ranges, new.ranges, strict=True))
    both = sum(total(common(a, b)) for a, b in pairs)
    superfluous = old.touched_bytes - both
    changed = superfluous * _SUPERFLUOUS_SHARE > old.touched_bytes
    if changed and not sampled:
        return touched
    same = new.touched_bytes == both and bool(new.early) == bool(old.early)
    if not changed and same and old.doubt is None:
        return None
    together = replace(new, ranges=_together(old.ranges, new.ranges))
    if not changed:
        return together
    doubt = Doubt(1, new.ranges)
    if old.doubt is not None:
        doubt = Doubt(old.doubt.loads + 1, _together(old.doubt.ranges, new.ranges))
    if doubt.loads >= DOUBTING_LOADS:
        return replace(new, ranges=doubt.ranges)
    return replace(together, doubt=doubt)


def _together(some: tuple[Ranges, ...], others: tuple[Ranges, ...]) -> tuple[Ranges, ...]:
    return tuple(merged((*a, *b)) for a, b in zip(some, others, strict=True))


def _encoded(profile: Profile) -> bytes | None:
    """None where it is too large."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "version": profile.version,
        "who": profile.who,
        "grain_bytes": profile.grain_bytes,
        "touched_bytes": profile.touched_bytes,
        "order": profile.order,
        "files": profile.files,
        "ranges": _packed(profile.ranges, profile.grain_bytes),
    }
    packed = [document["ranges"]]
    if profile.doubt is not None:
        ranges = _packed(profile.doubt.ranges, profile.grain_bytes)
        document["doubt"] = {"loads": profile.doubt.loads, "ranges": ranges}
        packed.append(ranges)
    if any(profile.early):
        document["early"] = _packed(profile.early, LEAST_GRAIN_BYTES)
        packed.append(document["early"])
    if None in packed:
        return None
    content = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    return content if len(content) <= MAX_PROFILE_BYTES else None


def _packed(of_files: Sequence[Ranges], grain_bytes: int) -> str | None:
    """None where they are too many."""
    if sum(map(len, of_files)) > MAX_RANGES:
        return None
    numbers = bytearray()
    for ranges in of_files:
        _put(numbers, len(ranges))
        at = 0
        for offset, length in ranges:
            begin = offset // grain_bytes
            count = -(-length // grain_bytes)
            _put(numbers, begin - at)
            _put(numbers, count)
            at = begin + count
    if len(numbers) > _MAX_UNPACKED_BYTES:
        return None
    return base64.b64encode(zlib.compress(bytes(numbers), 6)).decode()


def _put(numbers: bytearray, value: int) -> None:
    while value > 0x7F:
        numbers.append(value & 0x7F | 0x80)
        value >>= 7
    numbers.append(value)


def _numbers(text: str) -> Iterator[int]:
    try:
        unpacking = zlib.decompressobj()
        packed = base64.b64decode(text, validate=True)
        content = unpacking.decompress(packed, _MAX_UNPACKED_BYTES)
    except (ValueError, zlib.error) as error:
        raise ProfileError(f"its ranges cannot be unpacked ({type(error).__name__})") from None
    if not unpacking.eof:
        raise ProfileError("its ranges end early, or are too many")
    value = shift = 0
    for byte in content:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
        elif shift >= 7 * _MOST_NUMBER_BYTES:
            raise ProfileError("a number in its ranges is out of range")
    if shift:
        raise ProfileError("its ranges end within a number")


def _ranges(text: str, grain_bytes: int, sizes: Sequence[int]) -> tuple[Ranges, ...]:
    numbers = _numbers(text)
    found = []
    left = MAX_RANGES
    for size_bytes in sizes:
        count = next(numbers, None)
        if count is None or count > left:
            raise ProfileError("its ranges are not as many as it says, or too many")
        left -= count
        found.append(_ranges_of_file(numbers, count, grain_bytes, size_bytes))
    if next(numbers, None) is not None:
        raise ProfileError("it has more ranges than files")
    return tuple(found)


def _ranges_of_file(
    numbers: Iterator[int], count: int, grain_bytes: int, size_bytes: int
) -> Ranges:
    ranges = []
    at = 0
    for number in range(count):
        gap, grains = next(numbers, None), next(numbers, None)
        if gap is None or not grains or (number and not gap):
            raise ProfileError("a range is missing, empty or not apart from the one before")
        begin = (at + gap) * grain_bytes
        at += gap + grains
        if at > -(-size_bytes // grain_bytes):
            raise ProfileError("a range lies beyond the end of its file")
        ranges.append((begin, min(at * grain_bytes, size_bytes) - begin))
    return tuple(ranges)


def _doubt(entry: object, grain_bytes: int, sizes: Sequence[int]) -> Doubt | None:
    if entry is None:
        return None
    if not isinstance(entry, dict) or not _is_number(entry.get("loads"), 1, DOUBTING_LOADS - 1):
        raise ProfileError("doubt is no object, or its loads are out of range")
    return Doubt(entry["loads"], _ranges(_text(entry, "ranges"), grain_bytes, sizes))


def _early(entry: object, sizes: list[int]) -> tuple[Ranges, ...]:
    if entry is None:
        return ()
    if not isinstance(entry, str):
        raise ProfileError("early is no text")
    early = _ranges(entry, LEAST_GRAIN_BYTES, sizes)
    if not is_small(early):
        raise ProfileError(f"early is more than {MAX_EARLY_BYTES} bytes")
    return early if any(early) else ()


def _file(entry: object) -> tuple[str, int]:
    if isinstance(entry, list) and len(entry) == 2:
        name, size = entry
        if isinstance(name, str) and _is_number(size, 0, 2**63 - 1):
            return name, size
    raise ProfileError("an entry of files is no name and size")


def _is_number(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most  # not isinstance: True is an int


def _list(document: dict[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    if not isinstance(found, list):
        raise ProfileError(f"{name} is no list")
    return found


def _text(document: dict[str, Any], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise ProfileError(f"{name} is no text")
    return found
