"""One record a load, and what all loads of one method in one case come to. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cases import Case
from cut import GIB
from launch import Outcome


@dataclass(frozen=True)
class Load:
    """One load by all ranks. What could not be measured is None, and `problem` says why."""

    seconds: float | None
    problem: str = ""
    note: str = ""
    ratio: float | None = None
    served_bytes: int | None = None
    served_ratio: float | None = None
    rank_seconds: list[float] = field(default_factory=list)
    major_faults: list[int] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    switches: list[int] = field(default_factory=list)
    waited_seconds: list[float] = field(default_factory=list)
    prefetch_cpu_s_per_gib: float | None = None
    ranks: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class MethodResult:
    """One method in one case: its loads, or why it is not installed."""

    method: str
    not_installed: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    loads: list[Load] = field(default_factory=list)
    verified: str = ""

    def values(self, name: str) -> list[float]:
        """One figure of every load that has it."""
        found = (getattr(load, name) for load in self.loads)
        return [value for value in found if value is not None]

    def sums(self, name: str) -> list[float]:
        """The sum over the ranks of one figure, for every load that has it."""
        return [sum(getattr(load, name)) for load in self.loads if getattr(load, name)]

    def problem(self) -> str:
        """The first thing that went wrong; nothing where every load ended well."""
        return next((load.problem for load in self.loads if load.problem), "")


@dataclass
class CaseResult:
    """One case: what was loaded, and what each method made of it. `wanted_bytes` of the files are
    those that some rank wants a part of (cut.py), in ratio to which all is told.
    """

    case: Case
    command: str
    conditions: str
    file_bytes: int
    wanted_bytes: int
    link_seconds: float | None
    counted: str
    methods: list[MethodResult] = field(default_factory=list)


def link_seconds(
    wanted_bytes: int, rate_mb_per_s: float | None, round_trip_ms: float
) -> float | None:
    """What the link needs for them: the bytes at its rate, and one round trip."""
    if not rate_mb_per_s:
        return None
    return wanted_bytes / (rate_mb_per_s * 1e6) + round_trip_ms / 1e3


def make_load(
    outcome: Outcome, wanted_bytes: int, link: float | None, served_bytes: int | None, note: str
) -> Load:
    """The record of one load."""
    seconds, ranks = outcome.seconds, outcome.ranks
    reports = [rank["report"] for rank in ranks if rank["report"] is not None]
    prefetch_cpu = sum(report["cpu_seconds"] for report in reports)
    return Load(
        seconds=seconds,
        problem=outcome.problem,
        note=note,
        ratio=seconds / link if seconds is not None and link else None,
        served_bytes=served_bytes,
        served_ratio=None if served_bytes is None else served_bytes / wanted_bytes,
        rank_seconds=[rank["seconds"] for rank in ranks if "seconds" in rank],
        major_faults=[rank["major_faults"] for rank in ranks],
        cpu_seconds=[rank["cpu_seconds"] for rank in ranks],
        switches=[rank["voluntary_switches"] + rank["involuntary_switches"] for rank in ranks],
        waited_seconds=[report["waited_seconds"] for report in reports],
        prefetch_cpu_s_per_gib=prefetch_cpu / (wanted_bytes / GIB) if reports else None,
        ranks=[{key: rank[key] for key in rank if key != "checksums"} for rank in ranks],
    )
