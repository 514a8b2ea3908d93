"""Looks at what a consumer touches of tensors that it holds, until it is known whether the profile
that the load goes by is right: a tensor is looked at when it is let go, and until then each fault
for what the profile lacks would wait for what it wants for nothing.

A daemon thread, which must not hold up the exit; a forked child has none.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref

from shardahead.prefetch.handle import PrefetchHandle
from shardahead.prefetch.learning import Learning

logger = logging.getLogger("shardahead")

# From then on what is let go tells enough.
_PROVEN_BYTES = 64 * 1024**2
_LEAST_PAUSE_SECONDS = 0.01
_MOST_PAUSE_SECONDS = 1.0
# Of what a look takes.
_PAUSES = 20.0


class ProfileWatch:
    """Of the load that `learning` belongs to, and whose prefetch `handle` is: that is cancelled
    where the profile is in the way. Ends with the handle at the latest.
    """

    def __init__(self, learning: Learning, handle: PrefetchHandle) -> None:
        self._learning = learning
        self._prefetch = weakref.ref(handle)
        self._stopped = threading.Event()
        self._process = os.getpid()
        try:
            threading.Thread(target=self._run, name="shardahead-profile", daemon=True).start()
        except RuntimeError as error:  # no more threads
            logger.info("a wrong profile is seen later: %s", error)

    def stop(self) -> None:
        """Ends, and waits for nothing."""
        if os.getpid() == self._process:  # what the thread holds stays locked in a forked child
            self._stopped.set()

    def _run(self) -> None:
        touched = self._learning.touched
        pause_seconds = _LEAST_PAUSE_SECONDS
        try:
            while not self._stopped.wait(pause_seconds):
                began = time.thread_time()
                touched.look()
                handle = self._prefetch()
                if handle is None or self._learning.given_up:
                    return
                if self._learning.is_in_the_way():
                    handle.cancel()  # also of one that is done: faults are all there is from now on
                    return
                if touched.touched_bytes >= _PROVEN_BYTES:
                    return
                del handle
                spent_seconds = time.thread_time() - began
                pause_seconds = max(_LEAST_PAUSE_SECONDS, _PAUSES * spent_seconds)
                pause_seconds = min(pause_seconds, _MOST_PAUSE_SECONDS)
        except Exception as error:
            logger.info("the profile is not watched any more: %s", error)
