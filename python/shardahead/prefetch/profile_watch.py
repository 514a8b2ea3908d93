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
from shardahead.prefetch.profile_trust import PROVEN_BYTES

logger = logging.getLogger("shardahead")

_LEAST_PAUSE_SECONDS = 0.01
_MOST_PAUSE_SECONDS = 1.0
# Of what a look takes.
_PAUSES = 20.0


def give_up_if_wrong(learning: Learning, handle: PrefetchHandle) -> bool:
    """Where the profile is in the way, or where others of the node were misled by theirs and
    nothing is known of it yet: ends the prefetch, and says so to them. Whether it was given up.
    """
    if learning.given_up or not learning.has_profile:
        return learning.given_up
    if learning.is_in_the_way():
        handle._core.tell_misled()
    elif not (handle._core.told_misled() and learning.give_up_with_others()):
        return False
    handle.cancel()  # also of one that is done: faults are all there is from now on
    return True


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
                # From then on what is let go tells enough.
                if (
                    give_up_if_wrong(self._learning, handle)
                    or touched.touched_bytes >= PROVEN_BYTES
                ):
                    return
                del handle
                spent_seconds = time.thread_time() - began
                pause_seconds = max(_LEAST_PAUSE_SECONDS, _PAUSES * spent_seconds)
                pause_seconds = min(pause_seconds, _MOST_PAUSE_SECONDS)
        except Exception as error:
            logger.info("the profile is not watched any more: %s", error)
