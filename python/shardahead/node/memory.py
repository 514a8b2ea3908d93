"""How much page cache may be filled without hurting, and how far a prefetch goes because of it.

The sums are the core's (csrc/node/memory_budget.h); here is their public form and the decision.
Reads a few small files of /proc and /sys; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardahead import _core
from shardahead.units import format_bytes


@dataclass(frozen=True)
class MemoryLimit:
    """The memory of one cgroup, or of the machine.

    `source` is the cgroup's folder or "/proc/meminfo". `droppable_bytes` is the part of
    `used_bytes` that the kernel can drop at once: clean page cache. `free_bytes` counts it as free.
    """

    source: str
    limit_bytes: int
    used_bytes: int
    droppable_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class MemoryBudget:
    """What may be filled with page cache, and where that figure comes from.

    `budget_bytes` is what the tightest of `limits` leaves, less `reserve_bytes` for what the load
    itself allocates; None where no limit could be read. The reserve is an eighth of what is free,
    at least 256 MiB, but never more than half of it. `tightest` is None without limits.
    """

    budget_bytes: int | None
    reserve_bytes: int
    tightest: MemoryLimit | None
    limits: tuple[MemoryLimit, ...]

    def text(self) -> str:
        """One line for people and logs."""
        if self.budget_bytes is None or self.tightest is None:
            return "unknown: neither a cgroup nor /proc/meminfo could be read"
        return (
            f"{format_bytes(self.budget_bytes)}: {self.tightest.source} allows "
            f"{format_bytes(self.tightest.limit_bytes)}, "
            f"{format_bytes(self.tightest.free_bytes)} of it are free or droppable, "
            f"{format_bytes(self.reserve_bytes)} are reserved for the load"
        )


def memory_budget() -> MemoryBudget:
    """How much page cache may be filled without hurting, now.

    Looks at MemAvailable and at every cgroup above this process, versions 1 and 2, memory.high
    included. Page cache that can be dropped counts as free: a warm restart is not refused. Never
    raises for what cannot be read; that is no limit.
    """
    return _public(_core.memory_budget(""))


def budget_in_force(given_bytes: int | None) -> int | None:
    """The budget that was given, else the one that `memory_budget()` finds."""
    return memory_budget().budget_bytes if given_bytes is None else given_bytes


def _public(core: _core.MemoryBudget) -> MemoryBudget:
    limits = tuple(
        MemoryLimit(
            limit.source,
            limit.limit_bytes,
            limit.used_bytes,
            limit.droppable_bytes,
            limit.free_bytes,
        )
        for limit in core.limits
    )
    tightest = limits[core.tightest] if limits else None
    return MemoryBudget(core.budget_bytes, core.reserve_bytes, tightest, limits)
