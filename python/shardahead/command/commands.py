"""What `warm`, `plan` and `doctor` do, and how they show what they found.

Each takes what cli.py parsed and returns the exit status. One thread, which signals interrupt
(endings.py): what may wait for storage is done by another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from shardahead import _core
from shardahead.checkpoint.shards import Shard
from shardahead.command.advice import advise
from shardahead.command.after_close import lost_by_close
from shardahead.command.damaged_shards import damage_of
from shardahead.command.doctor import as_dict, as_text, examine_shards
from shardahead.command.endings import interruptibly, reason_of
from shardahead.command.error_meanings import why_incomplete
from shardahead.command.facts import Facts, MountFacts, facts_of
from shardahead.command.failure_text import failure_text
from shardahead.command.json_documents import json_text
from shardahead.command.learned_picture import draw
from shardahead.command.learned_screen import learned_document, learned_page, profiles_of
from shardahead.command.plan_screen import plan_details, plan_line, planned_shards
from shardahead.command.progress_shown import wait_showing
from shardahead.command.results import DONE, finish
from shardahead.command.standard_streams import complain, show
from shardahead.command.tables import showable
from shardahead.command.typed_files import selection_of, shards_of
from shardahead.command.warm_beside import WarmBeside
from shardahead.command.warm_options import doubtful_rate
from shardahead.command.warm_result import (
    is_of_the_node,
    result_line,
    tells_for_the_node,
    tells_why,
)
from shardahead.node.launcher import LocalTopology
from shardahead.node.mounts import memory_types
from shardahead.node.page_keeping import forgetting
from shardahead.node.residency import residency_of
from shardahead.node.topology import local_topology
from shardahead.prefetch.consumer import PrefetchConsumer
from shardahead.prefetch.fitted_blocks import fit_blocks
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import Options, PrefetchOptions, is_disabled, resolve_options
from shardahead.prefetch.report import Report
from shardahead.prefetch.start import start_prefetch
from shardahead.units import format_bytes

_INTERRUPT_WAIT_SECONDS = 0.3


def warm(options: argparse.Namespace) -> int:
    beside = WarmBeside(options)
    complete = False
    try:
        status = _warm(options, beside)
        complete = status == DONE
    finally:
        beside.close(complete=complete)
    return status


def _warm(options: argparse.Namespace, beside: WarmBeside) -> int:
    handle: PrefetchHandle | None = None
    report: Report | None = None
    ended: KeyboardInterrupt | None = None
    after: int | None = None
    note = ""
    damage: str | None = None
    unusable: OSError | None = None
    lost: str | None = None
    try:
        handle = interruptibly(partial(_start, options, beside))
        beside.started(handle)
        told = tells_for_the_node(handle.report())
        wait_showing(handle, quiet=options.quiet or options.json or not told)
        if handle.report().incomplete_reason() is None:
            try:
                after, note = interruptibly(partial(_seen_after, handle, stays=options.keep))
                # What is still being written, and followed, ends anywhere.
                if told and not options.follow:
                    damage = interruptibly(partial(damage_of, handle.shards))
            except OSError as error:
                unusable = error
        report = handle.report()
        if beside.wants_to_stay(report):
            text = _warm_text(report, note, options)
            if text and not options.json:
                show(text)
            if damage:
                complain(damage)
            handle = None  # and so are its files closed
            beside.stay(report, unusable, _too_few(report, after))
        elif after is not None and unusable is None and _too_few(report, after) is None:
            shards = handle.shards
            handle = None
            beside.over(report)
            lost = interruptibly(partial(lost_by_close, shards))
    except KeyboardInterrupt as error:
        ended = beside.ended_by(error)
        if handle is not None:
            handle.stop(timeout=_INTERRUPT_WAIT_SECONDS)
            report = handle.report()
        elif report is None:
            raise  # nothing was begun
    reason = reason_of(ended) if ended else _why_incomplete(report, after) or damage or lost
    if unusable is not None and reason is None:
        reason = interruptibly(partial(failure_text, unusable))
    if beside.stayed and ended is None:
        reason = beside.why_incomplete()
    if options.json:
        document = {
            **report.to_dict(),
            "complete": report.complete and lost is None,
            **beside.fields(),
            "resident_after_bytes": after,
            "reason": reason,
        }
        text = json_text("warm", document)
    elif beside.stayed:
        text = beside.text() if tells_for_the_node(report) else ""
    else:
        text = _warm_text(report, note, options)
    # Of a stay the reason may be of this rank alone: what it could not lock, say.
    complains = tells_why(report) or beside.stayed or ended is not None
    return finish(text, reason, ended, complains=complains)


def _warm_text(report: Report, note: str, options: argparse.Namespace) -> str:
    """Nothing of a rank that does not tell for its node, unless each is to tell."""
    asked_by = "--rate-limit" if options.rate_limit is not None else "SHARDAHEAD_RATE_LIMIT"
    lines = []
    if tells_for_the_node(report):
        lines.append(result_line(report, note, rate_limit=asked_by))
    return "\n".join([*lines, *([report.text()] if options.verbose else [])])


def _start(options: argparse.Namespace, beside: WarmBeside) -> PrefetchHandle:
    chosen = resolve_options(
        Options(
            threads=options.threads,
            block_size=options.block_size,
            strategy=options.strategy,
            partition=options.partition,
            window_bytes=0 if options.force else None,
            inflight_bytes=options.inflight,
            rate_limit=options.rate_limit,
        )
    )
    if is_disabled() and options.shows:
        complain("SHARDAHEAD_DISABLE is set, which is for loads: this command reads all the same")
    if options.shows and (doubt := doubtful_rate(options.rate_limit)):
        complain(doubt)
    where = local_topology(local_rank=options.local_rank, local_size=options.local_size)
    shards = beside.shards(where, chosen)
    spans = [None] * len(shards)
    return start_prefetch(
        shards,
        chosen,
        where,
        spans=spans,
        consumer=False,
        even_disabled=True,
        logs_end=False,
        entry="warm",
    )


def _seen_after(handle: PrefetchHandle, *, stays: bool) -> tuple[int | None, str]:
    note = _in_memory(handle)
    return _resident_after(handle), note if stays else note + _forgetting(handle)


def _in_memory(handle: PrefetchHandle) -> str:
    """A word about files of which nothing can be brought in, where all are."""
    paths = [shard.path for shard in handle.shards]
    kinds = memory_types(paths)
    if len(kinds) < len(paths):
        return ""
    return f"; the files live in memory ({', '.join(sorted(set(kinds.values())))})"


def _forgetting(handle: PrefetchHandle) -> str:
    """A word about filesystems on which what is warm now is not for long."""
    found = forgetting([shard.path for shard in handle.shards])
    return "".join(f"; {each}: --keep keeps them warm" for each in found)


def _why_incomplete(report: Report, resident_after_bytes: int | None) -> str | None:
    reason = why_incomplete(report)
    if reason and report.left_out_bytes and report.window_source == "memory":
        reason += "; --force reads on"
    return _too_few(report, resident_after_bytes) or reason


def _too_few(report: Report, resident_after_bytes: int | None) -> str | None:
    if resident_after_bytes is None or resident_after_bytes >= report.planned_bytes // 2:
        return None
    return (
        f"only {format_bytes(resident_after_bytes)} of {format_bytes(report.planned_bytes)} "
        "stayed in the page cache: memory is short, or this mount does not keep pages"
    )


def _resident_after(handle: PrefetchHandle) -> int | None:
    """What is resident once all is done, for the rank that tells for its node; None where it cannot
    be told.

    Waits for pages that are still being read. Raises OSError for the first that cannot be read: it
    stays in the page cache, where it was taken for resident.
    """
    report = handle.report()
    told = tells_for_the_node(report) and is_of_the_node(report)
    if not told or report.planned_bytes == 0:
        return None
    total = 0
    for index, shard in enumerate(handle.shards):
        file = residency_of(shard.path)
        if file.resident_bytes is None:
            return None
        total += file.resident_bytes
        if file.pending_bytes:
            PrefetchConsumer(handle).fetch_now(index, 0, file.size_bytes)
            total += file.pending_bytes
    return total


def plan(options: argparse.Namespace) -> int:
    return finish(interruptibly(partial(_plan_text, options)), None)


def _plan_text(options: argparse.Namespace) -> str:
    if options.picture is not None and not (options.picture and options.learned):
        raise ValueError("--picture takes the name of a file, and goes with --learned")
    shards = shards_of(options)
    chosen = fit_blocks(
        resolve_options(Options(block_size=options.block_size, partition=options.partition)),
        shards,
    )
    where = local_topology(local_rank=options.local_rank, local_size=options.local_size)
    # A share of its own each rank tells.
    shows = options.shows or chosen.partition != "dynamic"
    sizes = [shard.size_bytes for shard in shards]
    spans = [None] * len(sizes)
    blocks = _core.plan_blocks(sizes, spans, chosen.block_bytes)
    # Who claims what is not known before; a fixed share is.
    share = list(range(len(blocks)))
    if chosen.partition != "dynamic":
        share = _core.plan_share(
            sizes, spans, chosen.block_bytes, chosen.partition, where.rank, where.size
        )
    learned = profiles_of(options.learned, shards) if options.learned else []
    if not shows:
        return ""
    if options.picture is not None and options.shows:
        draw([profile for _, profile in learned], options.picture)
    if not options.json:
        page = _plan_page(options, shards, blocks, share, chosen, where)
        lines = learned_page([p for _, p in learned], shards, each=options.each)
        return "\n".join([page, *(["", *lines] if lines else [])])
    document = {
        "size_bytes": sum(sizes),
        "block_bytes": chosen.block_bytes,
        "partition": chosen.partition,
        "local_rank": where.rank,
        "local_size": where.size,
        "topology_source": where.source,
        "files": [{"path": s.path, "size_bytes": s.size_bytes} for s in shards],
        "blocks": [
            {"file": file, "offset": offset, "length": length} for file, offset, length in blocks
        ],
        "share": share,
        **({"learned": [learned_document(*each) for each in learned]} if learned else {}),
    }
    return json_text("plan", document)


def _plan_page(
    options: argparse.Namespace,
    shards: Sequence[Shard],
    blocks: Sequence[tuple[int, int, int]],
    share: Sequence[int],
    chosen: PrefetchOptions,
    where: LocalTopology,
) -> str:
    counts = [0] * len(shards)
    for file, _, _ in blocks:
        counts[file] += 1
    sizes = [shard.size_bytes for shard in shards]
    mine = sum(blocks[index][2] for index in share)
    paths = [shard.path for shard in shards]
    return "\n".join(
        [
            plan_line(sum(sizes), len(blocks), chosen, where, len(share), mine),
            *planned_shards(paths, sizes, counts, each=options.each),
            *(["", plan_details(chosen, where)] if options.verbose else []),
        ]
    )


def doctor(options: argparse.Namespace) -> int:
    found: list[MountFacts] = []
    ended: KeyboardInterrupt | None = None
    selection = selection_of(options)
    if not options.shows:  # ranks that measure a mount at the same time measure each other
        interruptibly(partial(shards_of, options))
        return DONE
    try:
        facts, advice = interruptibly(
            lambda: examine_shards(
                options.path, shards_of(options), options.read_bytes, found, selection
            )
        )
    except KeyboardInterrupt as error:
        ended = error
        facts = facts_of(options.path, found, selection)
        advice = advise(facts)
    reason = reason_of(ended) if ended else _why_not_measured(facts)
    if options.json:
        document = {**as_dict(facts, advice), "reason": reason}
        return finish(json_text("doctor", document), reason, ended)
    return finish(showable(as_text(facts, advice)), reason, ended)


def _why_not_measured(facts: Facts) -> str | None:
    failed = (each.measurement for each in facts.mounts if each.measurement.outcome == "failed")
    return next((measurement.reason for measurement in failed), None)
