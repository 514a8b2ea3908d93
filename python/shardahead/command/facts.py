"""What `shardahead doctor` looks at, gathered: mounts, files, owners, memory, rank, limits.

Looking brings nothing into the page cache; measuring does. It concludes nothing: see advice.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shardahead.checkpoint.shards import Shard
from shardahead.command.damaged_shards import damage_in, damages_in_memory
from shardahead.command.learned_facts import LearnedFacts, learned_facts
from shardahead.command.measure import Measurement, measure
from shardahead.node.filesystems import filesystem_of
from shardahead.node.fuse_queue import FuseQueue, fuse_queue, waiting_requests
from shardahead.node.launcher import LocalTopology
from shardahead.node.limits import Limits, current_limits, owner_name
from shardahead.node.memory import MemoryBudget, memory_budget
from shardahead.node.mounts import Mount, folder_below_mount, mounts_of
from shardahead.node.proactive_reclaim import ProactiveReclaim, proactive_reclaims
from shardahead.node.residency import FileResidency, residency, residency_of
from shardahead.node.stripes import FileStripes, stripes_of
from shardahead.node.topology import local_topology
from shardahead.prefetch.fitted_blocks import fit_blocks
from shardahead.prefetch.options import (
    Setting,
    is_disabled,
    resolve_options,
    settings_in_force,
)


@dataclass(frozen=True)
class MountFacts:
    """One mount with the files that lie on it.

    `resident_bytes` is None where the kernel does not tell it for all files, `residency_reason`
    then says why. `residency_source` is "cachestat", "mincore" or "unknown", `cachestat_errno` why
    cachestat did not answer, or 0. `pending_bytes` is what is there and cannot be used, as far as
    that is known: it is being read, or could not be read. `owners` has the names of the files'
    owners and how many files each has; `untold` is how many files the kernel does not tell this
    user about. `disk` is the name of the block device's disk, or "". `stripes` has the layout of
    each file on Lustre. `filesystem` is its name among those that are known, or "";
    `filesystem_note` what is known of its page cache before anything is measured, or "".
    `fuse_queue` is that of a mount of FUSE; `below` where in the filesystem the files lie.
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
    filesystem: str = ""
    filesystem_note: str = ""
    fuse_queue: FuseQueue | None = None
    below: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known of one checkpoint on this node; `paths` and `selection`, the options that
    choose files, as they were given. `settings` are those in force, with where they come from.
    `reclaims` are the ways by which this kernel takes page cache back although memory is free,
    `learned` what is known of loads that learn; None where the files are not known. `damage` says
    what is wrong with shards that no loader takes.
    """

    paths: tuple[str, ...]
    mounts: tuple[MountFacts, ...]
    memory: MemoryBudget
    topology: LocalTopology
    limits: Limits
    settings: tuple[Setting, ...] = ()
    selection: tuple[str, ...] = ()
    reclaims: tuple[ProactiveReclaim, ...] = ()
    learned: LearnedFacts | None = None
    damage: tuple[str, ...] = ()

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
    selection: Sequence[str] = (),
) -> Facts:
    """Looks at everything, and measures each mount by reading `read_bytes` bytes at most of it, and
    no more than fits in memory; then the headers of all shards, or where nothing may be read of
    those that are in memory. `found` is given each mount as soon as it is known. Raises OSError
    where a file cannot be read, and ValueError for a variable whose value is wrong.
    """
    settings_in_force()  # what is wrong with a variable is said before anything is read
    budget_bytes = memory_budget().budget_bytes
    if budget_bytes is not None:
        read_bytes = min(read_bytes, budget_bytes)
    found = [] if found is None else found
    for mount, on in mounts_of(shards):
        found.append(_mount_facts(mount, on, read_bytes))
    return replace(facts_of(paths, found, selection, shards), damage=_damage(shards, read_bytes))


def facts_of(
    paths: Sequence[str],
    mounts: Sequence[MountFacts],
    selection: Sequence[str] = (),
    shards: Sequence[Shard] = (),
) -> Facts:
    """All there is, with what is known of `mounts` and, as far as they are known, `shards`."""
    topology = local_topology()
    return Facts(
        paths=tuple(paths),
        mounts=tuple(mounts),
        memory=memory_budget(),
        topology=topology,
        limits=current_limits(resolve_options().board_folder, is_disabled()),
        settings=_settings(shards, topology),
        selection=tuple(selection),
        reclaims=proactive_reclaims(),
        learned=learned_facts(resolve_options().learn, shards) if shards else None,
    )


def _settings(shards: Sequence[Shard], topology: LocalTopology) -> tuple[Setting, ...]:
    settings = list(settings_in_force())
    block_bytes = fit_blocks(resolve_options(), shards).block_bytes
    for index, setting in enumerate(settings):
        if setting.name == "block_size" and setting.value != block_bytes:
            settings[index] = replace(setting, value=block_bytes, origin="stripes of the files")
    ranks = (("local_rank", topology.rank), ("local_size", topology.size))
    return (*settings, *(Setting(name, value, topology.source) for name, value in ranks))


def _mount_facts(mount: Mount, shards: Sequence[Shard], read_bytes: int) -> MountFacts:
    found = residency([shard.path for shard in shards])
    untold = [file for file in found if file.resident_bytes is None]
    sources = {file.source for file in untold or found}
    owners = Counter(owner_name(os.stat(shard.path).st_uid, Path("/")) for shard in shards)
    in_memory = mount.mount_class == "memory"
    known = filesystem_of(mount.type, mount.source)
    queue = fuse_queue(mount)
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
        measurement=Measurement(reason="the files are in memory", outcome="in_memory")
        if in_memory
        else measure(shards, read_bytes, waiting_requests(queue)),
        cachestat_errno=next((file.cachestat_errno for file in found if file.cachestat_errno), 0),
        pending_bytes=sum(file.pending_bytes or 0 for file in found),
        filesystem=known.name,
        filesystem_note="has no option that keeps pages" if known.never_keeps else known.forgets,
        fuse_queue=queue,
        below=folder_below_mount(mount, [shard.path for shard in shards]),
    )


def _damage(shards: Sequence[Shard], read_bytes: int) -> tuple[str, ...]:
    if read_bytes and not is_disabled():
        return tuple(text for shard in shards if (text := damage_in(shard.path)))
    return tuple(damages_in_memory([residency_of(shard.path) for shard in shards]).values())


def _sum(files: Sequence[FileResidency]) -> int | None:
    known = [file.resident_bytes for file in files if file.resident_bytes is not None]
    return sum(known) if len(known) == len(files) else None


def _disk_of(device: str) -> str:
    path = os.path.realpath(f"/sys/dev/block/{device}")
    if os.path.exists(os.path.join(path, "partition")):
        path = os.path.dirname(path)
    return os.path.basename(path) if os.path.exists(path) else ""
