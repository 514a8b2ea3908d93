"""The figures as tables. Measures and judges nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from rich.table import Table

from figures import print_table, spread
from registration import READ_ONLY_FLAG

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class Load:
    """One load by all processes of a case together."""

    rate_gb_per_s: float
    seconds: float
    set_up_seconds: float  # of it, the longest of all processes: threads, pinned buffers
    cpu_s_per_gib: float
    minor_faults_per_gib: float
    major_faults: int


@dataclass
class WayResult:
    """One way in one case; `warm_up` is the load that does not count."""

    way: str
    warm_up: Load | None = None
    loads: list[Load] = field(default_factory=list)
    problem: str = ""
    wrong_tensors: int | None = None


@dataclass
class CaseResult:
    case: str
    text: str
    ranks: int
    loaded_bytes: int  # by each of them
    results: list[WayResult]


def make_load(answers: Sequence[dict[str, Any]], loaded_bytes: int) -> Load:
    """Of all processes: from the first start to the last end."""
    seconds = max(a["ended"] for a in answers) - min(a["started"] for a in answers)
    total = loaded_bytes * len(answers)
    return Load(
        rate_gb_per_s=total / 1e9 / seconds,
        seconds=seconds,
        set_up_seconds=max(a["set_up_seconds"] for a in answers),
        cpu_s_per_gib=sum(a["cpu_seconds"] for a in answers) * GIB / total,
        minor_faults_per_gib=sum(a["minor_faults"] for a in answers) * GIB / total,
        major_faults=sum(a["major_faults"] for a in answers),
    )


def show_case(result: CaseResult) -> None:
    table = _table(
        f"{result.text}: {result.ranks} x {result.loaded_bytes / GIB:.2f} GiB",
        "way",
        "GB/s",
        "s",
        "set up s",
        "CPU s/GiB",
        "faults/GiB",
        "major faults",
    )
    for found in result.results:
        table.add_row(found.way, *_cells(found))
    print_table(table)
    for found in result.results:
        if found.problem:
            print(f"{found.way}: {found.problem}")
        if found.wrong_tensors:
            print(f"{found.way}: {found.wrong_tensors} tensors are WRONG")


def _cells(found: WayResult) -> list[str]:
    loads = found.loads
    if not loads:
        late = found.problem.startswith("not measured")
        return ["-" if late or not found.problem else "failed", *["-"] * 5]
    return [
        spread([load.rate_gb_per_s for load in loads], 2),
        f"{median(load.seconds for load in loads):.3f}",
        f"{median(load.set_up_seconds for load in loads):.3f}",
        spread([load.cpu_s_per_gib for load in loads], 3),
        f"{median(load.minor_faults_per_gib for load in loads):.0f}",
        f"{median(load.major_faults for load in loads):.0f}",
    ]


def show_limits(found: Sequence[dict[str, Any]]) -> None:
    table = _table("steps", "step", "GB/s", "first", "CPU s/GiB", "faults/GiB")
    for step in found:
        table.add_row(
            step["name"],
            spread(step["rates_gb_per_s"], 1),
            f"{step['first_gb_per_s']:.1f}",
            f"{step['cpu_s_per_gib']:.3f}",
            f"{step['minor_faults_per_gib']:.0f}",
        )
    print_table(table)


def show_registration(found: Sequence[dict[str, Any]]) -> None:
    table = _table(
        "cudaHostRegister of 256 MiB", "memory", "flags", "ms", "copied MiB", "GB/s then"
    )
    for kind in found:
        flags = "read-only" if kind["flags"] == READ_ONLY_FLAG else "default"
        if kind["error"]:
            table.add_row(kind["memory"], flags, kind["error"], "", "")
            continue
        table.add_row(
            kind["memory"],
            flags,
            f"{1000 * kind['register_seconds']:.1f}",
            f"{kind['copied_bytes'] / MIB:.0f}",
            spread(kind["rates_gb_per_s"], 1),
        )
    print_table(table)


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number else "left", no_wrap=True)
    return table
