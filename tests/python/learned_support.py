"""What the tests of `learn=` share: a checkpoint, and a rank, in a process of its own, that takes
its part of each tensor, by one way or another.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, result_of, start_python

from shardahead.prefetch.byte_ranges import Ranges
from shardahead.prefetch.profile import Profile
from shardahead.prefetch.profile_file import read_profile, write_profile

torch = pytest.importorskip("torch")
save_file = pytest.importorskip("safetensors.torch").save_file

ROWS = 32
TENSOR_BYTES = 32 * MIB
SHARDS = 2
TENSORS = 2  # of each shard
SIZE = 8  # of the job
PART_BYTES = SHARDS * TENSORS * TENSOR_BYTES // SIZE

RANK = """
import hashlib, json, logging, os, sys, time
import torch
import shardahead
from safetensors import safe_open

if "LIMIT" in os.environ:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
how, folder, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = json.loads(sys.argv[4])
told = []

class Kept(logging.Handler):
    def emit(self, record):
        told.append([record.levelname, record.getMessage()])
        if record.levelno >= logging.WARNING:  # also what is said at the exit
            print(record.getMessage(), file=sys.stderr)

logging.getLogger("shardahead").addHandler(Kept())
logging.getLogger("shardahead").setLevel(logging.INFO)
found = hashlib.sha256()

taken = 0

def take(name, tensor):
    global taken
    rows = tensor.shape[0] // 8
    part = tensor[rank * rows : (rank + 1) * rows].clone()
    taken += part.nbytes
    found.update(name.encode())
    found.update(memoryview(part.numpy()))

mode = None
if how == "iterator":
    weights = shardahead.safetensors_weights_iterator(folder, **options)
    for name, tensor in weights:
        take(name, tensor)
        del tensor
    handle, mode = weights.prefetch, weights.mode
elif how == "held":  # narrowed when all have been handed out
    weights = shardahead.safetensors_weights_iterator(folder, **options)
    tensors = dict(weights)
    for name in list(tensors):
        take(name, tensors.pop(name))
    handle, mode = weights.prefetch, weights.mode
else:
    with shardahead.prefetching(folder, **options) as handle:
        for path in [shard.path for shard in handle.shards]:
            with safe_open(path, framework="pt") as shard:
                for name in sorted(shard.keys()):
                    take(name, shard.get_tensor(name))
                # What is unmapped before it is looked at is not seen.
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    seen = handle.report().touched_bytes
                    if seen is None or seen >= taken:
                        break
                    time.sleep(0.01)
    mode = "beside"
report = handle.report() if handle is not None else None
print(json.dumps({
    "sha256": found.hexdigest(), "mode": mode, "told": told,
    "learned": report and report.learned, "touched_bytes": report and report.touched_bytes,
    "planned_bytes": report and report.planned_bytes, "cancelled": report and report.cancelled,
}))
"""


def write_checkpoint(folder: Path) -> Path:
    """Shards whose tensors are told apart by every row."""
    folder.mkdir(parents=True)
    for i in range(SHARDS):
        tensors = {
            f"{i}.{j}": torch.randint(
                0,
                256,
                (ROWS, TENSOR_BYTES // ROWS),
                dtype=torch.uint8,
                generator=torch.Generator().manual_seed(TENSORS * i + j),
            )
            for j in range(TENSORS)
        }
        save_file(tensors, folder / f"model-{i}.safetensors")
    return folder


def expected(folder: Path, rank: int) -> str:
    """What `rank` takes, read by the safetensors library alone."""
    from safetensors import safe_open

    found = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as shard:
            for name in sorted(shard.keys()):
                rows = ROWS // SIZE
                part = shard.get_tensor(name)[rank * rows : (rank + 1) * rows].clone()
                found.update(name.encode())
                found.update(memoryview(part.numpy()))
    return found.hexdigest()


def start_rank(
    how: str, folder: Path, rank: int = 0, env: dict[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """`env` beside the variables of the job."""
    job = {"RANK": str(rank), "WORLD_SIZE": str(SIZE), **(env or {})}
    return start_python(RANK, how, folder, str(rank), json.dumps(options), env=job)


def load(
    how: str, folder: Path, rank: int = 0, env: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """One load by one rank, and what it told, when its process has ended."""
    found: dict[str, Any] = result_of(start_rank(how, folder, rank, env, **options))
    return found


def profile_in(folder: Path) -> Profile:
    """The only one there is."""
    [name] = os.listdir(folder)
    found = read_profile(str(folder / name))
    assert found is not None
    return found


def rewrite(checkpoint: Path, profiles: Path, change: Callable[[int, int], Ranges]) -> None:
    """Leaves a profile under the key "one" that has the ranges which `change` gives for the number
    of a shard and its size.
    """
    load("iterator", checkpoint, learn=str(profiles), learn_key="one")
    [path] = profiles.iterdir()
    known = profile_in(profiles)
    ranges = tuple(change(i, size) for i, (_, size) in enumerate(known.files))
    write_profile(str(path), replace(known, ranges=ranges))


def warnings(load: dict[str, Any]) -> list[str]:
    return [text for level, text in load["told"] if level == "WARNING"]
