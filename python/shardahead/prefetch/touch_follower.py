"""Sees what a loader that is not ours touches of the files of a load, for `learn=`: pages of its
mappings, and offsets of its descriptors (csrc/node/loader_progress.h).

A daemon thread looks again and again, as often as look_pace.py says. What is unmapped between two
looks is seen as the first of them found it. It must not hold up the exit; a forked child has none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from contextlib import suppress

from shardahead import _core
from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.learning import Learning
from shardahead.prefetch.look_pace import LookPace
from shardahead.prefetch.profile_watch import give_up_if_wrong

logger = logging.getLogger("shardahead")

_FIRST_PAUSE_SECONDS = 0.005
# Of what a look takes: together they take less than a fiftieth of a processor, while little is
# touched.
_IDLE_PAUSES_ANEW = 150.0
_IDLE_PAUSES = 100.0
_END_SECONDS = 1.0


class TouchFollower:
    """Of the loader of the load that `learning` belongs to, and whose prefetch `handle` is: that is
    cancelled where the profile is in the way. Ends with the handle at the latest.
    """

    def __init__(self, learning: Learning, handle: PrefetchHandle) -> None:
        self._learning = learning
        learning.sampled = True
        self._prefetch = weakref.ref(handle)
        self._progress: _core.LoaderProgress | None = None
        self._looking = threading.Lock()
        self._stopped = threading.Event()
        self._process = os.getpid()
        try:
            threading.Thread(target=self._run, name="shardahead-touch", daemon=True).start()
        except RuntimeError as error:  # no more threads: what is there at the end is seen
            logger.info("what the loader touches is looked at once, at the end: %s", error)

    def stop(self) -> None:
        """Ends, and waits for nothing."""
        if os.getpid() == self._process:  # what the thread holds stays locked in a forked child
            self._stopped.set()

    def end(self) -> None:
        """The load is over: looks once more, and ends."""
        if os.getpid() != self._process:
            return
        self._stopped.set()
        # A look that sits in open(), on a server that does not answer, is not waited for.
        if self._looking.acquire(timeout=_END_SECONDS):
            try:
                self._look()
            finally:
                self._looking.release()

    def _look(self, anew: bool = True) -> None:
        if self._progress is None:  # opens every file
            paths = [os.fsencode(shard.path) for shard in self._learning.shards]
            self._progress = _core.LoaderProgress(paths)
        self._progress.mark_touched(self._learning.touched, anew)
        self._learning.looked()

    def _ask_early(self) -> None:
        handle = self._prefetch()
        with suppress(OSError):  # the load meets it, and says what is wrong
            for index, ranges in self._learning.early():
                if handle is not None:
                    handle._core.ask_early(index, ranges)

    def _run(self) -> None:
        touched, pace = self._learning.touched, LookPace()
        pause_seconds = _FIRST_PAUSE_SECONDS
        look_seconds = 0.0
        looked_at = anew_at = time.monotonic()
        try:
            self._ask_early()
            while not self._stopped.wait(pause_seconds):
                now = time.monotonic()
                anew = now >= anew_at
                before = touched.touched_bytes
                began = time.thread_time()
                with self._looking:
                    self._look(anew)
                handle = self._prefetch()
                if handle is None:
                    return
                give_up_if_wrong(self._learning, handle)
                del handle
                spent_seconds = time.thread_time() - began
                pace.saw(touched.touched_bytes - before, now - looked_at)
                looked_at = now
                if anew:
                    anew_at = now + pace.pause_seconds(spent_seconds, _IDLE_PAUSES_ANEW)
                else:
                    look_seconds = spent_seconds
                pause_seconds = pace.pause_seconds(look_seconds, _IDLE_PAUSES)
        except Exception as error:
            logger.info("what the loader touches is not looked at any more: %s", error)
