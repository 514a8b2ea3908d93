"""What the tests of mode "pread" share: a checkpoint, ways to iterate, kinds of mounts.

A module takes a fixture from here by giving it a name of its own: `source = pread_support.source`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import MIB
from weights_support import Bits, MakeIterator, plainly, random_tensor, save_file, zoo

from shardahead import (
    buffered_multi_thread_safetensors_weights_iterator,
    safetensors_weights_iterator,
)

torch = pytest.importorskip("torch")

ITERATORS = {
    "one by one": safetensors_weights_iterator,
    "buffered": buffered_multi_thread_safetensors_weights_iterator,
}
MOUNTS: dict[str, dict[str, Any]] = {
    "keep_cache": {},
    "no keep_cache": {"keep_cache": False},
    "direct_io": {"direct_io": True},
}
KEEPS_NOTHING = ["no keep_cache", "direct_io"]


@pytest.fixture(params=ITERATORS.values(), ids=list(ITERATORS))
def iterate(request: pytest.FixtureRequest) -> MakeIterator:
    found: MakeIterator = request.param
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards in natural order: every kind of tensor, none, many small ones, large ones."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_file({}, folder / "model-1.safetensors")
    for number in (2, 3, 4):
        save_file(zoo(number), folder / f"model-{number}.safetensors")
    small = {f"small.{i}": random_tensor(torch.uint8, (i,), i) for i in range(1, 500)}
    save_file(small, folder / "model-5.safetensors")
    large = {f"large.{i}": random_tensor(torch.bfloat16, (i, MIB), i) for i in (1, 5, 3)}
    save_file(large, folder / "model-10.safetensors")
    return folder


@pytest.fixture(scope="module")
def expected(source: Path) -> list[Bits]:
    return plainly(*(source / f"model-{i}.safetensors" for i in (1, 2, 3, 4, 5, 10)))
