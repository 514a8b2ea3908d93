"""What `warm` does after its first prefetch: it follows a checkpoint that changes, and keeps what
is warm resident. One loop, on a thread of its own, that rests between looks and ends when told.

Decisions are elsewhere: what has changed in following.py, when to bring back what was evicted in
keeping.py. The main thread reads figures that the loop replaces.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from shardahead.checkpoint.folder_rule import some_of
from shardahead.checkpoint.shards import Shard
from shardahead.command.failure_text import failure_text
from shardahead.command.following import Change, Follower
from shardahead.command.keeping import Keeper
from shardahead.command.kept_shards import KeptShards, seen_of
from shardahead.command.present_shards import present_shards
from shardahead.command.shortfalls import Shortfalls
from shardahead.command.standard_streams import complain
from shardahead.command.typed_paths import Filters
from shardahead.command.warm_options import (
    DEFAULT_FOLLOW_INTERVAL_SECONDS,
    DEFAULT_KEEP_INTERVAL_SECONDS,
)
from shardahead.command.warm_result import round_line
from shardahead.node.launcher import LocalTopology
from shardahead.node.memory import budget_in_force
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.report import Report
from shardahead.prefetch.start import start_prefetch
from shardahead.units import format_bytes, printable, quoted

#: Where nothing is there any more, what was there is given up after so long: a folder is moved away
#: before another takes its place, and a server may not answer for a moment.
GONE_SECONDS = 30.0
_WAIT_SECONDS = 0.1
_STOP_SECONDS = 0.3


@dataclass(frozen=True)
class StayFigures:
    """How it goes. Bytes of all rounds after the first prefetch; `resident_bytes` is of the
    `kept_bytes`, None where the kernel does not tell it or nothing is kept.
    """

    shards: int = 0
    size_bytes: int = 0
    rounds: int = 0
    read_bytes: int = 0
    growing: int = 0
    looks: int = 0
    kept_bytes: int = 0
    resident_bytes: int | None = None
    evicted_bytes: int = 0
    restored_bytes: int = 0
    locked_bytes: int = 0
    backed_off: bool = False


class Stay:
    """One command's stay, as --follow and --keep ask for it. `begin`, `note_first` and `run` come
    one after another, `stop` and `why_incomplete` may be asked of any thread.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._filters = Filters(tuple(options.include), tuple(options.exclude), options.all)
        self._says = not (options.quiet or options.json)
        self._tells = True  # for its node
        self._follower = Follower() if options.follow else None
        self._keeper = Keeper(_or(options.keep_interval, DEFAULT_KEEP_INTERVAL_SECONDS))
        self._follow_seconds = _or(options.follow_interval, DEFAULT_FOLLOW_INTERVAL_SECONDS)
        self._stopped = threading.Event()
        self._kept_lock = threading.Lock()  # what is kept, for one thread at a time
        self._handle: PrefetchHandle | None = None
        self._kept: KeptShards | None = None
        self._shards: list[Shard] = []
        self._said: set[str] = set()
        # Why not all is warm: of the checkpoint, of the last rounds, of what is kept.
        self._absent: str | None = None
        self._said_missing: set[str] = set()
        self._shortfalls = Shortfalls()
        self._replaced: list[str] = []
        self._not_kept: str | None = None
        self._seen_at = 0.0  # when anything was there
        self.figures: StayFigures = StayFigures()

    @property
    def wanted(self) -> bool:
        return bool(self._options.follow or self._options.keep)

    def find_shards(self, where: LocalTopology) -> list[Shard] | None:
        """What there is of the checkpoint at the beginning, kept open where that is asked for;
        waits until there is something, where it is to be followed. None: as without either.
        """
        self._where = where
        self._tells = where.rank == 0
        if self._options.keep:
            self._kept = KeptShards(
                lock=self._options.lock, local_rank=where.rank, local_size=where.size
            )
        if self._follower is None:
            return None
        shards = self._look().shards
        while not shards and not self._stopped.wait(self._follow_seconds):
            shards = self._look().shards
        return shards

    def begin(self, shards: Sequence[Shard], chosen: PrefetchOptions) -> None:
        """Before the first prefetch. Raises OSError where that cannot be kept or locked."""
        self._shards, self._chosen = list(shards), chosen
        self._count_shards()
        if self._kept is not None:
            # Of a server that does not answer it waits with the lock; `stop` waits a moment for it.
            with self._kept_lock:
                self._kept.require_lockable(shards)
                self._kept.hold(shards)

    def note_first(self, first: Report, unusable: OSError | None, too_few: str | None) -> None:
        """Before it runs. `first` is of the first prefetch; after that something was found that
        cannot be read, or that too little of it stayed.
        """
        paths = [shard.path for shard in self._shards]
        self._note(first, paths, paths)
        if unusable is not None:
            # It is not for the follower to try again: the next round would take it for resident.
            self._shortfalls.note_unusable(unusable, paths)
        if too_few is not None:
            self._shortfalls.note_left_out(paths, too_few)

    def run(self) -> None:
        """Until it is stopped, or --follow-idle is over."""
        if self._kept is not None:
            with self._kept_lock:
                self._kept.lock_all(self._shards, self._stopped.is_set)
        now = time.monotonic()
        follow_at = now + self._follow_seconds if self._follower else None
        keep_at = now if self._kept is not None else None
        while not self._stopped.is_set():
            now = time.monotonic()
            with self._kept_lock:
                if follow_at is not None and now >= follow_at:
                    if self._follow():
                        return
                    follow_at = time.monotonic() + self._follow_seconds
                if keep_at is not None and now >= keep_at:
                    keep_at = time.monotonic() + self._keep()
            due = min(at for at in (follow_at, keep_at) if at is not None)
            self._stopped.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        """Takes no further look, and cancels what is being brought in. Does not wait long. What is
        resident by then is looked at once more: that asks the kernel, and no server.
        """
        self._stopped.set()
        handle = self._handle
        if handle is not None:
            handle.stop(timeout=_STOP_SECONDS)
        if self._kept is not None and self._kept_lock.acquire(timeout=_STOP_SECONDS):
            try:
                self._count_kept()
            finally:
                self._kept_lock.release()

    def why_incomplete(self) -> str | None:
        """Why not all of it is warm now."""
        reasons = []
        if self._absent:
            reasons.append(self._absent)
        if failed := self._shortfalls.failed:
            reasons.append(failed)
        if self._replaced:
            more = f" and {len(self._replaced) - 1} more" if len(self._replaced) > 1 else ""
            reasons.append(
                f"{quoted(self._replaced[0])}{more} changed or went, and is kept no longer: "
                "--keep --follow takes what came instead"
            )
        figures = self.figures
        if figures.resident_bytes is not None and figures.resident_bytes < figures.kept_bytes:
            short = format_bytes(figures.kept_bytes - figures.resident_bytes)
            reasons.append(f"{short} of {format_bytes(figures.kept_bytes)} are not resident")
        elif figures.resident_bytes is None and (left_out := self._shortfalls.left_out):
            reasons.append(left_out)
        if self._not_kept:
            reasons.append(f"not all is kept: {self._not_kept}")
        if self._kept is not None and self._kept.lock_problem:
            reasons.append(f"not all is locked: {self._kept.lock_problem}")
        return "; ".join(reasons) or None

    # ---- following ----

    @dataclass(frozen=True)
    class _Looked:
        shards: list[Shard]
        change: Change

    def _look(self) -> _Looked:
        assert self._follower is not None
        present = present_shards(self._options.path, self._filters)
        shards, problem = present.shards, present.problem
        for note in present.notes:
            self._say_of_node(note)
        # What has come is told with its round.
        is_said = bool(present.missing) and self._said_missing.issuperset(present.missing)
        if problem and problem != self._absent and not is_said:
            self._say_waiting(problem, present.missing)
        self._absent, self._said_missing = problem, set(present.missing)
        now = time.monotonic()
        if shards:
            self._seen_at = now
        elif self._shards and now - self._seen_at < GONE_SECONDS:
            return self._Looked(self._shards, Change())
        listing = {shard.path: seen_of(shard) for shard in shards}
        change = self._follower.look(listing, now)
        self._replace(growing=len(change.growing))
        return self._Looked(shards, change)

    def _say_waiting(self, problem: str, missing: Sequence[str]) -> None:
        if not (self._says and self._tells):
            return
        if len(missing) > 1:
            folder = os.path.dirname(missing[0])
            names = some_of([os.path.basename(path) for path in missing])
            problem = f"{len(missing)} more shards missing in {quoted(folder)}: {names}"
        complain(f"waiting for the rest: {problem}")

    def _follow(self) -> bool:
        """Whether there is nothing more to follow."""
        looked = self._look()
        change = looked.change
        self._shards = looked.shards
        self._count_shards()
        self._shortfalls.keep_only({shard.path for shard in looked.shards})
        now_warm = set(change.bring_in)
        if change.gone or change.bring_in or self._not_kept:
            self._hold([s for s in looked.shards if s.path not in change.growing], now_warm)
        if change.bring_in:
            self._bring_in([shard for shard in looked.shards if shard.path in now_warm])
            if self._kept is not None:
                self._kept.lock_all(self._shards, self._stopped.is_set)
                self._count_kept()
        idle = self._options.follow_idle
        is_idle = idle is not None and change.idle_seconds >= idle
        return is_idle and self.why_incomplete() is None

    def _hold(self, shards: Sequence[Shard], fresh: set[str]) -> None:
        if self._kept is None:
            return
        self._not_kept = None
        try:
            self._kept.hold(shards, fresh)
        except OSError as error:  # it may have gone since: that is tried again with the next look
            self._not_kept = failure_text(error)
            self._say(self._not_kept)

    def _bring_in(self, shards: Sequence[Shard], missing: Mapping[str, int] | None = None) -> None:
        """One round: all of these shards, or those of them of which something is missing."""
        asked = [s for s in shards if missing is None or s.path in missing]
        spans: list[list[tuple[int, int]] | None] = [
            None if missing is None or s.path in missing else [] for s in shards
        ]
        try:
            handle = start_prefetch(
                shards, self._chosen, self._where, spans=spans, consumer=False, even_disabled=True
            )
        except OSError as error:  # gone, or another by now
            self._say(failure_text(error))
            for shard in asked:
                self._shortfalls.note_failure(shard.path, failure_text(error))
                self._try_again(shard.path)
            return
        self._handle = handle
        while not handle.done and not self._stopped.is_set():
            with suppress(TimeoutError):
                handle.wait(_WAIT_SECONDS)
        self._handle = None
        stopped = self._stopped.is_set()
        if stopped:
            handle.stop(timeout=_STOP_SECONDS)
        report = handle.report()
        if not stopped:
            whole = [s for s in asked if missing is None or missing[s.path] >= s.size_bytes]
            self._note(report, [s.path for s in asked], [s.path for s in whole])
        figures = self.figures
        if missing is None:
            self._replace(
                rounds=figures.rounds + 1, read_bytes=figures.read_bytes + report.read_bytes
            )
            if not stopped and self._says and self._tells:
                complain(round_line(report, len(shards), len(self._said_missing)))
        else:
            self._keeper.restored(report.read_bytes)
            self._replace(restored_bytes=figures.restored_bytes + report.read_bytes)

    def _note(self, report: Report, paths: Sequence[str], whole: Sequence[str]) -> None:
        for path in self._shortfalls.note(report, paths, whole):
            self._try_again(path)

    def _try_again(self, path: str) -> None:
        if self._follower is not None:
            self._follower.failed(path, time.monotonic())

    # ---- keeping ----

    def _keep(self) -> float:
        """One look at what is kept; how long until the next."""
        kept = self._kept
        assert kept is not None
        if self._follower is None:
            self._replaced += kept.replaced()
            self._shortfalls.keep_only(kept.paths)
        missing, _ = self._count_kept()
        missing_bytes = sum(missing.values())
        figures = self.figures
        look = self._keeper.look(
            kept.size_bytes,
            missing_bytes,
            kept.locked_bytes,
            budget_in_force(self._chosen.memory_budget_bytes),
        )
        self._replace(backed_off=self._keeper.backed_off, looks=figures.looks + 1)
        if look.say:
            self._say_of_node(look.say)
        if not look.restore:
            return look.wait_seconds
        self._replace(evicted_bytes=figures.evicted_bytes + missing_bytes)
        held = set(kept.paths)
        self._bring_in([shard for shard in self._shards if shard.path in held], missing)
        kept.lock_all(self._shards, self._stopped.is_set)
        self._count_kept()
        return look.wait_seconds

    def _count_kept(self) -> tuple[dict[str, int], int | None]:
        assert self._kept is not None
        missing, resident_bytes = self._kept.missing()
        self._replace(
            kept_bytes=self._kept.size_bytes,
            resident_bytes=resident_bytes,
            locked_bytes=self._kept.locked_bytes,
        )
        return missing, resident_bytes

    def _count_shards(self) -> None:
        size_bytes = sum(shard.size_bytes for shard in self._shards)
        self._replace(shards=len(self._shards), size_bytes=size_bytes)

    def _say_of_node(self, text: str) -> None:
        """One of its ranks says that."""
        if self._tells:
            self._say(text)

    def _say(self, text: str) -> None:
        """Once, whatever the format of the result."""
        if text not in self._said:
            self._said.add(text)
            complain(printable(text))

    def _replace(self, **changes: object) -> None:
        self.figures = replace(self.figures, **changes)  # type: ignore[arg-type]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
