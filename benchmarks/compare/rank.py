"""One rank of a comparison: loads every tensor by one method and says what it cost.

Started by launch.py, under the interpreter of the method's environment; says on standard output,
in lines of JSON, first that it is ready and then what it found. Judges nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import signal
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "demo")]

import torch  # noqa: E402

from cut import GIB, part_bytes  # noqa: E402
from job import METHODS, Job, read_job  # noqa: E402

if TYPE_CHECKING:
    from methods import Place, Start, Weights

_LEAST_SLEEP_SECONDS = 0.0005  # a shorter one would last longer than it says


class Consumer:
    """Copies each tensor into one buffer that is reused, and does the work that stands for more."""

    def __init__(self, job: Job, rank: int) -> None:
        self.job = job
        share = job.share(rank)
        parts = [wanted.part_bytes(share, job.sharing) for wanted in job.tensors.values()]
        # Filled: fresh pages would be faulted in during the load.
        self.buffer = torch.empty(max(parts, default=0), dtype=torch.uint8).fill_(1)
        _warm_copies()
        self.names: list[str] = []
        self.bytes = 0
        self.checksums: dict[str, int] = {}
        self._owed_seconds = 0.0
        killed = rank == job.kill_rank
        all_bytes = part_bytes(job.tensors.values(), share, job.sharing)
        self._killed_at_bytes = all_bytes * job.kill_after if killed else float("inf")

    def consume(self, weights: Weights) -> None:
        for name, tensor in weights:
            self._copy(name, tensor)
            self._work(tensor.nbytes)
            if self.bytes >= self._killed_at_bytes:
                os.kill(os.getpid(), signal.SIGKILL)

    def _copy(self, name: str, tensor: torch.Tensor) -> None:
        target = self.buffer[: tensor.nbytes]
        if tensor.nbytes:
            raw = (tensor.reshape(1) if tensor.dim() == 0 else tensor).view(torch.uint8)
            target.view(raw.shape).copy_(raw)
        self.names.append(name)
        self.bytes += tensor.nbytes
        if self.job.verify:
            self.checksums[name] = zlib.crc32(target.numpy().data)

    def _work(self, size_bytes: int) -> None:
        self._owed_seconds += size_bytes / GIB * self.job.work_s_per_gib
        if self._owed_seconds >= _LEAST_SLEEP_SECONDS:
            before = time.monotonic()
            time.sleep(self._owed_seconds)
            self._owed_seconds -= time.monotonic() - before


def _warm_copies() -> None:
    """Brings in the code of the copies, whose pages would be faulted in during the load."""
    matrix = torch.ones(64, 64, dtype=torch.bfloat16)
    for part in (matrix, matrix[:32], matrix[:, :32], matrix[0, 0].reshape(1)):
        raw = part.view(torch.uint8)
        torch.empty(part.nbytes, dtype=torch.uint8).view(raw.shape).copy_(raw)


def prepared(place: Place) -> Start:
    """The method, imported. Raises NotInstalledError or ImportError where it is not there."""
    module, function, _ = METHODS[place.job.kind]
    method: Callable[[Place], Start] = getattr(importlib.import_module(module), function)
    return method(place)


def versions_of(method: str) -> dict[str, str]:
    """Of Python, of torch and of what the method is made of."""
    found = {"python": platform.python_version()}
    for package in ("torch", *METHODS[method.split()[0]][2]):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def used() -> dict[str, float]:
    """Major faults of this thread, which consumes; the rest of its process and of what that ran."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "major_faults": resource.getrusage(resource.RUSAGE_THREAD).ru_majflt,
        "cpu_seconds": sum(one.ru_utime + one.ru_stime for one in both),
        "voluntary_switches": sum(one.ru_nvcsw for one in both),
        "involuntary_switches": sum(one.ru_nivcsw for one in both),
    }


def run(job: Job, rank: int, say: Callable[[dict[str, Any]], None]) -> None:
    """Gets ready, waits for the others, loads, tells."""
    from methods import Place

    torch.set_num_threads(1)
    consumer = Consumer(job, rank)
    start = prepared(Place(job, rank))
    say({"ready": rank, "versions": versions_of(job.method)})
    if not sys.stdin.readline():
        return
    before = used()
    weights = start()
    consumer.consume(weights)
    ended = time.monotonic()
    after = used()
    report = getattr(weights, "report", lambda: None)
    names = set(consumer.names)
    say(
        {
            "rank": rank,
            "ended": ended,
            "tensors": len(consumer.names),
            "missing": sorted(job.tensors.keys() - names)[:10],
            "unexpected": sorted(names - job.tensors.keys())[:10],
            "bytes": consumer.bytes,
            "expected_bytes": part_bytes(job.tensors.values(), job.share(rank), job.sharing),
            **{name: after[name] - before[name] for name in after},
            "report": report(),
            "checksums": consumer.checksums,
        }
    )
    sys.stdin.readline()  # whoever leaves early would take the process group along


def probe(method: str, say: Callable[[dict[str, Any]], None]) -> None:
    """Whether the method is installed for this interpreter; if not, why."""
    from methods import NotInstalledError, Place

    missing = ""
    try:
        prepared(Place(Job(method, [], {}, 0, ""), 0))
    except (ImportError, NotInstalledError, OSError) as error:
        missing = str(error) or type(error).__name__
    say({"missing": missing, "versions": versions_of(method)})


def main() -> int:
    # Loaders print; the lines for launch.py have the real standard output to themselves.
    channel: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(document: dict[str, Any]) -> None:
        print(json.dumps(document), file=channel, flush=True)

    if sys.argv[1] == "--probe":
        probe(sys.argv[2], say)
    else:
        run(read_job(Path(sys.argv[1])), int(os.environ["RANK"]), say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
