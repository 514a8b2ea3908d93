"""What one load makes of `learn=`: it begins with what the last one like it has touched, and leaves
behind what it has touched itself.

Looking is done by the core; what is read and written lies in profile_file.py, what is kept of two
profiles is decided in profile.py. Nothing here ever fails a load: what goes wrong is said once, in
the log. A forked child learns nothing. Any thread.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from shardahead import _core
from shardahead.checkpoint.shards import Shard
from shardahead.node.job_rank import job_rank
from shardahead.node.launcher import LocalTopology
from shardahead.prefetch.byte_ranges import Ranges, common, merged, total
from shardahead.prefetch.conclusion import conclude
from shardahead.prefetch.early_touches import EarlyTouches, is_small
from shardahead.prefetch.options import PrefetchOptions, is_disabled
from shardahead.prefetch.profile import LEAST_GRAIN_BYTES, Profile, ProfileError, next_profile
from shardahead.prefetch.profile_file import named_files, profile_name, read_profile, write_profile
from shardahead.prefetch.profile_trust import ProfileTrust
from shardahead.units import format_bytes, printable
from shardahead.version import __version__

Learned: TypeAlias = Literal["no", "recorded", "used", "wrong"]
Spans: TypeAlias = Sequence[Sequence[tuple[int, int]] | None]

logger = logging.getLogger("shardahead")

# A file of which no more than this was touched may have been looked at only, for its header.
_LARGE_BYTES = 64 * 1024**2
_LEAST_TRACE_BYTES = LEAST_GRAIN_BYTES
_LEAST_TRACE_OF_LARGE_BYTES = 4 * 1024**2

_said: set[str] = set()


@dataclass(frozen=True)
class LearnedFigures:
    """Of one load, so far: `wanted_bytes` by its profile, None without one, and `touched_bytes`."""

    learned: Learned
    profile: str
    wanted_bytes: int | None
    touched_bytes: int


class Learning:
    """Of one load of `shards`, which may be reordered: by its profile, where it has one.

    `touched` is told, or finds out, what the consumer uses of them, by their place in `shards`.
    """

    def __init__(
        self,
        path: str,
        who: str,
        shards: Sequence[Shard],
        profile: Profile | None,
        *,
        reorder: bool,
    ) -> None:
        self.path = path
        self._who = who
        self._files = named_files(shards)
        self._profile = profile
        places = list(range(len(shards)))
        if profile is not None and reorder:
            places = [*profile.order, *(i for i in places if i not in set(profile.order))]
        self._places = places  # of `shards` here, in the checkpoint
        self.shards: tuple[Shard, ...] = tuple(shards[place] for place in places)
        self.touched: _core.TouchedPages = _core.TouchedPages([s.size_bytes for s in self.shards])
        self._wanted: list[Ranges] | None = None
        self._trust: ProfileTrust | None = None
        if profile is not None:
            self._wanted = [profile.ranges[place] for place in places]
            self._trust = ProfileTrust(self._wanted)
            for index, ranges in enumerate(self._wanted):
                self.touched.expect(index, ranges)
        self._early = EarlyTouches(len(self.shards))
        self.given_up: bool = False
        #: The consumer is looked at from time to time, and may touch what is not seen.
        self.sampled: bool = False
        self._process = os.getpid()
        self._ends = [True]  # emptied by the one that ends it: pop() is atomic

    @property
    def has_profile(self) -> bool:
        """Whether the last load like this one has left what it touched."""
        return self._wanted is not None

    def narrowed(self, spans: Spans) -> list[Sequence[tuple[int, int]] | None]:
        """Of what is wanted by itself, what is wanted by the profile as well."""
        if self._wanted is None:
            return [*spans]
        return [
            wanted if own is None else common(merged(own), wanted)
            for own, wanted in zip(spans, self._wanted, strict=True)
        ]

    def expected(self, index: int, offset: int, length: int) -> Ranges | None:
        """What of a range is to be brought in before it is used; None for all of it."""
        if self._wanted is None:
            return None
        return () if self.given_up else common(((offset, length),), self._wanted[index])

    def early(self) -> Iterator[tuple[int, Ranges]]:
        """What the last load touched ahead of the rest, by file, in its order."""
        if self._profile is not None and self._profile.early:
            for place in self._profile.order:
                if self._profile.early[place]:
                    yield self._places.index(place), self._profile.early[place]

    def looked(self) -> None:
        """What is touched has been looked at from outside."""
        self._early.look(self.touched)

    def passed(self, index: int, ranges: Iterable[tuple[int, int]]) -> None:
        """The consumer has let these go by, whatever it has touched of them."""
        if self._trust is not None and not self.given_up:
            for offset, length in ranges:
                self._trust.passed(index, offset, length)

    def is_in_the_way(self) -> bool:
        """Whether the profile is so wrong that what it wants is not to be brought in any more. True
        once: then it is given up.
        """
        if self._trust is None or self.given_up:
            return False
        touched = self.touched
        self.given_up = self._trust.is_lost(
            touched.touched_bytes,
            touched.unexpected_bytes,
            lambda index: tuple(touched.ranges(index)),
            sampled=self.sampled,
        )
        return self.given_up

    @property
    def is_open(self) -> bool:
        """Whether nothing is known yet of the profile there is."""
        touched = self.touched
        return self._trust is not None and self._trust.is_open(
            touched.touched_bytes, touched.unexpected_bytes
        )

    def give_up_with_others(self) -> bool:
        """Others of the node were misled by theirs. Whether this profile is given up, too: once,
        and where nothing is known of it yet.
        """
        if self.given_up:
            return False
        self.given_up = self.is_open
        return self.given_up

    def figures(self) -> LearnedFigures:
        wanted = None if self._wanted is None else sum(map(total, self._wanted))
        return LearnedFigures(self._state(), self.path, wanted, self.touched.touched_bytes)

    def end(self, *, complete: bool, only_if_none: bool = False) -> None:
        """The load is over. Where it is `complete`, what was touched is kept, once nothing of what
        was handed out is held any more, or at the exit of the process. `only_if_none`: nothing is
        replaced. Returns at once.
        """
        if os.getpid() != self._process or not self._ends:
            return
        try:
            self._ends.pop()
        except IndexError:
            return
        if not complete or (only_if_none and self._profile is not None):
            return
        try:
            conclude(self.touched, self.keep, _say_failed)
        except RuntimeError as error:  # no more threads
            _say_once(f"nothing is learned from a load: {error}")

    def keep(self) -> None:
        """Writes what is to be kept, which may wait for the folder's server."""
        self.touched.look()
        touched = self._touched()
        if not self._is_trace(touched):
            _say_once(
                "nothing is learned from a load: it left no trace that this process sees, as with "
                "pread(2), O_DIRECT or another process"
            )
            return
        kept = next_profile(self._profile, touched, sampled=self.sampled, given_up=self.given_up)
        self._say_wrong()
        if kept is None:
            return
        try:
            write_profile(self.path, kept)
        except (OSError, ProfileError) as error:
            _say_once(f"no profile is written to {printable(self.path)}: {error}")
            return
        logger.info("learned: %s is recorded in %s", format_bytes(kept.touched_bytes), self.path)

    def _state(self) -> Learned:
        if self._wanted is None:
            return "recorded"
        return "wrong" if self.touched.unexpected_bytes else "used"

    def _touched(self) -> Profile:
        ranges: list[Ranges] = [()] * len(self._files)
        for index, place in enumerate(self._places):
            ranges[place] = tuple(self.touched.ranges(index))
        order = tuple(self._places[index] for index in self.touched.order())
        early: list[Ranges] = [()] * len(self._files)
        for index, place in enumerate(self._places):
            early[place] = self._early.ranges(index, ranges[place])
        return Profile(
            self._files,
            self._who,
            LEAST_GRAIN_BYTES,
            tuple(ranges),
            order,
            __version__,
            early=tuple(early) if any(early) and is_small(early) else (),
        )

    def _is_trace(self, touched: Profile) -> bool:
        """Headers alone are read by those, too, that read the rest in ways that are not seen."""
        return any(
            ranges and sum(ranges[-1]) > _most_header_bytes(size)
            for ranges, (_, size) in zip(touched.ranges, self._files, strict=True)
        )

    def _say_wrong(self) -> None:
        unexpected, touched = self.touched.unexpected_bytes, self.touched.touched_bytes
        if self._wanted is None or not unexpected:
            return
        level = logging.WARNING if 16 * unexpected > touched else logging.INFO
        logger.log(
            level,
            "the profile %s is wrong: %s of %s that the load touched is not in it%s; it is "
            "recorded anew",
            printable(self.path),
            format_bytes(unexpected),
            format_bytes(touched),
            ", and prefetching was given up" if self.given_up else "",
        )


