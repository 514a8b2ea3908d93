"""`shardahead doctor`: one page about a checkpoint on this node, for people and as JSON.

The facts come from facts.py and what to change from advice.py; here they are only laid out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from shardahead.arguments import whole_number
from shardahead.checkpoint.shards import Files, Shard, resolve_shards
from shardahead.command.advice import Advice, advise
from shardahead.command.facts import Facts, MountFacts, gather
from shardahead.command.measure import Measurement, Rate
from shardahead.node.limits import Limits
from shardahead.units import format_bytes, printable

DEFAULT_READ_BYTES = 256 * 1024**2
_LABEL_WIDTH = 12

Row = tuple[str, str]


def examine(
    files: Files, read_bytes: int = DEFAULT_READ_BYTES, found: list[MountFacts] | None = None
) -> tuple[Facts, list[Advice]]:
    """What is found about `files`, and what to change. Reads `read_bytes` of each mount at most,
    which then are resident; `found` is given each mount as soon as it is known. Raises as
    `prefetch_files` does.
    """
    read_bytes = whole_number("read_bytes", read_bytes)
    shards = resolve_shards(files)
    paths = [files] if isinstance(files, str) else [shard.path for shard in shards]
    return examine_shards(paths, shards, read_bytes, found)


def examine_shards(
    paths: Sequence[str],
    shards: Sequence[Shard],
    read_bytes: int,
    found: list[MountFacts] | None = None,
) -> tuple[Facts, list[Advice]]:
    """The same of shards that are known; `paths`: as they were typed."""
    facts = gather(paths, shards, read_bytes, found)
    return facts, advise(facts)


def as_dict(facts: Facts, advice: Sequence[Advice]) -> dict[str, Any]:
    """Everything, in types that the json module writes."""
    document: dict[str, Any] = _plain(facts)
    document["advice"] = [_plain(each) for each in advice]
    return document


def as_text(facts: Facts, advice: Sequence[Advice]) -> str:
    """The page for people."""
    rows: list[Row] = [("checkpoint", f"{_files(facts.files)}, {format_bytes(facts.size_bytes)}")]
    for found in facts.mounts:
        rows += [("", ""), *_mount_rows(found, facts.limits.user)]
    rows += [("", ""), *_memory_rows(facts), *_rank_rows(facts), *_limit_rows(facts.limits)]
    lines = [f"{label:<{_LABEL_WIDTH}}{printable(text)}".rstrip() for label, text in rows]
    return "\n".join([*lines, "", *map(printable, _advice_lines(advice))])


def _mount_rows(found: MountFacts, user: str) -> Iterator[Row]:
    mount = found.mount
    source = mount.source or "nothing"
    yield "mount", f"{mount.mount_point or 'unknown'}: {mount.type or 'unknown'} from {source}"
    yield "class", mount.mount_class.replace("_", " ")
    for layer in mount.layers:
        kind = "upper" if layer.upper else "lower"
        yield "layer", f"{kind} {layer.path}: {layer.mount.type or 'not seen from here'}"
    yield "options", ",".join(mount.options)
    if mount.type in ("nfs", "nfs4"):
        named = {name: mount.option(name) for name in ("vers", "rsize", "nconnect")}
        yield "nfs", ", ".join(f"{name} {value or 'not given'}" for name, value in named.items())
    ahead = mount.read_ahead_bytes
    known = f"{format_bytes(ahead or 0)} ({mount.read_ahead_path})"
    yield "readahead", "unknown" if ahead is None else known
    request = mount.request_bytes
    if request is not None or mount.mount_class != "local":
        yield "request", f"{format_bytes(request)} at most" if request else "size unknown"
    if found.stripes:
        yield "stripes", _stripes(found)
    yield "files", f"{_files(found.files)}, {format_bytes(found.size_bytes)}, {_resident(found)}"
    yield "owners", _owners(found, user)
    yield from _measurement_rows(found.measurement)


def _stripes(found: MountFacts) -> str:
    layouts = Counter((each.stripe_bytes, each.stripe_count) for each in found.stripes)
    return "; ".join(
        f"{_files(files)} in stripes of {format_bytes(size_bytes)} on {count} "
        f"target{'' if count == 1 else 's'}"
        for (size_bytes, count), files in sorted(layouts.items())
    )


def _resident(found: MountFacts) -> str:
    if found.resident_bytes is None:
        return f"residency unknown: {found.residency_reason}"
    source = found.residency_source
    if found.mount.type == "overlay" and source == "mincore":
        source += "; of an overlay cachestat tells nothing"
    text = f"{format_bytes(found.resident_bytes)} resident ({source})"
    if found.pending_bytes:
        text += f"; {format_bytes(found.pending_bytes)} more are being read, or could not be read"
    return text


def _owners(found: MountFacts, user: str) -> str:
    owners = ", ".join(f"{name} {count}" for name, count in found.owners)
    told = "the kernel tells what is resident"
    if found.untold:
        told = f"the kernel does not tell what is resident of {found.untold}"
    return f"{owners}; to {user} {told}"


def _measurement_rows(measured: Measurement) -> Iterator[Row]:
    if measured.latency_seconds is not None:
        reads = "read" if measured.latency_reads == 1 else "reads"
        yield (
            "latency",
            f"{measured.latency_seconds * 1000:.3g} ms, median of {measured.latency_reads} {reads} "
            "of one page",
        )
    for label, rate in (
        ("1 stream", measured.one_stream),
        ("4 streams", measured.streams),
        ("plain", measured.plain),
    ):
        if rate is not None:
            yield label, _rate(rate)
    if measured.reason:
        yield "measured", f"not measured: {measured.reason}"
    if measured.read_bytes:
        yield (
            "measured",
            f"{format_bytes(measured.read_bytes)} that were not resident; by now "
            f"{format_bytes(measured.kept_bytes)} more are, and stay so",
        )


def _rate(rate: Rate) -> str:
    how = "one reader, pread" if rate.strategy == "pread" else f"Shardahead, {rate.strategy_used}"
    error = f"; {rate.error}" if rate.error else ""
    return (
        f"{rate.bytes_per_second / 1e6:.0f} MB/s, {format_bytes(rate.read_bytes)} in "
        f"{rate.seconds:.2f} s ({how}){error}"
    )


def _memory_rows(facts: Facts) -> Iterator[Row]:
    yield "memory", facts.memory.text()
    for limit in facts.memory.limits:
        yield (
            "",
            f"{limit.source}: {format_bytes(limit.used_bytes)} of "
            f"{format_bytes(limit.limit_bytes)} used, {format_bytes(limit.droppable_bytes)} "
            f"droppable, {format_bytes(limit.free_bytes)} free",
        )


def _rank_rows(facts: Facts) -> Iterator[Row]:
    topology = facts.topology
    yield "local rank", f"{topology.rank} of {topology.size} ({topology.source})"


def _limit_rows(limits: Limits) -> Iterator[Row]:
    yield "kernel", f"Linux {limits.kernel}, seccomp {limits.seccomp}"
    most = "no limit" if limits.open_files is None else str(limits.open_files)
    processes = "no limit" if limits.processes is None else str(limits.processes)
    pids = limits.pids
    cgroup = f", {pids.used} of {pids.limit} in {pids.source}" if pids else ""
    yield "limits", f"open files {most}; processes {processes}{cgroup}"
    free = "unknown" if limits.board_free_bytes is None else format_bytes(limits.board_free_bytes)
    state = "writable" if limits.board_writable else "not writable"
    yield "board", f"{limits.board_folder}: {state}, {free} free"


def _advice_lines(advice: Sequence[Advice]) -> Iterator[str]:
    yield "what to change" if advice else "nothing to change was found"
    for number, each in enumerate(advice, 1):
        yield f"{number:>2}. {each.problem}"
        now = "now, as root" if each.root else "now"
        for label, lines in ((now, each.commands), ("to keep it", each.keep)):
            for line in lines:
                yield f"    {label + ':':<{_LABEL_WIDTH + 2}}{line}"


def _files(count: int) -> str:
    return f"{count} file" if count == 1 else f"{count} files"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Rate):
            fields["bytes_per_second"] = value.bytes_per_second
        return fields
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return printable(value) if isinstance(value, str) else value
