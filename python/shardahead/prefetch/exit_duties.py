"""Threads with a duty that an exit of the process does not cut off: each is told to end, and all
together are waited for, a moment. They are daemon threads, so that nothing else waits for them.

At the exit of the interpreter, and where multiprocessing ends a child, which comes without that. A
forked child has none of its parent's threads, and does nothing for them. Any thread.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class _Duty:
    thread: threading.Thread
    process: int
    hurry: Callable[[], None]


class ExitDuties:
    """Those of one kind, which hold up an exit by no more than `seconds`. For as long as the
    process is there: the exit has it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: set[_Duty] = set()  # add, discard and a copy are atomic
        self._registered_process = 0

    def start(self, name: str, work: Callable[[], None], hurry: Callable[[], None]) -> None:
        """Does `work` in a thread of that name; `hurry` is called at the exit, in another thread,
        and must not wait. Raises RuntimeError where no thread is to be had.
        """

        def run() -> None:
            try:
                work()
            finally:
                self._running.discard(duty)

        thread = threading.Thread(target=run, name=name, daemon=True)
        duty = _Duty(thread, os.getpid(), hurry)
        self._register()
        self._running.add(duty)
        try:
            thread.start()
        except RuntimeError:
            self._running.discard(duty)
            raise

    def _register(self) -> None:
        """Once in the process, and once more in a child that was forked."""
        process = os.getpid()
        if self._registered_process == process:
            return
        if not self._registered_process:
            atexit.register(self._end)
        self._registered_process = process
        multiprocessing: Any = sys.modules.get("multiprocessing.util")
        if multiprocessing is not None:  # which ends a child without what atexit has
            multiprocessing.Finalize(None, self._end, exitpriority=0)

    def _end(self) -> None:
        deadline = time.monotonic() + self._seconds
        duties = [duty for duty in self._running.copy() if duty.process == os.getpid()]
        for duty in duties:
            duty.hurry()
        for duty in duties:
            duty.thread.join(max(0.0, deadline - time.monotonic()))