def begin_learning(
    shards: Sequence[Shard],
    options: PrefetchOptions,
    where: LocalTopology,
    *,
    reorder: bool = False,
) -> Learning | None:
    """For a load that begins; None where none is asked for, or none can be had. Reads a file.

    `reorder`: the files may come in the order in which the last load touched them. All ranks of a
    node must have the same order, so they do only where there is one.
    """
    if options.learn is None or is_disabled():
        return None
    who = f"key {options.learn_key}" if options.learn_key else job_rank(where)
    files = named_files(shards)
    folder = os.path.abspath(options.learn)
    path = os.path.join(folder, profile_name(files, who))
    profile = None
    try:
        if not os.path.isdir(folder):
            _say_once(f"nothing is learned: {printable(folder)} is no folder")
            return None
        profile = read_profile(path, files)
    except (OSError, ProfileError) as error:
        _say_once(f"the profile {printable(path)} is passed over: {error}")
    learning = Learning(path, who, shards, profile, reorder=reorder and where.size == 1)
    if not learning.touched.can_look:
        _say_once("nothing is learned: /proc/self/pagemap of this process cannot be read")
        return None
    return learning


def _most_header_bytes(size_bytes: int) -> int:
    return _LEAST_TRACE_BYTES if size_bytes < _LARGE_BYTES else _LEAST_TRACE_OF_LARGE_BYTES


def _say_once(text: str) -> None:
    """A warning, once in this process."""
    if text not in _said:
        _said.add(text)
        logger.warning("%s", text)


def _say_failed(error: Exception) -> None:
    _say_once(f"nothing is learned from a load: {error!r}")
