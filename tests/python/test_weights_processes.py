"""The weight iterators in processes of their own: tensors are not copied, ranks read the same.

That the bits are right is tested in test_weights.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import MIB, is_resident, make_cold, run_python, run_ranks
from weights_support import MakeIterator, buffered, one_by_one, random_tensor, save_file, zoo

torch = pytest.importorskip("torch")

CHECKPOINT_BYTES = 64 * MIB
LOAD = """
import json, sys, torch, shardahead
def anonymous():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("RssAnon"))
make = getattr(shardahead, sys.argv[2])
list(make(sys.argv[3]))  # what is loaded once stays
before = anonymous()
weights = make(sys.argv[1])
held = list(weights)
total = sum(int(tensor.sum(dtype=torch.int64)) for _, tensor in held)
report = weights.prefetch.report().to_dict()
print(json.dumps({"grown": anonymous() - before, "sum": total, "report": report}))
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    for i in range(2):
        tensors = {
            f"{i}.{j}": random_tensor(torch.uint8, (CHECKPOINT_BYTES // 8,), j) for j in range(4)
        }
        save_file(tensors, folder / f"{i}.safetensors")
    return folder


@pytest.mark.parametrize("make", [one_by_one, buffered])
def test_tensors_are_views_and_not_copies(large: Path, tmp_path: Path, make: MakeIterator) -> None:
    small = tmp_path / "small"
    small.mkdir()
    save_file(zoo(1), small / "a.safetensors")
    name = make.__name__
    found = run_python(LOAD, large, name, small)
    assert found["sum"] > 0
    assert found["grown"] < CHECKPOINT_BYTES // 4


@pytest.mark.parametrize("partition", ["block", "file"])
def test_rank_processes_read_the_same(large: Path, tmp_path: Path, partition: str) -> None:
    files = sorted(large.iterdir())
    make_cold(*files)
    small = tmp_path / "small"
    small.mkdir()
    save_file(zoo(1), small / "a.safetensors")
    ranks = run_ranks(
        LOAD,
        2,
        large,
        "safetensors_weights_iterator",
        small,
        env={"SHARDAHEAD_PARTITION": partition},
    )
    assert ranks[0]["sum"] == ranks[1]["sum"] > 0
    assert [rank["report"]["local_size"] for rank in ranks] == [2, 2]
    planned = [rank["report"]["planned_bytes"] for rank in ranks]
    assert sum(planned) == sum(os.path.getsize(path) for path in files)
    assert all(is_resident(path) for path in files)
