"""The ways to bring tensors to a device that are compared: a pure table. Loads nothing.

A way is where tensors come from, and how their bytes go to the device: "mmap:staged4". README.md
says what each of them does.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Where tensors, or their bytes, come from.
SOURCES = ("load_file", "safe_open", "mmap", "pread", "files")
#: How they go to the device. What ends in a number takes that many threads.
COPIES = ("skip", "none", "to", "copy", "populate", "threads", "staged", "pinned", "registered")
#: Copies that only a CUDA device has.
CUDA_COPIES = ("pinned", "registered")
#: Copies into memory of torch's allocator and not into parameters that are there before.
ALLOCATING_COPIES = ("none", "to")


@dataclass(frozen=True)
class Way:
    source: str
    copy: str
    threads: int = 1

    @property
    def name(self) -> str:
        threads = str(self.threads) if self.copy in ("threads", "staged") else ""
        return f"{self.source}:{self.copy}{threads}"


def way_named(name: str) -> Way:
    """Raises ValueError for what is none."""
    source, _, text = name.partition(":")
    copy = text.rstrip("0123456789")
    digits = text[len(copy) :]
    way = Way(source, copy, int(digits) if digits else 1)
    reads_files = way.copy == "staged"
    places = way.copy == "none"
    if (
        source not in SOURCES
        or copy not in COPIES
        or way.name != name
        or not 1 <= way.threads <= 64
        or (source == "files" and not reads_files)
        or (source == "safe_open") != places
    ):
        raise ValueError(f"no way {name!r}: README.md lists them")
    return way


def _ways(*names: str) -> tuple[Way, ...]:
    return tuple(way_named(name) for name in names)


RESIDENT_WAYS = _ways(
    "load_file:to",
    "load_file:copy",
    "load_file:staged4",
    "safe_open:none",
    "mmap:skip",
    "mmap:to",
    "mmap:copy",
    "mmap:populate",
    "mmap:threads4",
    "mmap:staged1",
    "mmap:staged4",
    "mmap:staged8",
    "mmap:pinned",
    "pread:skip",
    "pread:copy",
    "pread:staged4",
    "files:staged4",
    "files:staged8",
    "files:staged16",
)
SMALL_WAYS = _ways(
    "load_file:to",
    "load_file:copy",
    "load_file:staged4",
    "safe_open:none",
    "mmap:skip",
    "mmap:copy",
    "mmap:threads4",
    "mmap:staged1",
    "mmap:staged4",
    "mmap:pinned",
    "pread:skip",
    "pread:copy",
    "pread:staged4",
    "files:staged4",
)
COLD_WAYS = _ways(
    "load_file:to", "safe_open:none", "mmap:copy", "mmap:staged4", "pread:copy", "files:staged4"
)
RANKS_WAYS = _ways(
    "load_file:to",
    "safe_open:none",
    "mmap:copy",
    "mmap:staged4",
    "pread:copy",
    "pread:staged4",
    "files:staged4",
)
# Beside none of the others: a driver may hold whoever asks for it.
REGISTERED_WAYS = _ways("mmap:copy", "mmap:registered")


@dataclass(frozen=True)
class Case:
    """Which files, in which state, by how many processes at once, each of which loads them all."""

    name: str
    text: str
    ways: tuple[Way, ...]
    small: bool = False
    cold: bool = False
    several: bool = False


CASES = {
    case.name: case
    for case in (
        Case("resident", "large tensors, resident, one process", RESIDENT_WAYS),
        Case("small", "small tensors, resident, one process", SMALL_WAYS, small=True),
        Case("cold", "large tensors, cold, one process", COLD_WAYS, cold=True),
        Case("ranks", "large tensors, resident, several processes", RANKS_WAYS, several=True),
        Case("registered", "large tensors, resident, page-locked in place", REGISTERED_WAYS),
    )
}
