"""What has changed of a checkpoint between two looks, and what is to be brought in because of that.

Pure: it is told listings and times. The filesystem is looked at elsewhere (present_shards.py). One
thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: What could not be brought in is tried again after so many seconds, or when it has changed.
RETRY_SECONDS = 30.0


@dataclass(frozen=True)
class Seen:
    """What a look tells of a file."""

    size_bytes: int
    modified_nanoseconds: int
    device: int
    inode: int

    def is_alike(self, other: Seen | None) -> bool:
        """Whether all but the inode is the same: some mounts make one up at every look."""
        return other is not None and (
            self.size_bytes,
            self.modified_nanoseconds,
            self.device,
        ) == (other.size_bytes, other.modified_nanoseconds, other.device)


@dataclass(frozen=True)
class Change:
    """What came of a look. Paths: those to be brought in now, in the order of the listing; those
    that are still written to, or could not be brought in; those that are gone. idle_seconds: since
    a look found anything that was not so before.
    """

    bring_in: tuple[str, ...] = ()
    growing: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    idle_seconds: float = 0.0


@dataclass
class Follower:
    """Follows one checkpoint from look to look.

    The first look brings in all that is there. From then on a file is brought in once two looks in
    a row have found it the same: a client of a network filesystem throws away what it has of a file
    that is written to elsewhere, and would read all of it again at every look.
    """

    _brought: dict[str, Seen] = field(default_factory=dict)
    _last: dict[str, Seen] | None = None
    _failed: dict[str, tuple[Seen, float]] = field(default_factory=dict)  # and when to try again
    _changed_at: float = 0.0
    # Their inode has changed once too often while nothing else did.
    _unsteady: set[str] = field(default_factory=set)
    _moved: set[str] = field(default_factory=set)  # once

    def look(self, listing: Mapping[str, Seen], now: float) -> Change:
        """Of a checkpoint whose shards are these. What it gives to be brought in counts as brought
        in, unless `failed` says otherwise.
        """
        before = self._last
        if before is None or self._differs(before, listing):
            self._changed_at = now
        bring_in: list[str] = []
        growing: list[str] = []
        for path, seen in listing.items():
            if self._same(path, self._brought.get(path), seen):
                continue
            failed, again_at = self._failed.get(path, (None, 0.0))
            if self._same(path, failed, seen) and now < again_at:
                growing.append(path)
            elif before is None or self._same(path, before.get(path), seen):
                bring_in.append(path)
                self._brought[path] = seen
                self._failed.pop(path, None)
            else:
                growing.append(path)
        gone = [path for path in {**self._brought, **self._failed} if path not in listing]
        for path in gone:
            self._brought.pop(path, None)
            self._failed.pop(path, None)
        self._moved &= listing.keys()
        self._unsteady &= listing.keys()
        self._last = dict(listing)
        idle_seconds = 0.0 if bring_in or growing else now - self._changed_at
        return Change(tuple(bring_in), tuple(growing), tuple(gone), idle_seconds)

    def failed(self, path: str, now: float) -> None:
        """It could not be brought in: it is tried again."""
        seen = self._brought.pop(path, None)
        if seen is not None:
            self._failed[path] = (seen, now + RETRY_SECONDS)

    def _same(self, path: str, before: Seen | None, now: Seen) -> bool:
        return now == before or (path in self._unsteady and now.is_alike(before))

    def _differs(self, before: Mapping[str, Seen], now: Mapping[str, Seen]) -> bool:
        """Remembers whose inode proves nothing."""
        differs = before.keys() != now.keys()
        for path, seen in now.items():
            was = before.get(path)
            moved = seen != was and seen.is_alike(was)
            if moved and path in self._moved:
                self._unsteady.add(path)
            (self._moved.add if moved else self._moved.discard)(path)
            differs |= not self._same(path, was, seen)
        return differs
