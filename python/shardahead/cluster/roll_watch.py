"""What a node learns of who is gone: from the roll of its job, asked by a thread of its own, for a
host that has stopped leaves whoever asks waiting; once nobody answers, from what it finds out
itself.

One thread that asks this; the thread that asks the roll is started here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

from shardahead.cluster.rendezvous import Roll

#: Between two questions to the roll.
ASK_SECONDS = 0.1
_SILENT_SECONDS = 1.5  # and it answers no more


class RollWatch:
    """Of one node."""

    def __init__(self, roll: Roll) -> None:
        self._roll = roll
        self._answered = time.monotonic()
        self._without_roll = False
        self._on_roll: deque[int] = deque()  # who is gone, and not taken note of
        self._found: deque[int] = deque()  # the same, as this node itself has found it out
        threading.Thread(target=self._ask, name="roll", daemon=True).start()

    def note(self, node: int) -> None:
        """It is gone, as this node has found out."""
        self._found.append(node)

    def newly_gone(self) -> list[int]:
        """Since the last call: in the order of the roll, while it answers."""
        if not self._without_roll and time.monotonic() - self._answered > _SILENT_SECONDS:
            self._without_roll = True
        found = []
        source = self._found if self._without_roll else self._on_roll
        with suppress(IndexError):
            while True:
                found.append(source.popleft())
        return found

    def _ask(self) -> None:
        noted = 0
        try:
            while True:
                for node in list(self._found)[noted:]:
                    self._roll.note_gone(node)
                    noted += 1
                self._on_roll.extend(self._roll.newly_gone())
                self._answered = time.monotonic()
                time.sleep(ASK_SECONDS)
        except RuntimeError:  # its host has left, or died
            self._without_roll = True
