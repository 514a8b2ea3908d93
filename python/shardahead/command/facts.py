"""What `shardahead doctor` looks at, gathered: mounts, files, owners, memory, rank, limits.

Looking brings nothing into the page cache; measuring does. It concludes nothing: see advice.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shardahead.checkpoint.shards import Shard
from shardahead.command.measure import Measurement, measure
from shardahead.node.launcher import LocalTopology
from shardahead.node.limits import Limits, current_limits, owner_name
from shardahead.node.memory import MemoryBudget, memory_budget
from shardahead.node.mounts import Mount, mounts_of
from shardahead.node.residency import FileResidency, residency
from shardahead.node.stripes import FileStripes, stripes_of
from shardahead.node.topology import local_topology
from shardahead.prefetch.options import is_disabled, resolve_options


@dataclass(frozen=True)
class MountFacts:
    """One mount with the files that lie on it.

    `resident_bytes` is None where the kernel does not tell it for all files, `residency_reason`
    then says why. `residency_source` is "cachestat", "mincore" or "unknown", `cachestat_errno` why
    cachestat did not answer, or 0. `pending_bytes` is what is there and cannot be used, as far as
    that is known: it is being read, or could not be read. `owners` has the names of the files'
    owners and how many files each has; `untold` is how many files the kernel does not tell this
    user about. `disk` is the name of the block device's disk, or "". `stripes` has the layout of
    each file on Lustre.
    """

    mount: Mount
    files: int
    size_bytes: int
    resident_bytes: int | None
    residency_source: str
    residency_reason: str
    owners: tuple[tuple[str, int], ...]
    untold: int
    disk: str
    stripes: tuple[FileStripes, ...]
    measurement: Measurement
    cachestat_errno: int = 0
    pending_bytes: int = 0


@dataclass(frozen=True)
class Facts:
    """All that is known of one checkpoint on this node; `paths` as they were given."""

    paths: tuple[str, ...]
    mounts: tuple[MountFacts, ...]
    memory: MemoryBudget
    topology: LocalTopology
    limits: Limits

    @property
    def files(self) -> int:
        return sum(found.files for found in self.mounts)

    @property
    def size_bytes(self) -> int:
        return sum(found.size_bytes for found in self.mounts)


def gather(
    paths: Sequence[str],
    shards: Sequence[Shard],
    read_bytes: int,
    found: list[MountFacts] | None = None,
) -> Facts:
    """Looks at everything, and measures each mount by reading `read_bytes` bytes at most of it, and
    no more than fits in memory. `found` is given each mount as soon as it is known. Raises OSError
    where a file cannot be read.
    """
    budget_bytes = memory_budget().budget_bytes
    if budget_bytes is not None:
        read_bytes = min(read_bytes, budget_bytes)
    found = [] if found is None else found
    for mount, on in mounts_of(shards):
        found.append(_mount_facts(mount, on, read_bytes))
    return facts_of(paths, found)


def facts_of(paths: Sequence[str], mounts: Sequence[MountFacts]) -> Facts:
    """All there is, with what is known of `mounts`."""
    return Facts(
        paths=tuple(paths),
        mounts=tuple(mounts),
        memory=memory_budget(),
        topology=local_topology(),
        limits=current_limits(resolve_options().board_folder, is_disabled()),
    )


def _mount_facts(mount: Mount, shards: Sequence[Shard], read_bytes: int) -> MountFacts:
    found = residency([shard.path for shard in shards])
    untold = [file for file in found if file.resident_bytes is None]
    sources = {file.source for file in untold or found}
    owners = Counter(owner_name(os.stat(shard.path).st_uid, Path("/")) for shard in shards)
    in_memory = mount.mount_class == "memory"
    return MountFacts(
        mount=mount,
        files=len(shards),
        size_bytes=sum(shard.size_bytes for shard in shards),
        resident_bytes=_sum(found),
        residency_source=", ".join(sorted(sources)),
        residency_reason=untold[0].reason if untold else "",
        owners=tuple(owners.most_common()),
        untold=len(untold),
        disk=_disk_of(mount.device),
        stripes=stripes_of(shards) if mount.type == "lustre" else (),
        measurement=Measurement(reason="the files are in memory")
        if in_memory
        else measure(shards, read_bytes),
        cachestat_errno=next((file.cachestat_errno for file in found if file.cachestat_errno), 0),
        pending_bytes=sum(file.pending_bytes or 0 for file in found),
    )


def _sum(files: Sequence[FileResidency]) -> int | None:
    known = [file.resident_bytes for file in files if file.resident_bytes is not None]
    return sum(known) if len(known) == len(files) else None


def _disk_of(device: str) -> str:
    path = os.path.realpath(f"/sys/dev/block/{device}")
    if os.path.exists(os.path.join(path, "partition")):
        path = os.path.dirname(path)
    return os.path.basename(path) if os.path.exists(path) else ""
