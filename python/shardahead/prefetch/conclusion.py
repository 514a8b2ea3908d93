"""When what a load has touched is known: once nothing of what was handed out is held any more, or
at the exit of the process. What is made of it then, whoever asks for it says.

That is waited for in a daemon thread of its own, which holds no tensor. Any thread.
"""

from __future__ import annotations

import queue
from collections.abc import Callable
from functools import partial

from shardahead import _core
from shardahead.prefetch.exit_duties import ExitDuties

_EXIT_SECONDS = 2.0
_FIRST_WAIT_SECONDS = 0.05
_MOST_WAIT_SECONDS = 2.0

_duties = ExitDuties(_EXIT_SECONDS)


def conclude(
    touched: _core.TouchedPages, keep: Callable[[], None], failed: Callable[[Exception], None]
) -> None:
    """Calls `keep` then, and `failed` with what that raises. Returns at once. Raises RuntimeError
    where no thread is to be had.
    """
    exits: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work() -> None:
        try:
            _wait(touched, exits)
            keep()
        except Exception as error:
            failed(error)

    _duties.start("shardahead-learn", work, partial(exits.put, None))


def _wait(touched: _core.TouchedPages, exits: queue.SimpleQueue[None]) -> None:
    wait_seconds = _FIRST_WAIT_SECONDS
    while touched.held:
        try:
            exits.get(timeout=wait_seconds)
        except queue.Empty:
            wait_seconds = min(2 * wait_seconds, _MOST_WAIT_SECONDS)
            continue
        return
