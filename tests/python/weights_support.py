"""What the tests of the weight iterators share: checkpoints, ways to iterate, tensors bit for bit.

What is right is what the safetensors library reads by itself. A module takes a fixture from here by
giving it a name of its own: `shards = weights_support.shards`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB

from shardahead import (
    WeightsIterator,
    buffered_multi_thread_safetensors_weights_iterator,
    safetensors_weights_iterator,
)

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
save_file = pytest.importorskip("safetensors.torch").save_file

MakeIterator = Callable[..., WeightsIterator]
Bits = tuple[str, Any, tuple[int, ...], bytes]

one_by_one: MakeIterator = safetensors_weights_iterator
buffered: MakeIterator = buffered_multi_thread_safetensors_weights_iterator
ITERATORS = {
    "one by one": one_by_one,
    "1 worker": partial(buffered, max_workers=1),
    "2 workers": partial(buffered, max_workers=2),
    "8 workers": partial(buffered, max_workers=8),
}


@pytest.fixture(params=ITERATORS.values(), ids=list(ITERATORS))
def iterate(request: pytest.FixtureRequest) -> MakeIterator:
    found: MakeIterator = request.param
    return found


def bits(name: str, tensor: Any) -> Bits:
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return name, tensor.dtype, tuple(tensor.shape), raw


def plainly(*shards: Path) -> list[Bits]:
    """What the safetensors library reads: shards as given, tensors by offset."""
    found = []
    for path in shards:
        with safetensors.safe_open(path, framework="pt") as shard:
            found += [bits(name, shard.get_tensor(name)) for name in shard.offset_keys()]
    return found


def random_tensor(dtype: Any, shape: tuple[int, ...], seed: int) -> Any:
    """Random bytes of this type: also NaNs and infinities."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, generator=generator).bool()
    count = torch.empty(shape, dtype=dtype).nbytes
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


def zoo(number: int) -> dict[str, Any]:
    """Every kind of tensor that models hold, with odd sizes, none and one element."""
    kinds = [
        ("up_proj.weight", torch.bfloat16, (129, 257)),
        ("experts.weight", torch.float8_e4m3fn, (61, 1031)),
        ("scale", torch.float32, ()),
        ("positions", torch.int64, (3, 1, 5)),
        ("mask", torch.bool, (7,)),
        ("nothing", torch.float16, (0, 5)),
        ("norm.weight", torch.float64, (1,)),
        ("wide.weight", torch.uint8, (2 * MIB + 1,)),
    ]
    return {
        f"layers.{number}.{name}": random_tensor(dtype, shape, 100 * number + i)
        for i, (name, dtype, shape) in enumerate(kinds)
    }


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five shards without an index: 1, 2, 3, 10, 11 in natural order, one of them empty."""
    folder = tmp_path_factory.mktemp("checkpoint")
    paths = [folder / f"model-{number}.safetensors" for number in (1, 2, 3, 10, 11)]
    for number, path in enumerate(paths):
        save_file({} if number == 2 else zoo(number), path)
    return paths


def read(weights: WeightsIterator) -> list[Bits]:
    return [bits(name, tensor) for name, tensor in weights]
