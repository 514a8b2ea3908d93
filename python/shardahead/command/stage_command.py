"""What `stage` does: makes a replica of a checkpoint on this node's own disk, or lists, checks and
removes those that are there.

One thread, which signals interrupt (endings.py): what may wait for storage is done by another.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from shardahead import _core
from shardahead.cluster.exchange import MOST_NODES, Exchange, Job, joining
from shardahead.cluster.secret import VARIABLE, secret_in
from shardahead.command.argument_types import count_argument
from shardahead.command.damaged_shards import damage_in, first_of_damages
from shardahead.command.endings import interruptibly, reason_of
from shardahead.command.failure_text import failure_text
from shardahead.command.json_documents import json_text
from shardahead.command.progress_shown import show_until_done
from shardahead.command.progress_text import Work
from shardahead.command.results import DONE, finish
from shardahead.command.standard_streams import complain
from shardahead.command.tables import Row, fits, showable, table_of
from shardahead.command.typed_files import shards_of
from shardahead.command.warm_options import rate_argument
from shardahead.node.topology import local_topology
from shardahead.prefetch.options import Options, resolve_options
from shardahead.prefetch.report import describe_limit
from shardahead.replica import replica_folder
from shardahead.replica.replica_folder import Listed, listed
from shardahead.replica.replica_lock import take_lock
from shardahead.replica.room import lies_in_memory
from shardahead.replica.stage import StageRun, damaged_blocks, folder_of
from shardahead.replica.staging import Staging
from shardahead.replica.whole_replica import Replica
from shardahead.units import counted, format_bytes, format_rate, format_seconds, printable, quoted

_VARIABLE = "SHARDAHEAD_REPLICA_FOLDER"
_STOP_SECONDS = 0.5  # for copies in flight, once a signal has come


def add_stage_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        help="where replicas lie: a folder on this node's own disk, or in its memory "
        f"(default: {_VARIABLE})",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="what lies in FOLDER, and how far it is")
    what.add_argument(
        "--verify",
        action="store_true",
        help="read replicas and compare every block with what was copied: those of PATH, or all",
    )
    what.add_argument("--remove", action="store_true", help="remove the replicas of PATH")
    nodes = parser.add_argument_group(
        "several nodes", "that stage the same read each block from storage once, and send it on"
    )
    nodes.add_argument(
        "--rendezvous", metavar="HOST:PORT", help="where they meet: an address of one of them"
    )
    nodes.add_argument(
        "--nodes", type=count_argument(1, MOST_NODES), metavar="M", help="how many there are"
    )
    nodes.add_argument(
        "--node-rank",
        type=count_argument(0, MOST_NODES - 1),
        metavar="I",
        help="this one's number (default: by arrival)",
    )
    parser.add_argument(
        "--threads", type=count_argument(1, _core.MAX_THREADS), metavar="N", help="as of warm"
    )
    parser.add_argument(
        "--rate-limit",
        type=rate_argument,
        metavar="RATE",
        help="bytes per second that this node takes from storage on average: 200MB; 0: no limit",
    )
    parser.add_argument(
        "--quiet", "-q", action="store_true", help="no progress, neither a bar nor lines"
    )


def stage(options: argparse.Namespace) -> int:
    folder = options.to if options.to is not None else os.environ.get(_VARIABLE, "")
    if not folder:
        raise ValueError(f"--to FOLDER says where replicas lie; or set {_VARIABLE}")
    if "\0" in folder:
        raise ValueError("--to has a NUL in it")
    stages = bool(options.path) and not (options.list or options.verify or options.remove)
    exchanges: list[Exchange] = []
    # First: while there are no other threads.
    join = _joining(options, exchanges) if stages else None
    folder = interruptibly(partial(folder_of, folder))
    if options.list:
        return _list(options, folder)
    if options.verify:
        return _verify(options, folder)
    if not options.path:
        raise ValueError("PATH says what to stage; --list shows what lies in FOLDER")
    if options.remove:
        return _remove(options, folder)
    return _stage(options, folder, join, exchanges)


# ---- making one ----


def _stage(
    options: argparse.Namespace,
    folder: str,
    join: Callable[[Staging], Exchange] | None,
    exchanges: Sequence[Exchange],
) -> int:
    shards = interruptibly(partial(shards_of, options))
    chosen = resolve_options(Options(threads=options.threads, rate_limit=options.rate_limit))
    where = local_topology()
    run = StageRun(shards, folder, chosen, where, join=join)
    ended: KeyboardInterrupt | None = None
    replica: Replica | None = None
    reason: str | None = None
    try:
        run.start()
        if options.quiet or options.json or not options.shows:
            while not run.wait(1.0):
                pass
        elif not run.wait(0.3):  # one that is there needs no bar
            show_until_done(
                run, Work(len(shards), where.rank, where.size, False, "stage"), run.wait
            )
        replica = run.result()
        if options.shows:
            reason = interruptibly(partial(_damage_in, replica))
    except KeyboardInterrupt as error:
        ended, reason = error, reason_of(error)
        run.stop()
        run.wait(_STOP_SECONDS)
    except OSError as error:
        reason = interruptibly(partial(failure_text, error))
    if not options.shows:
        return finish("", reason, ended, complains=False)
    if options.json:
        text = json_text("stage", _document(run, replica, reason, exchanges))
    else:
        text = _line(run, replica, exchanges)
    return finish(text, reason, ended)


def _damage_in(replica: Replica) -> str | None:
    """Why no loader takes it, for it was copied as it is. By the copies, which are near."""
    found = [text for path in replica.paths if (text := damage_in(path))]
    damage = first_of_damages(found)
    if damage is None:
        return None
    return f"{damage}; that is how it is in {quoted(replica.source)}: fetch it there again"


def _joining(
    options: argparse.Namespace, exchanges: list[Exchange]
) -> Callable[[Staging], Exchange] | None:
    """How it takes part in a job of several nodes, where it is to; each exchange that begins is
    added to `exchanges`. Raises ValueError for options that do not go together.
    """
    if options.rendezvous is None:
        if options.nodes is not None or options.node_rank is not None:
            raise ValueError("--nodes and --node-rank are of several nodes: add --rendezvous")
        return None
    if options.nodes is None:
        raise ValueError("--rendezvous takes --nodes M: how many there are")
    secret = secret_in(os.environ)
    if secret is None and options.shows:
        complain(
            f"without {VARIABLE} whoever reaches {options.rendezvous} may take part: the network "
            "must be trusted"
        )
    job = Job(options.rendezvous, options.nodes, options.node_rank, secret or b"")
    begin = joining(job)

    def join(staging: Staging) -> Exchange:
        exchanges.append(begin(staging))
        return exchanges[-1]

    return join


def _line(run: StageRun, replica: Replica | None, exchanges: Sequence[Exchange]) -> str:
    progress = run.progress()
    if run.was_there and replica is not None:
        return f"stage: {quoted(replica.path)} is there: {format_bytes(replica.size_bytes)}"
    received = run.received_bytes
    copied = progress.node_read_bytes
    kept = progress.done_bytes - copied - received
    parts = []
    if copied:
        rate = format_rate(copied / progress.seconds) if progress.seconds > 0 else "at once"
        report = run.report()
        limit = describe_limit(report.limited_by, "--rate-limit") if report is not None else ""
        seconds = format_seconds(progress.seconds)
        parts.append(f"{format_bytes(copied)} in {seconds}, {rate}{limit}")
    if exchanges:
        parts.append(_of_nodes(received, exchanges[-1]))
    if kept:
        parts.append(f"{format_bytes(kept)} were there")
    if replica is None:
        left = progress.planned_bytes - progress.done_bytes
        parts.append(f"{format_bytes(left)} are left: the same command goes on")
    else:
        memory = " (in memory)" if lies_in_memory(replica.path) else ""
        parts.append(f"{quoted(replica.path)}{memory}")
    return f"stage: {'; '.join(parts)}"


def _of_nodes(received_bytes: int, exchange: Exchange) -> str:
    figures = exchange.figures
    text = f"{format_bytes(received_bytes)} from {counted(figures.met, 'other node')}"
    text += f", {format_bytes(figures.sent_bytes)} sent"
    if figures.wrong_blocks:
        text += f", {counted(figures.wrong_blocks, 'wrong block')}"
    return text + (f" (alone in the end: {figures.alone})" if figures.alone else "")


def _document(
    run: StageRun, replica: Replica | None, reason: str | None, exchanges: Sequence[Exchange]
) -> dict[str, Any]:
    progress, report = run.progress(), run.report()
    received = run.received_bytes
    return {
        "path": None if replica is None else replica.path,
        "source": None if replica is None else replica.source,
        "size_bytes": progress.planned_bytes,
        "copied_bytes": progress.node_read_bytes,
        "kept_bytes": progress.done_bytes - progress.node_read_bytes - received,
        "received_bytes": received,
        "exchange": vars(exchanges[-1].figures) if exchanges else None,
        "was_there": run.was_there,
        "seconds": progress.seconds,
        "limited_by": "unknown" if report is None else report.limited_by,
        "replicas": [],
        "reason": reason,
    }


# ---- those that are there ----


def _list(options: argparse.Namespace, folder: str) -> int:
    found = interruptibly(lambda: _chosen(options.path, folder))
    if not options.shows:
        return DONE
    if options.json:
        return finish(_listed_json(found, {}, None), None)
    return finish(_listed_text(folder, found), None)


def _listed_text(folder: str, found: Sequence[Listed]) -> str:
    if not found:
        return f"stage: no replicas in {quoted(folder)}"
    total = sum(each.bytes_on_disk for each in found)
    heads: tuple[str, ...] = ("replica", "on disk", "state", "of")
    rows = [
        Row(each.place.name, (format_bytes(each.bytes_on_disk), each.state, printable(each.source)))
        for each in found
    ]
    if not fits(heads, rows):
        heads = heads[:-1]
        rows = [
            Row(row.name, row.cells[:-1], folder=f"of {row.cells[-1] or 'what is not known'}")
            for row in rows
        ]
    return (
        f"stage: {counted(len(found), 'replica')} in {quoted(folder)}, {format_bytes(total)}\n"
        f"{table_of(heads, rows)}"
    )


def _listed_json(found: Sequence[Listed], damage: dict[str, list[str]], reason: str | None) -> str:
    replicas = [
        {
            "name": each.place.name,
            "path": each.place.path if each.replica is not None else None,
            "source": each.source,
            "size_bytes": each.replica.size_bytes if each.replica is not None else None,
            "bytes_on_disk": each.bytes_on_disk,
            "state": each.state,
            "damage": damage.get(each.place.name),
        }
        for each in found
    ]
    return json_text("stage", {"replicas": replicas, "reason": reason})


def _chosen(paths: Sequence[str], folder: str) -> list[Listed]:
    """Those that PATHs name: by the replica's name or path, or by that of the original, which need
    not be there. All of them without a PATH.
    """
    all_there = list(listed(folder))
    if not paths:
        return all_there
    chosen: dict[tuple[str, bool], Listed] = {}
    for path in paths:
        names = {path, os.path.abspath(path)}
        if os.path.isfile(path):
            names.add(os.path.dirname(os.path.abspath(path)))
        matching = [
            each for each in all_there if names & {each.place.name, each.place.path, each.source}
        ]
        if not matching:
            known = ", ".join(each.place.name for each in all_there) or "none"
            raise ValueError(f"{quoted(folder)} has no replica of {quoted(path)}: it has {known}")
        for each in matching:
            chosen[each.place.name, each.replica is None] = each
    return list(chosen.values())


def _verify(options: argparse.Namespace, folder: str) -> int:
    if not options.shows:
        return DONE
    stopped = threading.Event()
    damage: dict[str, list[str]] = {}
    found: list[Listed] = []

    def check() -> None:
        if stopped.is_set():
            raise InterruptedError

    def run() -> None:
        found.extend(_chosen(options.path, folder))
        for each in found:
            if each.replica is not None:
                damage[each.place.name] = damaged_blocks(each.replica, check)

    ended: KeyboardInterrupt | None = None
    try:
        interruptibly(run)
    except KeyboardInterrupt as error:
        stopped.set()
        ended = error
    lines = [f"stage: {text}" for text in _verified(found, damage)]
    broken = [each for each in found if each.replica is None or damage.get(each.place.name)]
    reason = reason_of(ended) if ended else None
    if reason is None and broken:
        names = ", ".join(each.place.name for each in broken)
        reason = f"{counted(len(broken), 'replica')} not whole: {names}"
    if options.json:
        return finish(_listed_json(found, damage, reason), reason, ended)
    return finish(showable("\n".join(lines)), reason, ended)


def _verified(found: Sequence[Listed], damage: dict[str, list[str]]) -> list[str]:
    lines = []
    for each in found:
        name = quoted(each.place.name)
        if each.replica is None:
            lines.append(f"{name}: {each.state}")
        elif (wrong := damage.get(each.place.name)) is None:
            lines.append(f"{name}: not looked at")
        elif wrong:
            lines += [f"{name}: {text}" for text in wrong]
        else:
            blocks = counted(len(each.replica.layout), "block")
            lines.append(f"{name}: all {format_bytes(each.replica.size_bytes)} right ({blocks})")
    return lines or ["no replicas"]


def _remove(options: argparse.Namespace, folder: str) -> int:
    found = interruptibly(lambda: _chosen(options.path, folder))
    if not options.shows:
        return DONE
    removed, reasons = [], []
    for each in found:
        lock = take_lock(each.place.lock)
        if lock is None:
            reasons.append(f"{quoted(each.place.name)} is being staged by another process")
            continue
        with lock:
            interruptibly(partial(replica_folder.remove, each.place))
        removed.append(each)
    reason = "; ".join(reasons) or None
    if options.json:
        return finish(_listed_json(removed, {}, reason), reason)
    total = format_bytes(sum(each.bytes_on_disk for each in removed))
    names = ", ".join(quoted(each.place.name) for each in removed) or "nothing"
    return finish(f"stage: removed {names}, {total}", reason)
