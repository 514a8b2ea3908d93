"""Who is told that a prefetch has ended: callbacks, and tasks of asyncio.

The core says it to whoever waits for it with the GIL released. That is one daemon thread for each
prefetch, started when somebody wants to be told; it holds up neither the exit nor a handle that is
dropped. Any thread; a forked child tells nobody.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from shardahead import _core

if TYPE_CHECKING:
    from shardahead.prefetch.handle import PrefetchHandle

    Callback = Callable[[PrefetchHandle], Any]

logger = logging.getLogger("shardahead")

_LONG_SECONDS = 86400.0
_POLL_SECONDS = 0.05  # where no thread is to be had


class Ending:
    """The end of the prefetch of one handle. The thread holds this, and by it the core and those
    who are woken; the handle and its callbacks only while they are called.
    """

    def __init__(self, core: _core.Prefetch, handle: PrefetchHandle) -> None:
        self._core = core
        self._handle = weakref.ref(handle)
        self._getpid = os.getpid  # a handle may outlive the names of this module at the exit
        self._process = self._getpid()
        # Of all that follow. Reentrant: a handle may be dropped while it is held.
        self._lock = threading.RLock()
        self._watched = False
        self._told = False
        self._wakes: list[Callable[[], None]] = []
        self._dropped: PrefetchHandle | None = None  # with callbacks that have not been called

    def tell(self, callbacks: list[Callback], callback: Callback) -> bool:
        """Puts `callback` to the handle's `callbacks`, to be called at the end; False where that
        has come, and it is to be called by the caller. Raises RuntimeError where no thread is to be
        had.
        """
        if os.getpid() != self._process:
            return True
        with self._lock:
            if self._told or (not self._watched and self._core.done):
                return False
            self._watch()
            callbacks.append(callback)
            return True

    async def ended(self) -> None:
        """Returns at the end, at once in a forked child. A task that is cancelled meanwhile leaves
        the prefetch alone.
        """
        import asyncio

        if os.getpid() != self._process:
            return
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def set_ended() -> None:
            if not ended.done():
                ended.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(set_ended)

        try:
            is_known = self._wake(wake)
        except RuntimeError as error:  # no thread: looked at from time to time instead
            logger.info("the end of a prefetch is polled for: %s", error)
            while not self._core.done:
                await asyncio.sleep(_POLL_SECONDS)
            return
        try:
            if not is_known:
                await ended
        finally:
            with self._lock, suppress(ValueError):
                self._wakes.remove(wake)

    def drop(self, handle: PrefetchHandle, callbacks: list[Callback]) -> None:
        """The last reference to the handle goes. Cancels the prefetch, and so ends the thread,
        which is given the handle where there are callbacks to be called with it.
        """
        if self._getpid() != self._process or not self._watched:
            return
        self._core.cancel()
        with self._lock:
            if callbacks and not self._told:
                self._dropped = handle
                return
        handle._call_back()  # what came between the thread's end and this one

    def _wake(self, wake: Callable[[], None]) -> bool:
        """Whether the end has come; else `wake` is called then."""
        with self._lock:
            if self._told:
                return True
            self._watch()
            self._wakes.append(wake)
            return False

    def _watch(self) -> None:
        """Starts the thread. Raises RuntimeError where none is to be had."""
        if self._watched:
            return
        if sys.is_finalizing():  # before Python 3.12, start() would wait for ever
            raise RuntimeError("can't start new thread at interpreter shutdown")
        name = "shardahead-end"
        threading.Thread(target=self._wait_and_tell, name=name, daemon=True).start()
        self._watched = True

    def _wait_and_tell(self) -> None:
        while not self._core.wait(_LONG_SECONDS):
            pass
        with self._lock:
            self._told = True
            handle, self._dropped = self._dropped or self._handle(), None
            wakes = [*self._wakes]
        try:
            if handle is not None:
                handle._log_once()
        finally:
            for wake in wakes:
                wake()
            if handle is not None:
                handle._call_back()
