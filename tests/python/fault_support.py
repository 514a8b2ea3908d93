"""What the tests of faults share: a checkpoint, ways to load it, and how soon processes end.

Nothing here judges the product.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from conftest import HANG_SECONDS, MIB
from nursery import Child

#: What is promised of every way out: cancel(), close(), Ctrl-C, SIGTERM, exit, an exception.
PROMISED_SECONDS = 2.0
POLL_SECONDS = 0.01
TENSOR_BYTES = MIB
TENSORS_PER_SHARD = 4
ITERATORS = ["safetensors_weights_iterator", "buffered_multi_thread_safetensors_weights_iterator"]
#: Ways to load with the iterators: the function and its options.
LOADS = [(ITERATORS[0], "{}"), (ITERATORS[1], "{}"), (ITERATORS[0], '{"mode": "pread"}')]


def write_checkpoint(
    folder: Path,
    shards: int = 3,
    tensors: int = TENSORS_PER_SHARD,
    tensor_bytes: int = TENSOR_BYTES,
) -> Path:
    """Shards model-0, model-1, ... whose tensor j of shard i is named "i.j". Every 8 bytes of it
    say which tensor they belong to and where they lie in it: see CHECKED.
    """
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(shards):
        count = torch.arange(tensor_bytes // 8, dtype=torch.int64)
        tensors_of = {f"{i}.{j}": count + ((i << 48) + (j << 40)) for j in range(tensors)}
        save_file(tensors_of, folder / f"model-{i}.safetensors")
    return folder


#: For scripts: whether a tensor has the bytes of its name.
CHECKED = """
def right(name, tensor, version=0):
    i, j = map(int, name.split("."))
    expected = torch.arange(tensor.numel(), dtype=torch.int64)
    return bool((tensor == expected + ((i << 48) + (j << 40) + (version << 32))).all())
"""


def names_before(shard: int, tensor: int = 0) -> list[str]:
    return [f"{i}.{j}" for i in range(shard + 1) for j in range(TENSORS_PER_SHARD)][
        : shard * TENSORS_PER_SHARD + tensor
    ]


def data_offset(path: Path, tensors: int = TENSORS_PER_SHARD) -> int:
    return path.stat().st_size - tensors * TENSOR_BYTES


def within(seconds: float, children: list[Child]) -> list[int]:
    """The exit statuses of all, each of which must end without sleeping for longer than that from
    now on: what it waits for a processor does not count.
    """
    slept = [0.0] * len(children)
    began = last = time.monotonic()
    while not all(child.ended for child in children):
        time.sleep(POLL_SECONDS)
        now = time.monotonic()
        for i, child in enumerate(children):
            if not child.ended and not child.is_runnable():
                slept[i] += min(now - last, 5 * POLL_SECONDS)  # this process, too, may wait
            if not child.ended and (slept[i] > seconds or now - began > HANG_SECONDS):
                child.status(0)  # fails
        last = now
    return [child.status() for child in children]
