"""`shardahead doctor`: one page about a checkpoint on this node, for people and as JSON.

The facts come from facts.py and what to change from advice.py; here they are only laid out.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from shardahead.arguments import whole_number
from shardahead.checkpoint.shards import Files, Shard, resolve_shards
from shardahead.command.advice import advise
from shardahead.command.facts import Facts, MountFacts, gather
from shardahead.command.learned_facts import learned_text
from shardahead.command.measure import Measurement, Rate
from shardahead.command.piece_of_advice import Advice
from shardahead.command.wrapped import labelled, labelled_command, labelled_list
from shardahead.environment import meant_by
from shardahead.node.limits import Limits
from shardahead.prefetch.options import Setting
from shardahead.units import counted, format_bytes, format_rate, printable

DEFAULT_READ_BYTES = 256 * 1024**2
_LABEL_WIDTH, _ADVICE_WIDTH = 12, 18
_MEANINGS_OF_0 = {
    "window_bytes": "no limit",
    "rate_limit": "no limit",
    "inflight_bytes": "found by measuring",
}

#: A label, and text or a list.
Row: TypeAlias = tuple[str, "str | tuple[str, ...]"]


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
    selection: Sequence[str] = (),
) -> tuple[Facts, list[Advice]]:
    """The same of shards that are known; `paths` and `selection`, the options that choose files, as
    they were typed.
    """
    facts = gather(paths, shards, read_bytes, found, selection)
    return facts, advise(facts)


def as_dict(facts: Facts, advice: Sequence[Advice]) -> dict[str, Any]:
    """Everything, in types that the json module writes."""
    document: dict[str, Any] = _plain(facts)
    document["unread_variables"] = [
        {"name": printable(name), "meant": meant_by(name)} for name in facts.limits.unread_variables
    ]
    document["advice"] = [_plain(each) for each in advice]
    return document


def as_text(facts: Facts, advice: Sequence[Advice]) -> str:
    """The page for people."""
    rows: list[Row] = [
        ("checkpoint", f"{counted(facts.files, 'file')}, {format_bytes(facts.size_bytes)}")
    ]
    for found in facts.mounts:
        rows += [("", ""), *_mount_rows(found, facts.limits.user)]
    rows += [("", ""), *_memory_rows(facts), *_reclaim_rows(facts), *_rank_rows(facts)]
    if facts.learned is not None and (learned := learned_text(facts.learned)):
        rows += [("learned", learned)]
    rows += [("settings", _settings(facts))]
    rows += _limit_rows(facts.limits)
    lines = [line for label, what in rows for line in _row_lines(label, what)]
    return "\n".join([*lines, "", *_advice_lines(advice)])


def _row_lines(label: str, what: str | tuple[str, ...]) -> list[str]:
    if isinstance(what, tuple):
        return labelled_list(label, what, _LABEL_WIDTH)
    return labelled(label, what, _LABEL_WIDTH)


def _mount_rows(found: MountFacts, user: str) -> Iterator[Row]:
    mount = found.mount
    source = mount.source or "nothing"
    yield "mount", f"{mount.mount_point or 'unknown'}: {mount.type or 'unknown'} from {source}"
    told_by_type = found.filesystem.lower() in mount.type.lower()
    if found.filesystem and (found.filesystem_note or not told_by_type):
        note = f", which {found.filesystem_note}" if found.filesystem_note else ""
        yield "known as", found.filesystem + note
    yield "class", mount.mount_class.replace("_", " ")
    for layer in mount.layers:
        kind = "upper" if layer.upper else "lower"
        yield "layer", f"{kind} {layer.path}: {layer.mount.type or 'not seen from here'}"
    # The layers of an overlay have rows of their own.
    yield (
        "options",
        tuple(o for o in mount.options if not (mount.layers and "dir" in o.split("=")[0])),
    )
    if mount.type in ("nfs", "nfs4"):
        named = {name: mount.option(name) for name in ("vers", "rsize", "nconnect")}
        yield "nfs", ", ".join(f"{name} {value or 'not given'}" for name, value in named.items())
    in_memory = mount.mount_class == "memory"
    ahead = mount.read_ahead_bytes
    known = f"{format_bytes(ahead or 0)} ({mount.read_ahead_path})"
    if ahead is not None or not in_memory:
        yield "readahead", "unknown" if ahead is None else known
    request = mount.request_bytes
    if request is not None or mount.mount_class not in ("local", "memory"):
        yield "request", f"{format_bytes(request)} at most" if request else "size unknown"
    if found.fuse_queue is not None:
        yield "fuse queue", _fuse_queue(found)
    if found.stripes:
        yield "stripes", _stripes(found)
    yield (
        "files",
        f"{counted(found.files, 'file')}, {format_bytes(found.size_bytes)}, {_resident(found)}",
    )
    yield "owners", _owners(found, user)
    yield from _measurement_rows(found.measurement)


def _fuse_queue(found: MountFacts) -> str:
    queue, peak = found.fuse_queue, found.measurement.peak_requests
    if queue is None or queue.max_background is None:
        return f"not told: {queue.reason if queue else ''}"
    text = (
        f"max_background {queue.max_background}, congestion_threshold {queue.congestion_threshold}"
    )
    return text if peak is None else f"{text}; up to {peak} requests waited at once"


def _stripes(found: MountFacts) -> str:
    layouts = Counter((each.stripe_bytes, each.stripe_count) for each in found.stripes)
    return "; ".join(
        f"{counted(files, 'file')} in stripes of {format_bytes(size_bytes)} on "
        f"{counted(count, 'target')}"
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
        reads = counted(measured.latency_reads, "read")
        yield (
            "latency",
            f"{measured.latency_seconds * 1000:.3g} ms, median of {reads} of one page",
        )
    for label, rate in (
        ("1 stream", measured.one_stream),
        ("4 streams", measured.streams),
        ("plain", measured.plain),
    ):
        if rate is not None:
            yield label, _rate(rate)
    if measured.outcome == "failed":  # of which more is said beside the page
        yield "measured", "not all of what was asked for could be read"
    elif measured.reason:
        yield "measured", f"not measured: {measured.reason}"
    if measured.read_bytes:
        yield (
            "measured",
            f"{format_bytes(measured.read_bytes)} read that were not resident; "
            f"{format_bytes(measured.kept_bytes)} more are now",
        )


def _rate(rate: Rate) -> str:
    how = "one reader, pread" if rate.strategy == "pread" else f"Shardahead, {rate.strategy_used}"
    error = "; not all of it came" if rate.error else ""
    return (
        f"{format_rate(rate.bytes_per_second)}, {format_bytes(rate.read_bytes)} in "
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


def _reclaim_rows(facts: Facts) -> Iterator[Row]:
    for found in facts.reclaims:
        rate = found.bytes_per_second
        most = f", {format_rate(rate)} at most" if rate is not None else ""
        when = ", while memory is short" if found.only_when_short else ""
        yield (
            "paged out",
            f"what nothing has used for {found.unused_seconds:.3g} s{most}{when} ({found.source})",
        )


def _rank_rows(facts: Facts) -> Iterator[Row]:
    topology = facts.topology
    yield "local rank", f"{topology.rank} of {topology.size} ({topology.source})"


def _settings(facts: Facts) -> str:
    """Those that are not the defaults; the ranks have a row of their own."""
    ours = [each for each in facts.settings if not each.name.startswith("local_")]
    changed = [each for each in ours if each.origin != "default"]
    if not changed:
        return "the defaults"
    texts = [f"{each.name} {_setting_value(each)} ({each.origin})" for each in changed]
    return f"{', '.join(texts)}; else the defaults"


def _setting_value(setting: Setting) -> str:
    name, value = setting.name, setting.value
    if name == "disable":
        return "on" if value else "off"
    if not isinstance(value, int) or name == "threads":
        return str(value)
    if value == 0 and name in _MEANINGS_OF_0:
        return _MEANINGS_OF_0[name]
    return format_rate(value) if name == "rate_limit" else format_bytes(value)


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
    yield "what to do" if advice else "nothing to change was found"
    for number, each in enumerate(advice, 1):
        yield from labelled(f"{number:>2}.", each.problem, 4)
        now = "now, as root" if each.root else "now"
        for command in each.commands:
            yield from labelled_command(f"    {now}:", command, _ADVICE_WIDTH)
        for line in each.keep:
            to_copy = ".rules: " in line or line.startswith("after each mount")
            layout = labelled_command if to_copy else labelled
            yield from layout("    to keep it:", line, _ADVICE_WIDTH)
        for line in each.instead:
            yield from labelled("    instead:", line, _ADVICE_WIDTH)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Rate):
            fields["bytes_per_second"] = value.bytes_per_second
        return fields
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value
