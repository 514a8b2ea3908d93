"""Writes the checkpoints that are loaded: random bytes, in large tensors and in small ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

MIB = 2**20
_COLUMNS = 4096
# Of a shard, in 1024ths of its size: a decoder's matrices, large and less so.
_LARGE_PARTS = [128] * 4 + [32] * 12 + [8] * 16
_SMALL_BYTES = 64 * 2**10
_NORM_BYTES = 2 * _COLUMNS


def write_large(folder: Path, shards: int, shard_mib: int, seed: int = 0) -> list[Path]:
    """`shards` files of about `shard_mib` each: matrices of up to an eighth of it, and norms."""
    sizes = [part * shard_mib * MIB // 1024 for part in _LARGE_PARTS]
    sizes += [_NORM_BYTES] * 4
    return [
        _write(folder / f"model-{i + 1:05d}-of-{shards:05d}.safetensors", sizes, seed + i)
        for i in range(shards)
    ]


def write_small(folder: Path, size_mib: int, seed: int = 1000) -> list[Path]:
    """One file of tensors of 64 KiB."""
    sizes = [_SMALL_BYTES] * max(1, size_mib * MIB // _SMALL_BYTES)
    return [_write(folder / "model-00001-of-00001.safetensors", sizes, seed)]


def _write(path: Path, sizes: list[int], seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.Generator(np.random.SFC64(seed))
    tensors: dict[str, torch.Tensor] = {}
    for i, size in enumerate(sizes):
        raw = torch.from_numpy(random.integers(0, 2**63, max(1, size // 8), dtype=np.int64))
        tensors[f"layers.{seed}.{i:05d}.weight"] = _shaped(raw.view(torch.bfloat16))
    save_file(tensors, path)
    with open(path, "rb+") as written:
        os.fsync(written.fileno())
    return path


def _shaped(flat: torch.Tensor) -> torch.Tensor:
    return flat.reshape(-1, _COLUMNS) if flat.numel() % _COLUMNS == 0 else flat
