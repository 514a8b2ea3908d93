"""One rank of the demo, started by torchrun: loads every tensor, checks it, says what it cost.

Reading is timed from a barrier that all ranks pass after their imports to the last tensor touched.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from checkpoint import CHECKSUMS_NAME, INDEX_NAME, checksum
from plain_loop import plain_weights

if TYPE_CHECKING:
    from shardahead import PrefetchHandle

METHODS = ("safetensors", "shardahead")


def shards_of(folder: Path) -> list[Path]:
    """The shards in the order in which the index names them first."""
    weight_map = json.loads((folder / INDEX_NAME).read_text())["weight_map"]
    return [folder / name for name in dict.fromkeys(weight_map.values())]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("checksums", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    expected = json.loads((options.checksums / CHECKSUMS_NAME).read_text())
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    handle: PrefetchHandle | None = None
    dist.barrier()
    faults_before = resource.getrusage(resource.RUSAGE_THREAD)
    started = time.time()
    weights: Iterator[tuple[str, torch.Tensor]]
    if options.method == "shardahead":
        from shardahead import safetensors_weights_iterator

        weights = loaded = safetensors_weights_iterator(options.checkpoint)
        handle = loaded.prefetch
    else:
        weights = plain_weights(shards_of(options.checkpoint))
    consumed, wrong, seen = 0, [], 0
    timeline = [(started, 0)]
    for name, tensor in weights:
        if checksum(tensor) != expected.get(name):
            wrong.append(name)
        seen += 1
        consumed += tensor.nbytes
        timeline.append((time.time(), consumed))
    ended = time.time()
    faults = resource.getrusage(resource.RUSAGE_THREAD)
    result = {
        "rank": int(os.environ["RANK"]),
        "started": started,
        "ended": ended,
        "consumed_bytes": consumed,
        "tensors": seen,
        "missing": len(expected) - seen,
        "wrong": wrong,
        "major_faults": faults.ru_majflt - faults_before.ru_majflt,
        "cpu_seconds": (faults.ru_utime + faults.ru_stime)
        - (faults_before.ru_utime + faults_before.ru_stime),
        "timeline": timeline,
        "report": handle.report().to_dict() if handle is not None else None,
    }
    name = f"{options.method}-{result['rank']}.json"
    (options.output / name).write_text(json.dumps(result))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
