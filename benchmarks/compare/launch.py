"""Starts the ranks of one load as real processes, as torchrun would, and holds them at a barrier.

The clock runs from the moment at which all have imported everything until the last has finished.
Knows nothing of filesystems. Ends only the processes that it started.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from cgroup import within
from job import Job

RANK_SCRIPT = Path(__file__).resolve().parent / "rank.py"
START_LIMIT_S = 900.0  # engines import for a minute where cores are few
_EXIT_LIMIT_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """What came of one load. `seconds` is None and `problem` says why where it did not end well."""

    seconds: float | None
    problem: str = ""
    ranks: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def clean_environment() -> dict[str, str]:
    """Without options of the product that happen to be set outside."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SHARDAHEAD_") and name != "PYTHONPATH"
    }


def probe(python: str, method: str) -> dict[str, Any]:
    """{"missing": why the method cannot run, or ""; "versions": of its packages}."""
    done = subprocess.run(
        [python, str(RANK_SCRIPT), "--probe", method],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
        timeout=START_LIMIT_S,
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"missing": _last_line(done.stderr) or f"{python} does not run", "versions": {}}
    return found


class RankProcess(Protocol):
    """What of a process is used here."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[str] | None: ...
    @property
    def stdout(self) -> IO[str] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Ranks:
    """The processes of one load, started and not yet let go."""

    def __init__(self, job: Job, python: str, variables: dict[str, str]) -> None:
        self._job = job
        self._folder = Path(job.folder)
        self._processes: list[RankProcess] = []
        self._timed_out = False
        self._first_failed: int | None = None
        job.write(self._folder / "job.json")
        common = {
            **clean_environment(),
            **variables,
            "WORLD_SIZE": str(job.size),
            "LOCAL_WORLD_SIZE": str(job.size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(_free_port()),
            "OMP_NUM_THREADS": "1",
        }
        for rank in range(job.size):
            self._processes.append(self._start(python, rank, common))

    def _start(self, python: str, rank: int, common: dict[str, str]) -> RankProcess:
        with open(self._folder / f"rank-{rank}.log", "w") as log:
            return subprocess.Popen(
                within(
                    self._job.memory_group,
                    [python, str(RANK_SCRIPT), str(self._folder / "job.json")],
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                start_new_session=True,
            )

    def wait_ready(self) -> Outcome:
        """Returns when every rank has imported everything; `problem` where one did not."""
        lines = self._lines(START_LIMIT_S)
        if self._first_failed is not None or self._timed_out:
            return Outcome(None, f"did not start: {self._said()}")
        return Outcome(None, versions=json.loads(lines[0])["versions"])

    def go(self, limit_s: float) -> Outcome:
        """Lets them load, and waits for the last one at most `limit_s`."""
        started = time.monotonic()
        self._tell()
        lines = self._lines(limit_s)
        results: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
        if self._timed_out:
            return Outcome(None, f"more than {limit_s:g} s", results)
        if self._first_failed is not None:
            return Outcome(None, self._said(), results)
        for result in results:
            result["seconds"] = result["ended"] - started
        wrong = next((problem for problem in map(_wrong, results) if problem), "")
        last = max((result["seconds"] for result in results), default=0.0)
        return Outcome(None if wrong else last, wrong, results)

    def end(self) -> None:
        """Lets them exit, and kills who does not."""
        self._tell()
        deadline = time.monotonic() + _EXIT_LIMIT_S
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        self._kill_signal()
        for process in self._processes:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _tell(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                with suppress(OSError, ValueError):
                    process.stdin.write("go\n")
                    process.stdin.flush()

    def _lines(self, limit_s: float) -> list[str]:
        """One line of each rank; empty for those that ended without one."""
        failed = threading.Event()

        def line_of(numbered: tuple[int, RankProcess]) -> str:
            rank, process = numbered
            line = process.stdout.readline() if process.stdout is not None else ""
            if not line and rank != self._job.kill_rank and not failed.is_set():
                self._first_failed = rank
                failed.set()  # the others may wait for it for ever
            return line

        with ThreadPoolExecutor(len(self._processes)) as pool, self._killed_after(limit_s, failed):
            return list(pool.map(line_of, enumerate(self._processes)))

    @contextmanager
    def _killed_after(self, limit_s: float, failed: threading.Event) -> Iterator[None]:
        """Kills all ranks at the limit, or when one has failed, unless the body ends before."""
        ended = threading.Event()

        def watch() -> None:
            deadline = time.monotonic() + limit_s
            while not ended.wait(0.05):
                self._timed_out = time.monotonic() > deadline
                if self._timed_out or failed.is_set():
                    self._kill_signal()
                    return

        watcher = threading.Thread(target=watch)
        with ExitStack() as stack:
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(ended.set)
            yield

    def _kill_signal(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own

    def _said(self) -> str:
        """The first rank that failed, and its last words."""
        rank = self._first_failed
        if rank is None:
            return f"not ready after {START_LIMIT_S:g} s"
        text = _last_line((self._folder / f"rank-{rank}.log").read_text(errors="replace"))
        return f"rank {rank} failed: {text or 'without a word'}"

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _wrong(result: dict[str, Any]) -> str:
    """What a rank did not get, in words; nothing where it got everything."""
    rank = f"rank {result['rank']}"
    if result["missing"] or result["unexpected"]:
        return f"{rank}: missing {result['missing']}, unexpected {result['unexpected']}"
    if result["bytes"] != result["expected_bytes"]:
        return f"{rank}: {result['bytes']} bytes instead of {result['expected_bytes']}"
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        port: int = probe_socket.getsockname()[1]
        return port
