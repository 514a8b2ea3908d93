"""Writes a sharded safetensors checkpoint with realistic names, dtypes and sizes, and checksums.

Random bytes, not a trained model. Shapes follow a mixture-of-experts decoder: bf16 projections, fp8
expert weights with fp32 scales, fp32 scalars, and a few tensors of odd sizes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors.torch import save_file

INDEX_NAME = "model.safetensors.index.json"
CHECKSUMS_NAME = "checksums.json"
_VOCABULARY = 32_003
_HIDDEN = 2048
_EXPERT = 1408
_EXPERTS_PER_LAYER = 8


@dataclass(frozen=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        elements = 1
        for length in self.shape:
            elements *= length
        return elements * self.dtype.itemsize


def tensor_specs(divisor: int = 1) -> Iterator[TensorSpec]:
    """Tensors of an endless decoder, layer after layer; their dimensions divided by `divisor`."""
    bf16, fp8, fp32 = torch.bfloat16, torch.float8_e4m3fn, torch.float32
    hidden, expert_hidden = _HIDDEN // divisor, _EXPERT // divisor
    yield TensorSpec("model.embed_tokens.weight", (_VOCABULARY // divisor, hidden), bf16)
    layer = 0
    while True:
        prefix = f"model.layers.{layer}"
        yield TensorSpec(f"{prefix}.input_layernorm.weight", (hidden,), bf16)
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield TensorSpec(f"{prefix}.self_attn.{projection}.weight", (hidden, hidden), bf16)
        yield TensorSpec(f"{prefix}.self_attn.rotary_emb.inv_freq", (61,), fp32)
        yield TensorSpec(f"{prefix}.mlp.gate.weight", (_EXPERTS_PER_LAYER, hidden), bf16)
        for expert in range(_EXPERTS_PER_LAYER):
            for projection, shape in (
                ("gate_proj", (expert_hidden, hidden)),
                ("up_proj", (expert_hidden, hidden)),
                ("down_proj", (hidden, expert_hidden)),
            ):
                name = f"{prefix}.mlp.experts.{expert}.{projection}"
                yield TensorSpec(f"{name}.weight", shape, fp8)
                yield TensorSpec(f"{name}.weight_scale_inv", (11, 16), fp32)
                yield TensorSpec(f"{name}.input_scale", (), fp32)
        yield TensorSpec(f"{prefix}.post_attention_layernorm.weight", (hidden,), bf16)
        yield TensorSpec(f"{prefix}.mlp.expert_bias", (37, 3), fp8)
        layer += 1


def checksum(tensor: torch.Tensor) -> str:
    """xxh3_128 of the tensor's bytes, read where they lie."""
    raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return xxhash.xxh3_128_hexdigest(raw)


def write_checkpoint(
    folder: Path, size_bytes: int, shards: int, seed: int = 0, divisor: int = 1
) -> dict[str, str]:
    """Writes about `size_bytes` in `shards` files with an index; returns checksums by tensor name.

    They are also written to checksums.json beside the shards. `divisor` makes the tensors smaller.
    """
    folder.mkdir(parents=True, exist_ok=True)
    specs = _specs_of(size_bytes, divisor)
    shard_bytes = sum(spec.size_bytes for spec in specs) / shards
    random = torch.Generator().manual_seed(seed)
    checksums: dict[str, str] = {}
    weight_map: dict[str, str] = {}
    written, number, pending = 0, 1, dict[str, torch.Tensor]()
    for spec in specs:
        tensor = _random_tensor(spec, random)
        checksums[spec.name] = checksum(tensor)
        pending[spec.name] = tensor
        written += spec.size_bytes
        if spec is specs[-1] or written >= number * shard_bytes:
            name = f"model-{number:05d}-of-{shards:05d}.safetensors"
            save_file(pending, folder / name)
            weight_map.update(dict.fromkeys(pending, name))
            pending = {}
            number += 1
    index = {"metadata": {"total_size": written}, "weight_map": weight_map}
    (folder / INDEX_NAME).write_text(json.dumps(index))
    (folder / CHECKSUMS_NAME).write_text(json.dumps(checksums))
    return checksums


def _specs_of(size_bytes: int, divisor: int) -> list[TensorSpec]:
    specs: list[TensorSpec] = []
    total = 0
    for spec in tensor_specs(divisor):
        if total >= size_bytes:
            break
        specs.append(spec)
        total += spec.size_bytes
    return specs


def _random_tensor(spec: TensorSpec, random: torch.Generator) -> torch.Tensor:
    words = -(-spec.size_bytes // 8)
    raw = torch.empty(words, dtype=torch.int64).random_(generator=random)
    return raw.view(torch.uint8)[: spec.size_bytes].view(spec.dtype).reshape(spec.shape)
