"""The plain loop: what loaders do without a prefetch. Needs torch and safetensors only."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import torch
from safetensors import safe_open

Take = Callable[[Any, str], torch.Tensor]


def whole_tensor(shard: Any, name: str) -> torch.Tensor:
    tensor: torch.Tensor = shard.get_tensor(name)
    return tensor


def plain_weights(
    files: Iterable[object], take: Take = whole_tensor, names: Container[str] | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """What SGLang, vLLM and transformers do without a prefetch: shard.keys(), tensor by tensor.
    With `names` those alone.
    """
    for path in files:
        with safe_open(path, framework="pt", device="cpu") as shard:
            for key in shard.keys():  # noqa: SIM118 - not a dict
                if names is None or key in names:
                    yield key, take(shard, key)
