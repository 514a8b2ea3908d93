"""Runs inside the NFS client: loads the checkpoint cold under each of the conditions.

Changes the client's own round trip and readahead, so it is for a machine of its own (run-nfs).
Says one line of JSON per load on standard output. Ranks are forked after the imports: on one CPU
those take longer than the loads.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE.parent / name) for name in ("demo", "slowfs", "compare"))]

import torch  # noqa: E402

import shardahead  # noqa: E402
from cells import Conditions  # noqa: E402
from checkpoint import CHECKSUMS_NAME, checksum  # noqa: E402
from plain_loop import plain_weights  # noqa: E402
from storage import FolderStorage, NotColdError  # noqa: E402

Weights = Iterable[tuple[str, torch.Tensor]]
METHODS: dict[str, Callable[[list[Path]], Weights]] = {
    "shardahead": shardahead.safetensors_weights_iterator,
    "plain": plain_weights,
}
_INTERFACE = "vec0"  # of the User-Mode Linux kernel that run-guest starts
_LIMIT_SECONDS = 900
_LARGEST_TENSOR_BYTES = 2**27  # of the demo's checkpoint


def set_conditions(conditions: Conditions, folder: Path) -> None:
    """The delay of what the client sends, and the readahead of the mount."""
    delay = f"tc qdisc replace dev {_INTERFACE} root netem limit 10000"
    subprocess.run([*delay.split(), "delay", f"{conditions.round_trip_ms}ms"], check=True)
    device = os.stat(folder).st_dev
    bdi = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    bdi.write_text(str(conditions.read_ahead_kib))


def rank(method: str, files: list[Path], number: int, ranks: int, barrier: Any, found: Any) -> None:
    """One rank: copies every tensor, in the order of the files, into one buffer."""
    os.environ.update(LOCAL_RANK=str(number), LOCAL_WORLD_SIZE=str(ranks))
    torch.set_num_threads(1)
    buffer = torch.ones(_LARGEST_TENSOR_BYTES, dtype=torch.uint8)
    barrier.wait()
    started = time.monotonic()
    names = []
    for name, tensor in METHODS[method](files):
        if tensor.dim():
            raw = tensor.view(torch.uint8).reshape(-1)
            buffer[: raw.numel()].copy_(raw)
        names.append(name)
    found.put((started, time.monotonic(), names))


def load(method: str, files: list[Path], ranks: int) -> tuple[float, list[list[str]]]:
    """Seconds from the barrier to the end of the last rank, and the names that each rank had."""
    fork = multiprocessing.get_context("fork")
    barrier, found = fork.Barrier(ranks), fork.Queue()
    arguments = (method, files)
    children = [
        fork.Process(target=rank, args=(*arguments, number, ranks, barrier, found))
        for number in range(ranks)
    ]
    for child in children:
        child.start()
    results = [found.get(timeout=_LIMIT_SECONDS) for _ in children]
    for child in children:
        child.join()
    return max(r[1] for r in results) - min(r[0] for r in results), [r[2] for r in results]


def verified(files: list[Path], expected: dict[str, str]) -> str:
    """What is wrong with the contents, or nothing."""
    wrong = [
        name
        for name, tensor in METHODS["shardahead"](files)
        if checksum(tensor) != expected.get(name)
    ]
    return f"{len(wrong)} tensors differ: {wrong[:3]}" if wrong else ""


def measured(job: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    storage = FolderStorage(folder)
    files = [Path(file.path) for file in shardahead.residency(folder)]
    expected = json.loads((folder / CHECKSUMS_NAME).read_text())
    problem = verified(files, expected)
    for conditions in (Conditions(*one) for one in job["conditions"]):
        set_conditions(conditions, folder)
        for method in job["methods"]:
            seconds = 0.0
            names: list[list[str]] = []
            try:
                storage.make_cold()
                seconds, names = load(method, files, job["ranks"])
            except NotColdError as error:
                problem = str(error)
            if not problem and any(set(one) != set(expected) for one in names):
                problem = "not all tensors came"
            yield {
                "conditions": [conditions.round_trip_ms, conditions.read_ahead_kib],
                "method": method,
                "seconds": seconds,
                "wire_bytes": storage.served_bytes(),
                "problem": problem,
            }


def main() -> None:
    job = json.loads(sys.argv[1])
    for document in measured(job, Path(job["folder"])):
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()
