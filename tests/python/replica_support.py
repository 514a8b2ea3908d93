"""What the tests of replicas share: a model's folder, and what is left of a replica's making."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

from conftest import MIB, write_file

from shardahead.replica.replica_folder import Place

SHARDS = (40 * MIB + 123, 0, 17 * MIB, 4096)


def make_model(folder: Path, sizes: tuple[int, ...] = SHARDS) -> Path:
    """Shards with an index, a configuration, a tokenizer, and what is not to be copied."""
    names = [f"model-{i + 1:05}-of-{len(sizes):05}.safetensors" for i in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        write_file(folder / name, size)
    index = {"metadata": {}, "weight_map": {f"t.{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.model").write_bytes(b"\x01\x02")
    write_file(folder / "pytorch_model.bin", 5000)
    (folder / ".cache").mkdir()
    (folder / "runs").mkdir()
    (folder / "runs" / "log.txt").write_text("x")
    return folder


def visible(folder: str | Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


def place(folder: Path, name: str = "model") -> Place:
    return Place(str(folder), name)


def staged_bytes(folder: Path) -> int:
    """On the disk, of what is being made."""
    staging = place(folder).staging
    if not os.path.isdir(staging):
        return 0
    return sum(each.stat().st_blocks * 512 for each in Path(staging).rglob("*.safetensors"))


def check_same(model: Path, replica: str) -> None:
    """Byte for byte, and nothing beside what a loader needs."""
    expected = sorted(name for name in visible(model) if name not in ("pytorch_model.bin", "runs"))
    assert visible(replica) == expected
    for name in expected:
        assert filecmp.cmp(model / name, Path(replica) / name, shallow=False), name
