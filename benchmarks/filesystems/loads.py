"""The ways to load a checkpoint from a mount that is made anew for each: time and bytes served.

The ranks are those of benchmarks/compare, real processes. Each sums up every tensor as it comes,
and all sums are compared. Ranks are forked, so no thread may live on here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import torch

from forked import ForkedRanks
from job import Job
from judged import AFTER_WARM, ITERATORS, PLAIN, PREFETCHING, WARM, Load
from launch import Outcome, Ranks
from source import checksums_of, shards_of, tensors_of
from stage import Backend

METHODS = {PLAIN: "plain", ITERATORS: "shardahead", PREFETCHING: "prefetching", AFTER_WARM: "plain"}
WAYS = (PLAIN, ITERATORS, PREFETCHING, WARM)
Mounted = Callable[[], AbstractContextManager[None]]


class Loads:
    """`data`: the checkpoint where it can be read at any time. `folder`: where it is loaded from.
    `scratch`: for what the ranks tell each other.
    """

    def __init__(
        self,
        data: Path,
        folder: Path,
        scratch: Path,
        backend: Backend,
        mounted: Mounted,
        limit_s: float,
    ) -> None:
        torch.set_num_threads(1)
        files = shards_of(data)
        self._folder = folder
        self._backend = backend
        self._mounted = mounted
        self._limit_s = limit_s
        self._job = Job(
            method="",
            files=[str(folder / path.name) for path in files],
            tensors=tensors_of(files),
            size=1,
            folder=str(scratch),
            verify=True,
        )
        self._sums = checksums_of(self._job, files, 0)

    def cold(self, way: str, ranks: int) -> Iterator[Load]:
        """One cold load; of WARM also the one after it."""
        if way == WARM:
            with self._cold_mount():
                yield self._warm(ranks)
                with self._started(AFTER_WARM, ranks) as started:
                    yield self._load(AFTER_WARM, ranks, started)
            return
        with self._started(way, ranks) as started, self._cold_mount():
            yield self._load(way, ranks, started)

    def _cold_mount(self) -> AbstractContextManager[None]:
        self._backend.forget()
        return self._mounted()

    def _started(self, way: str, ranks: int) -> ForkedRanks:
        return ForkedRanks(replace(self._job, method=METHODS[way], size=ranks))

    def _load(self, way: str, ranks: int, started: Ranks) -> Load:
        outcome = started.wait_ready()
        before = self._backend.served_when_still()
        if not outcome.problem:
            outcome = started.go(self._limit_s)
        served = self._backend.served_when_still() - before
        problem = outcome.problem or self._wrong(outcome)
        started.end()
        return Load(way, ranks, None if outcome.problem else outcome.seconds, served, problem)

    def _wrong(self, outcome: Outcome) -> str:
        for rank in outcome.ranks:
            wrong = [name for name in self._sums if rank["checksums"].get(name) != self._sums[name]]
            if wrong:
                return f"WRONG BYTES: rank {rank['rank']}, {len(wrong)} tensors: {wrong[:3]}"
        return ""

    def _warm(self, ranks: int) -> Load:
        """The command, as it is typed."""
        line = [sys.executable, "-m", "shardahead", "warm", "--json", str(self._folder)]
        before = self._backend.served_when_still()
        began = time.monotonic()
        problem, status, document = "", None, {}
        try:
            done = subprocess.run(
                line, capture_output=True, text=True, timeout=self._limit_s, check=False
            )
            status = done.returncode
            document = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            problem = f"more than {self._limit_s:g} s"
        except ValueError:
            problem = f"said {done.stdout[:200]!r}, {done.stderr.strip()[-300:]}"
        seconds = time.monotonic() - began
        return Load(
            WARM,
            ranks,
            None if problem else seconds,
            self._backend.served_when_still() - before,
            problem,
            status,
            document.get("complete"),
            document.get("reason") or "",
        )
