"""What the tests of shards share: files, and indexes that name them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shardahead.checkpoint.shards import Shard


def write(path: Path, size: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def write_index(path: Path, *names: Any, **more: Any) -> Path:
    weight_map = {f"tensor.{i}": name for i, name in enumerate(names)}
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map, **more}))
    return path


def names_of(found: list[Shard]) -> list[str]:
    return [os.path.basename(shard.path) for shard in found]
