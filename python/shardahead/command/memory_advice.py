"""What `doctor` advises where a checkpoint does not fit in memory. Pure functions; no I/O."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from shardahead.command.facts import Facts
from shardahead.command.piece_of_advice import Advice
from shardahead.units import format_bytes

_MIB = 1024**2


def memory_advice(facts: Facts) -> Iterator[Advice]:
    """What to do where not all that is missing fits in memory, or may be brought in."""
    budget, tightest = facts.memory.budget_bytes, facts.memory.tightest
    missing = sum(
        found.size_bytes - (found.resident_bytes or 0)
        for found in facts.mounts
        if found.mount.mount_class != "memory"
    )
    allowed = _allowed_bytes(facts)
    if allowed is not None and allowed < missing and (budget is None or allowed < budget):
        yield Advice(
            f"{format_bytes(missing)} are not resident and SHARDAHEAD_MEMORY_BUDGET_BYTES allows "
            f"{format_bytes(allowed)}: the prefetch keeps to a window, and `shardahead warm` ends "
            "there",
            ("unset SHARDAHEAD_MEMORY_BUDGET_BYTES",),
        )
        return
    if budget is None or tightest is None or missing <= budget:
        return
    problem = (
        f"{format_bytes(missing)} are not resident and {format_bytes(budget)} fit in memory: the "
        "prefetch keeps to a window, and `shardahead warm` ends there"
    )
    if not tightest.source.startswith("/sys/fs/cgroup"):
        yield Advice(problem)
        return
    # The reserve is an eighth of what is free, 256 MiB at least.
    wanted_free = max(missing * 8 // 7, missing + 256 * _MIB)
    wanted = tightest.limit_bytes - tightest.free_bytes + wanted_free
    wanted = -(-wanted // _MIB) * _MIB
    old = f"{tightest.source}/".startswith("/sys/fs/cgroup/memory/")
    names = ["memory.limit_in_bytes"] if old else ["memory.max", "memory.high"]
    files = shlex.join(f"{tightest.source}/{name}" for name in names)
    yield Advice(
        f"{problem}. The limit is that of the cgroup {tightest.source}",
        (f"echo {wanted} | tee {files}",),
        ("where the container or job gets its limit of memory, e.g. docker run --memory",),
        root=True,
    )


def _allowed_bytes(facts: Facts) -> int | None:
    """Beside what the kernel leaves; None where nobody has said so."""
    values = (each.value for each in facts.settings if each.name == "memory_budget_bytes")
    value = next(values, None)
    return value if isinstance(value, int) else None
