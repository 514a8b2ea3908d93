"""Facts of mounts and nodes that are not here, for tests of what `shardahead doctor` makes of them.

Reads nothing but tables of mounts that a test writes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from conftest import MIB

from shardahead import LocalTopology, MemoryBudget, MemoryLimit, Mount, _core
from shardahead.command.advice import advise
from shardahead.command.facts import Facts, MountFacts
from shardahead.command.measure import Measurement, Rate
from shardahead.command.piece_of_advice import Advice
from shardahead.node.filesystems import filesystem_of
from shardahead.node.limits import Limits
from shardahead.prefetch.options import settings_in_force

GIB = 1024 * MIB

NFS = Mount(
    id=36,
    type="nfs4",
    source="filer:/models",
    mount_point="/mnt/my models",
    root="/",
    device="0:53",
    options=("ro", "vers=4.2", "rsize=1048576", "nconnect=4", "proto=tcp"),
    mount_class="network",
    read_ahead_bytes=15 * MIB,
    read_ahead_path="/sys/class/bdi/0:53/read_ahead_kb",
    request_bytes=MIB,
    layers=(),
)
FUSE = replace(
    NFS, type="fuse.x", source="x", options=("rw",), mount_class="user_space", request_bytes=None
)
DISK = replace(
    NFS,
    type="xfs",
    source="/dev/sda1",
    mount_point="/",
    device="8:1",
    options=("rw",),
    mount_class="local",
    request_bytes=None,
    read_ahead_path="/sys/dev/block/8:1/../queue/read_ahead_kb",
)


def rate(strategy: str, threads: int, megabytes_per_second: float) -> Rate:
    used = "populate" if strategy == "auto" else strategy
    return Rate(strategy, used, threads, 100_000_000, 100 / megabytes_per_second, "")


def measured(
    one: float, streams: float, plain: float, kept: int = 300_000_000, **changes: Any
) -> Measurement:
    rates = (rate("auto", 1, one), rate("auto", 4, streams), rate("pread", 1, plain))
    found = Measurement(0.002, 16, *rates, read_bytes=300_000_000, kept_bytes=kept)
    return replace(found, **changes)


def not_measured(outcome: Any, reason: str = "for a reason") -> Measurement:
    return Measurement(reason=reason, outcome=outcome)


def on(mount: Mount, **changes: Any) -> MountFacts:
    known = filesystem_of(mount.type, mount.source)
    found = MountFacts(
        mount=mount,
        files=4,
        size_bytes=4 * GIB,
        resident_bytes=0,
        residency_source="cachestat",
        residency_reason="",
        owners=(("root", 4),),
        untold=0,
        disk="",
        stripes=(),
        measurement=measured(900, 1000, 950),
        filesystem=known.name,
        below="m",
        filesystem_note="has no option that keeps pages" if known.never_keeps else known.forgets,
    )
    return replace(found, **changes)


def facts(*mounts: MountFacts, limits: dict[str, Any] | None = None, **changes: Any) -> Facts:
    machine = MemoryLimit("/proc/meminfo", 64 * GIB, 4 * GIB, 0, 60 * GIB)
    found = Facts(
        paths=("/mnt/my models/m",),
        mounts=mounts or (on(NFS),),
        memory=MemoryBudget(52 * GIB, 8 * GIB, machine, (machine,)),
        topology=LocalTopology(0, 1, "default"),
        limits=Limits(
            kernel="6.8.0-31-generic",
            user="worker",
            seccomp="filter",
            open_files=1024,
            processes=None,
            pids=None,
            board_folder="/dev/shm",
            board_writable=True,
            board_free_bytes=GIB,
            disabled=False,
        ),
        settings=settings_in_force({}),
    )
    return replace(found, limits=replace(found.limits, **(limits or {})), **changes)


def only(found: Facts) -> Advice:
    (advice,) = advise(found)
    return advice


def told_mount(root: Path, line: str, read_ahead_kib: int = 128) -> Mount:
    """The mount that a line of /proc/self/mountinfo tells, as the core reads it below `root`."""
    table = root / "proc/self/mountinfo"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(line + "\n")
    number, device = line.split()[0], line.split()[2]
    read_ahead = root / f"sys/class/bdi/{device}/read_ahead_kb"
    read_ahead.parent.mkdir(parents=True, exist_ok=True)
    read_ahead.write_text(f"{read_ahead_kib}\n")
    core = _core.mount_with_id(int(number), str(root))
    return Mount(
        **{
            name: getattr(core, name)
            for name in Mount.__dataclass_fields__
            if name not in ("options", "layers")
        },
        options=tuple(core.options),
        layers=(),
    )


def told_queue(root: Path, device: str, max_background: int, threshold: int) -> None:
    """Writes what fusectl has of the mount of that device."""
    folder = root / f"sys/fs/fuse/connections/{device.partition(':')[2]}"
    folder.mkdir(parents=True)
    (folder / "max_background").write_text(f"{max_background}\n")
    (folder / "congestion_threshold").write_text(f"{threshold}\n")
    (folder / "waiting").write_text("0\n")
