"""When a node stops waiting for another: how long nothing was heard of it, in time in which this
node itself could have heard it, and whether it has anything better to do meanwhile. Pure: it is
told the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: A node says something at least so often, a block or that it is there.
BEAT_SECONDS = 0.2
#: Of a node that has been heard: so long without a word, and it is gone. Seven beats.
SILENT_SECONDS = 1.5
_GAPS = 3.0
#: Of one that has never come, or sends no byte of its blocks, once all that oneself has to read is
#: read.
ABSENT_SECONDS = 3.0
#: One that sends nothing is late where it takes so many times what this node took for a block.
_SLOWER = 3.0
#: Between two looks at the clock no more than this counts: two of what a look waits for.
_MOST_STEP_SECONDS = 0.2


class OwnTime:
    """Time in which this process ran. One that was stopped, or waited for a processor, has heard
    nobody meanwhile: what passes between two looks counts only as far as a look is due again.

    One thread advances it; any may read it.
    """

    def __init__(self, now: float) -> None:
        self.seconds: float = 0.0
        self._looked = now

    def advance(self, now: float) -> float:
        """By a look at the clock. Gives `seconds`."""
        self.seconds += min(max(0.0, now - self._looked), _MOST_STEP_SECONDS)
        self._looked = now
        return self.seconds


@dataclass
class Silence:
    """What is known of how long each of the others has been silent, in seconds of OwnTime."""

    heard: dict[int, float] = field(default_factory=dict)
    #: To whom this node does not listen just now: it is busy with what they said.
    busy: set[int] = field(default_factory=set)
    #: Since when this node has had nothing to read any more.
    idle_since: float | None = None
    #: The longest that each was silent before it said something.
    gaps: dict[int, float] = field(default_factory=dict)
    #: When somebody has sent some of a block.
    fed: float = 0.0
    #: When this node has read a block, and the longest that it took for one.
    read: float = 0.0
    longest_read: float = 0.0

    def hear(self, node: int, now: float) -> None:
        before = self.heard.get(node, now)
        self.gaps[node] = max(self.gaps.get(node, 0.0), now - before)
        self.heard[node] = max(now, before)

    def feed(self, node: int, now: float) -> None:
        """Some of a block of it has come."""
        self.hear(node, now)
        self.fed = max(self.fed, now)

    def has_read(self, now: float) -> None:
        """This node, a block."""
        self.longest_read = max(self.longest_read, now - self.read)
        self.read = now

    def listen(self, node: int, *, listens: bool) -> None:
        (self.busy.discard if listens else self.busy.add)(node)

    def set_idle(self, now: float, *, idle: bool) -> None:
        if not idle:
            if self.idle_since is not None:
                self.read = now
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = now

    def is_silent(self, node: int, now: float) -> bool:
        """Of one that has been heard: for so long that it is gone."""
        if node in self.busy or node not in self.heard:
            return False
        # A node whose processors have more to do than they can was silent before.
        longest = max(SILENT_SECONDS, _GAPS * self.gaps.get(node, 0.0))
        return now - self.heard[node] > longest

    def is_absent(self, node: int, now: float) -> bool:
        """It has never come, and there is nothing else to wait for."""
        if node in self.heard or self.idle_since is None:
            return False
        return now - self.idle_since > ABSENT_SECONDS

    def is_late(self, node: int, now: float) -> bool:
        """It says that it is there, and nothing comes, of it or of anybody: while others send, what
        it has may only be waiting for its turn.
        """
        if node in self.busy or self.idle_since is None:
            return False
        longest = max(ABSENT_SECONDS, _SLOWER * self.longest_read)
        return now - max(self.idle_since, self.fed) > longest
