"""Files of SHARDAHEAD_REPORT for tests: of a load that was, and changed ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import MIB, eventually, make_cold, write_file

from shardahead import Options, prefetch_files


def load_file(tmp_path: Path) -> Path:
    """Of a load of 3 MiB in two files."""
    paths = [write_file(tmp_path / f"{i}.safetensors", (i + 1) * MIB) for i in range(2)]
    make_cold(*paths)
    prefetch_files(paths, options=Options(report=tmp_path / "reports")).wait()
    eventually(lambda: [*tmp_path.glob("reports/*.json")], "no report is written")
    return next(tmp_path.glob("reports/*.json"))


def changed(file: Path, name: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of it, beside it, after `change`."""
    document = json.loads(file.read_bytes())
    change(document)
    copied = file.with_name(name)
    copied.write_text(json.dumps(document))
    return copied
