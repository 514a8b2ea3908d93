"""Loads, each with the reports of all ranks of its node, and what they come to together. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shardahead.command.load_files import LoadFile
from shardahead.prefetch.series import Sample
from shardahead.units import format_bytes


@dataclass(frozen=True)
class Load:
    """One load, by the ranks of one node. `processes` are in the order of local rank."""

    processes: tuple[LoadFile, ...]

    @property
    def started_seconds(self) -> float:
        """When the first began, since 1970."""
        return min(each.started_seconds for each in self.processes)

    @property
    def seconds(self) -> float:
        """From then to the end of the last."""
        return max(each.ended_seconds for each in self.processes) - self.started_seconds

    @property
    def first(self) -> LoadFile:
        return self.processes[0]

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(size for _, size in self.first.checkpoint)

    @property
    def read_bytes(self) -> int:
        """Brought in by all of them."""
        return sum(each.document["read_bytes"] for each in self.processes)

    @property
    def consumed_bytes(self) -> int:
        """By the slowest."""
        return min(int(each.document["consumed_bytes"]) for each in self.processes)

    @property
    def bytes_per_second(self) -> float:
        return self.read_bytes / self.seconds if self.seconds > 0 else 0.0

    @property
    def went_on(self) -> bool:
        """Whether anything came, was on its way, or was consumed."""
        return any(
            sample.read_bytes or sample.consumed_bytes or sample.claimed_bytes
            for each in self.processes
            for sample in each.samples
        )

    @property
    def why_not_drawn(self) -> str | None:
        """What there is to say instead of a plot where it did not go on; None where it did."""
        if self.went_on:
            return None
        if (self.figure("resident_bytes", max) or 0) < self.total_bytes:
            return "nothing to draw: nothing was brought in, and nothing consumed"
        return f"nothing to draw: all {format_bytes(self.total_bytes)} were resident before"

    @property
    def complete(self) -> bool:
        """Whether none of them says why it is not."""
        return all(each.document.get("reason") is None for each in self.processes)

    def figure(self, name: str, together: Callable[[list[Any]], Any] = sum) -> Any:
        """Of the reports of the prefetches; None where there are none."""
        found = [each.report[name] for each in self.processes if each.report]
        return together(found) if found else None


def group(files: Sequence[LoadFile]) -> list[Load]:
    """Which of them are of one load: of the same files on the same node, at the same time, and of
    different local ranks. In the order of time.
    """
    found: list[list[LoadFile]] = []
    for file in sorted(files, key=lambda file: file.started_seconds):
        for load in found:
            if _belongs(file, load):
                load.append(file)
                break
        else:
            found.append([file])
    return [Load(tuple(sorted(load, key=lambda file: file.local_rank))) for load in found]


def _belongs(file: LoadFile, load: Sequence[LoadFile]) -> bool:
    return (
        file.node == load[0].node
        and file.checkpoint == load[0].checkpoint
        and file.document["entry"] == load[0].document["entry"]
        and file.started_seconds <= max(each.ended_seconds for each in load)
        and all(file.local_rank != each.local_rank for each in load)
    )


@dataclass(frozen=True)
class Moment:
    """How far a load was: bytes that all of its ranks had brought in by then, that the slowest of
    them had consumed, that all had in flight; and how far the prefetch might be ahead, 0: no limit.
    """

    read_bytes: int
    consumed_bytes: int
    claimed_bytes: int
    window_bytes: int


def moment(load: Load, seconds: float) -> Moment:
    """So long after its start. What a rank has reached at its end, it keeps."""
    now = [_sample_at(file, load.started_seconds + seconds) for file in load.processes]
    windows = [sample.window_bytes for sample in now if sample.window_bytes]
    return Moment(
        sum(sample.read_bytes for sample in now),
        min(sample.consumed_bytes for sample in now),
        sum(sample.claimed_bytes for sample in now),
        min(windows, default=0),
    )


_NOTHING = Sample(0.0)


def _sample_at(file: LoadFile, time_seconds: float) -> Sample:
    """Between two samples bytes go on evenly; the rest is as it was seen last."""
    seconds = time_seconds - file.started_seconds
    after = bisect_right([sample.seconds for sample in file.samples], seconds)
    if after == 0:
        return _NOTHING
    before = file.samples[after - 1]
    if after == len(file.samples):
        return before
    later = file.samples[after]
    share = (seconds - before.seconds) / (later.seconds - before.seconds)

    def between(one: int, other: int) -> int:
        return round(one + share * (other - one))

    return before._replace(
        read_bytes=between(before.read_bytes, later.read_bytes),
        consumed_bytes=between(before.consumed_bytes, later.consumed_bytes),
    )
