"""When a node stops waiting for another: how long nothing was heard of it, and whether it has
anything better to do meanwhile. Pure: it is told the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: A node says something at least so often, a block or that it is there.
BEAT_SECONDS = 0.2
#: Of a node that has been heard: so long without a word, and it is gone. Seven beats.
SILENT_SECONDS = 1.5
_GAPS = 3.0
#: Of one that has never come, once all that oneself has to read is read.
ABSENT_SECONDS = 3.0


@dataclass
class Silence:
    """What is known of how long each of the others has been silent. Seconds are of one clock."""

    began: float
    heard: dict[int, float] = field(default_factory=dict)
    #: To whom this node does not listen just now: it is busy with what they said.
    busy: set[int] = field(default_factory=set)
    #: Since when this node has had nothing to read any more.
    idle_since: float | None = None

    #: The longest that each was silent before it said something.
    gaps: dict[int, float] = field(default_factory=dict)

    def hear(self, node: int, now: float) -> None:
        before = self.heard.get(node, now)
        self.gaps[node] = max(self.gaps.get(node, 0.0), now - before)
        self.heard[node] = max(now, before)

    def listen(self, node: int, *, listens: bool) -> None:
        (self.busy.discard if listens else self.busy.add)(node)

    def set_idle(self, now: float, *, idle: bool) -> None:
        if not idle:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now

    def is_lost(self, node: int, now: float, woke: float) -> bool:
        """`woke`: since when this process has run without a break of its own: it, too, may have
        been stopped, and then all others seem silent.
        """
        if node in self.busy:
            return False
        if node in self.heard:
            # A node whose processors have more to do than they can was silent before.
            longest = max(SILENT_SECONDS, _GAPS * self.gaps.get(node, 0.0))
            return now - max(self.heard[node], woke) > longest
        if self.idle_since is None:
            return False
        return now - max(self.idle_since, woke) > ABSENT_SECONDS
