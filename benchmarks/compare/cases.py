"""The conditions under which all methods load, and the presets of them. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One set of conditions under which all methods load."""

    name: str = "options"
    ranks: int = 4
    shards: int = 8
    size_mib: int = 256
    rate_mb_per_s: float = 300.0
    round_trip_ms: float = 1.0
    seek_ms: float = 0.0
    max_background: int = 64
    congestion_threshold: int | None = None
    readahead_kib: int = 128
    keep_cache: bool = True
    direct_io: bool = False
    slices: bool = False
    job_ranks: int | None = None
    experts: int | None = None
    work_s_per_gib: float = 0.0
    kill_rank: int | None = None
    kill_after: float = 0.33
    resident: bool = False
    memory_mib: int | None = None
    hog_mib: int | None = None
    window_mib: int | None = None

    def text(self) -> str:
        """The conditions in one line."""
        files = f"{self.shards} x {self.size_mib} MiB"
        if self.resident:
            return f"{files}, all resident"
        parts = [files, f"{self.rate_mb_per_s:g} MB/s", f"{self.round_trip_ms:g} ms"]
        if self.seek_ms:
            parts.append(f"{self.seek_ms:g} ms per seek")
        if self.max_background != Case.max_background or self.congestion_threshold is not None:
            threshold = self.congestion_threshold or "3/4"
            parts.append(f"max_background {self.max_background}, congestion_threshold {threshold}")
        if self.readahead_kib != Case.readahead_kib:
            parts.append(f"readahead {self.readahead_kib} KiB")
        if not self.keep_cache:
            parts.append("no keep_cache")
        if self.direct_io:
            parts.append("direct_io")
        return f"{', '.join(parts)}; {self.behaviour()}"

    def behaviour(self) -> str:
        """What the ranks do, wherever they load from."""
        parts = [f"{self.ranks} ranks"]
        if self.slices:
            parts.append("slices")
        if self.job_ranks is not None:
            parts.append(f"the first of {self.job_ranks} in all")
        if self.experts is not None:
            parts.append(f"of the experts the first {self.experts} alone")
        if self.work_s_per_gib:
            parts.append(f"{self.work_s_per_gib:g} s/GiB of work")
        if self.memory_mib is not None:
            parts.append(f"{self.memory_mib} MiB of memory")
        if self.hog_mib is not None:
            parts.append(f"a hog of up to {self.hog_mib} MiB")
        if self.window_mib is not None:
            parts.append(f"a window of {self.window_mib} MiB")
        if self.kill_rank is not None:
            parts.append(f"rank {self.kill_rank} killed after {self.kill_after:g}")
        return ", ".join(parts)


_RANKS = Case("ranks")
_LARGE = Case("large", shards=16, rate_mb_per_s=500)
_SMALL = Case("small-tensors", ranks=8, shards=2, size_mib=64)
_MEMORY = replace(_LARGE, name="memory", ranks=2, memory_mib=2750)
PRESETS = {
    case.name: case
    for case in (
        _RANKS,
        Case("one-file", shards=1, size_mib=2048, round_trip_ms=10),
        replace(_LARGE, name="work", work_s_per_gib=1.5),
        replace(_LARGE, name="slices", slices=True),
        replace(_RANKS, name="node-slices", slices=True, job_ranks=8),
        replace(_RANKS, name="node-experts", ranks=2, experts=2),
        replace(_RANKS, name="kill", kill_rank=0),
        replace(_RANKS, name="queue", max_background=12, congestion_threshold=9),
        Case("disk", size_mib=64, rate_mb_per_s=100, round_trip_ms=0.1, seek_ms=8),
        _SMALL,
        replace(_SMALL, name="small-tensors-window", window_mib=64),
        Case("resident", ranks=1, shards=40, resident=True),
        _MEMORY,
        replace(_MEMORY, name="memory-one-file", shards=1, size_mib=4096),
        replace(_MEMORY, name="memory-work", work_s_per_gib=1.5),
        replace(_MEMORY, name="memory-hog", hog_mib=1024),
    )
}
