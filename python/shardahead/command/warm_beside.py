"""What `warm` does beside bringing in, at its begin and at its end: options that do not go together
are refused, the process steps back behind others, figures are written to a file, and after the
first prefetch it may stay (staying.py).

For the main thread, which signals interrupt; what may wait for storage is done by another.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from shardahead import _core
from shardahead.checkpoint.shards import Shard
from shardahead.command.endings import Ended, interruptibly
from shardahead.command.failure_text import denial_of
from shardahead.command.metrics_file import MetricsWriter, name_for_rank
from shardahead.command.standard_streams import complain
from shardahead.command.staying import Stay
from shardahead.command.typed_files import shards_of
from shardahead.command.warm_metrics import warm_metrics
from shardahead.command.warm_options import check_warm_options
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.report import Report
from shardahead.units import counted, format_bytes, quoted

_MOST_NICE = 19
_MOST_PATH = 500  # characters of a label


class WarmBeside:
    """Of one command. Raises ValueError for options that do not go together."""

    def __init__(self, options: argparse.Namespace) -> None:
        check_warm_options(options)
        self._options = options
        self._stay = Stay(options)
        self._began = time.time()
        self._handle: PrefetchHandle | None = None
        self._report: Report | None = None  # of the first prefetch, once it is over
        self._metrics: MetricsWriter | None = None
        self._stays = False
        self._complete: bool | None = None
        # Before any thread is started: those that come inherit it.
        self._priority = _step_back() if options.nice else None

    def shards(self, where: LocalTopology, chosen: PrefetchOptions) -> list[Shard]:
        """Those that the first prefetch is to bring in. Writes the metrics for the first time.
        Raises as `shards_of` does, and OSError for what cannot be kept, locked or written.
        """
        if self._options.metrics_file is not None:
            path = os.path.abspath(self._options.metrics_file)
            path = name_for_rank(path, where.rank, where.size)
            labels = {
                "path": " ".join(self._options.path)[:_MOST_PATH],
                "local_rank": str(where.rank),
            }
            writer = MetricsWriter(path, labels, self._collect)
            try:
                writer.start()
            except OSError as error:
                typed = quoted(self._options.metrics_file)
                why = denial_of(error, path)
                raise OSError(f"--metrics-file {typed}: {error.strerror}{why}") from error
            # Not before: where that hangs, a signal's end must not try it again.
            self._metrics = writer
        shards = self._stay.find_shards(where)
        if shards is None:
            shards = shards_of(self._options)
        self._stay.begin(shards, chosen)
        return shards

    def started(self, handle: PrefetchHandle) -> None:
        self._handle = handle

    def over(self, report: Report) -> None:
        """The first prefetch has ended, and nothing follows; its files are no longer held open."""
        self._report, self._handle = report, None

    def wants_to_stay(self, report: Report) -> bool:
        """After the first prefetch, which ended by itself. Where the mount keeps no pages there is
        nothing to stay for.
        """
        return self._stay.wanted and report.keeps_pages is not False

    def stay(self, report: Report, unusable: OSError | None, too_few: str | None) -> None:
        """Until a signal comes, or --follow-idle is over. What was found after the first prefetch
        may say why not all of it is warm.
        """
        self._report, self._handle = report, None
        self._stay.note_first(report, unusable, too_few)  # a signal may come before it runs
        self._stays = True
        if self._metrics is not None:
            self._metrics.write_soon()
        interruptibly(self._stay.run)

    def ended_by(self, ended: KeyboardInterrupt) -> KeyboardInterrupt | None:
        """What is to be told of that end: nothing of a SIGTERM to one who stays until then."""
        self._stay.stop()
        asked_for = isinstance(ended, Ended) and ended.number == signal.SIGTERM
        return None if self._stays and asked_for else ended

    @property
    def stayed(self) -> bool:
        return self._stays

    def why_incomplete(self) -> str | None:
        """After a stay: why not all of it is warm at its end."""
        return self._stay.why_incomplete()

    def text(self) -> str:
        """After a stay, one line of what came of it: of what was read and locked, by this rank."""
        figures = self._stay.figures
        parts = []
        if self._options.follow:
            parts.append(
                f"followed {counted(figures.shards, 'shard')}, {format_bytes(figures.size_bytes)}"
            )
            if figures.read_bytes:
                parts.append(f"{format_bytes(figures.read_bytes)} read after the first time")
        if self._options.keep:
            resident = figures.resident_bytes
            known = "an unknown part" if resident is None else format_bytes(resident)
            locked = f", {format_bytes(figures.locked_bytes)} of it locked"
            parts.append(
                f"kept {known} of {format_bytes(figures.kept_bytes)} resident"
                f"{locked if self._options.lock else ''}"
            )
            if figures.restored_bytes:
                parts.append(f"{format_bytes(figures.restored_bytes)} brought back")
        report = self._report
        whose = ""
        if report is not None and report.local_size > 1:
            whose = f" (local rank {report.local_rank} of {report.local_size})"
        return f"warm: {'; '.join(parts)}{whose}"

    def fields(self) -> dict[str, Any]:
        """For --json: null where it was not asked for."""
        figures = self._stay.figures
        follow = keep = None
        if self._options.follow:
            follow = {
                "shards": figures.shards,
                "size_bytes": figures.size_bytes,
                "rounds": figures.rounds,
                "read_bytes": figures.read_bytes,
                "growing": figures.growing,
            }
        if self._options.keep:
            keep = {
                "size_bytes": figures.kept_bytes,
                "resident_bytes": figures.resident_bytes,
                "locked_bytes": figures.locked_bytes,
                "looks": figures.looks,
                "evicted_bytes": figures.evicted_bytes,
                "restored_bytes": figures.restored_bytes,
                "backed_off": figures.backed_off,
            }
        path = self._metrics.path if self._metrics else self._options.metrics_file
        return {
            "priority": self._priority,
            "follow": follow,
            "keep": keep,
            "metrics_file": path,
        }

    def close(self, *, complete: bool) -> None:
        """The figures are written for the last time."""
        self._complete = complete
        if self._metrics is not None:
            self._metrics.end()

    def _collect(self) -> Sequence[Any]:
        handle, report = self._handle, self._report
        if handle is not None:
            report = handle.report()
        ended = self._complete is not None
        return warm_metrics(
            report,
            self._stay.figures,
            began=self._began,
            running=not ended,
            staying=self._stays and not ended,
            complete=self._complete if ended else self._is_warm(report),
            follow=self._options.follow,
            keep=self._options.keep,
        )

    def _is_warm(self, report: Report | None) -> bool:
        if report is None or not report.done:
            return False
        return self.why_incomplete() is None if self._stays else report.complete


def _step_back() -> dict[str, Any]:
    """The priority in force then. What is refused is said; it is done without."""
    wrong = _core.lower_io_priority()
    if wrong:
        complain(f"--nice: the priority of reads stays as it is: {os.strerror(wrong)}")
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _MOST_NICE)
    except OSError as error:
        complain(f"--nice: the priority of the processor stays as it is: {error.strerror}")
    return {"nice": os.getpriority(os.PRIO_PROCESS, 0), "io_class": _core.io_priority_class()}
