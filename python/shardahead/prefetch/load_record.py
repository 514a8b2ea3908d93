"""What SHARDAHEAD_REPORT asks for: at the end of a load one file about it, and until then a look at
its figures from time to time.

Both are done by a daemon thread, one for each load; without the setting there is none. A load never
waits for it, and never fails by it. At the exit of the process what is left is written, for which
that waits a moment. A forked child writes nothing of its parent's. Any thread.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import queue
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from shardahead.checkpoint.shards import Shard
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.exit_duties import ExitDuties
from shardahead.prefetch.figures import LoadFigures
from shardahead.prefetch.load_document import LoadStart, file_name, load_document
from shardahead.prefetch.options import PrefetchOptions
from shardahead.prefetch.series import Series
from shardahead.units import printable

logger = logging.getLogger("shardahead")

# The end of a prefetch is seen so long after it, at most.
_MOST_WAIT_SECONDS = 0.25
# Reads in flight are waited for, so that their bytes are in the figures.
_LAST_BLOCKS_SECONDS = 1.0
_EXIT_SECONDS = 2.0

_numbers = itertools.count(1)  # next() is atomic
_duties = ExitDuties(_EXIT_SECONDS)


class LoadRecord:
    """The record of one load, for whoever ends it: a handle, an iterator. Dropping it ends it."""

    def __init__(self, recorder: _Recorder) -> None:
        self.figures: LoadFigures = recorder.figures
        self._recorder = recorder

    def end(self, ended: str = "closed") -> None:
        """The load is over; returns at once. Once is enough."""
        self._recorder.end(ended)

    def __del__(self) -> None:
        if hasattr(self, "_recorder"):
            self._recorder.end("dropped")


def begin_record(
    entry: str,
    shards: Sequence[Shard],
    options: PrefetchOptions,
    topology: LocalTopology,
    figures: LoadFigures,
) -> LoadRecord | None:
    """The record of a load that begins; None where none is asked for, or none can be had."""
    if options.report is None:
        return None
    start = LoadStart(entry, tuple(shards), options, topology, time.time(), next(_numbers))
    try:
        folder = os.path.abspath(options.report)
        if sys.is_finalizing():  # before Python 3.12, start() would wait for ever
            raise RuntimeError("the interpreter is going down")
        recorder = _Recorder(folder, start, figures)
        recorder.start()
    except (OSError, RuntimeError) as error:  # no more threads, or no folder to be in
        _say_missing(options.report, error)
        return None
    return LoadRecord(recorder)


class _Recorder:
    """The thread of one record. It holds what is known of the load, and nobody who has it."""

    def __init__(self, folder: str, start: LoadStart, figures: LoadFigures) -> None:
        self._getpid = os.getpid  # a record may outlive the names of this module at the exit
        self._process = self._getpid()
        self.figures: LoadFigures = figures
        self._folder = folder
        self._load = start
        self._began_seconds = time.monotonic()
        self._series = Series()
        # How it ended, the first that counts. Not an Event: a collection of garbage may drop a
        # record anywhere, also in this thread while it waits, and set() would wait for that.
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()

    def start(self) -> None:
        """Raises RuntimeError where no thread is to be had."""
        _duties.start("shardahead-record", self._run, partial(self.end, "exit"))

    def end(self, ended: str) -> None:
        if self._getpid() == self._process:  # a forked child has no such thread
            self._over.put(ended)

    def _run(self) -> None:
        try:
            self._write(self._watch())
        except Exception as error:
            _say_missing(self._folder, error)

    def _watch(self) -> str:
        """Until the load is over: how it ended."""
        ended = "done"
        self._series.add(self.figures.sample(0.0))
        while not self.figures.is_over():
            seconds = self._seconds()
            if self._series.is_due(seconds):
                self._series.add(self.figures.sample(seconds))
            wait_seconds = min(self._series.interval_seconds, _MOST_WAIT_SECONDS)
            try:
                told = self._over.get(timeout=wait_seconds)
            except queue.Empty:
                continue
            if not self.figures.is_over():  # before whoever had it let it go
                ended = told
            # Whoever has ended the load holds the prefetch no more, which goes on by this here.
            self.figures.cancel()
            self.figures.wait(_LAST_BLOCKS_SECONDS)
            break
        self._series.add(self.figures.sample(self._seconds()))
        return ended

    def _seconds(self) -> float:
        return time.monotonic() - self._began_seconds

    def _write(self, ended: str) -> None:
        seconds = self._series.samples[-1].seconds
        document = load_document(self._load, self.figures, self._series, seconds, ended)
        name = file_name(self._load)
        os.makedirs(self._folder, exist_ok=True)
        path = os.path.join(self._folder, name)
        unfinished = os.path.join(self._folder, f".{name}.unfinished")
        try:
            with open(unfinished, "x", encoding="ascii") as file:
                file.write(json.dumps(document))
            os.rename(unfinished, path)
        except OSError:
            with suppress(OSError):
                os.unlink(unfinished)
            raise


def _say_missing(folder: str, error: BaseException) -> None:
    logger.warning("no report of a load is written to %s: %s", printable(folder), error)
