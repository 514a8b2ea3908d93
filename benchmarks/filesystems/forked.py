"""Ranks that are forked from this process, which has imported everything, instead of started anew.

Imports take longer than most loads here. Whoever forks must have one thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import methods  # noqa: F401 - for the ranks
import rank as one_rank
from job import Job, read_job
from launch import RankProcess, Ranks

_POLL_S = 0.01


class ForkedRanks(Ranks):
    """As `Ranks`, of this interpreter."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, sys.executable, {})

    def _start(
        self,
        python: str,  # noqa: ARG002 - it is this process's own
        rank: int,
        common: dict[str, str],
    ) -> RankProcess:
        variables = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        folder = Path(self._job.folder)
        return ForkedRank(folder / "job.json", rank, variables, folder / f"rank-{rank}.log")


class ForkedRank:
    """One of them; as much of a Popen as `Ranks` uses."""

    def __init__(self, job: Path, rank: int, variables: dict[str, str], log: Path) -> None:
        self._status: int | None = None
        told, tell = os.pipe()
        heard, say = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _be_a_rank(job, rank, variables, log, told, say)
        os.close(told)
        os.close(say)
        self.stdin: TextIO = os.fdopen(tell, "w")
        self.stdout: TextIO = os.fdopen(heard)

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("rank", timeout or 0.0)
            time.sleep(_POLL_S)
        return status


def _be_a_rank(
    job: Path, rank: int, variables: dict[str, str], log: Path, told: int, say: int
) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for fd, number in ((told, 0), (words, 1), (words, 2)):
            os.dup2(fd, number)
        os.environ.clear()
        os.environ.update(variables)
        sys.stdin = os.fdopen(0)
        channel = os.fdopen(say, "w")

        def tell(document: dict[str, Any]) -> None:
            print(json.dumps(document), file=channel, flush=True)

        one_rank.run(read_job(job), rank, tell)
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)
