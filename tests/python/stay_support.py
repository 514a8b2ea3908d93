"""A `warm` that stays, as a process: what it says, keeps open and locks, and its figures.

A module takes a fixture from here by giving it a name of its own.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    MIB,
    clean_environment,
    eventually,
    finish,
    make_cold,
    resident_bytes,
    write_file,
)

NAMES = ["a-1.safetensors", "a-2.safetensors"]
SIZE_BYTES = 2 * MIB + 123
OFTEN = ["--keep-interval", "0.1"]
SOON = ["--follow-interval", "0.1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        write_file(tmp_path / "model" / name, SIZE_BYTES)
    make_cold(*(tmp_path / "model").iterdir())
    return tmp_path / "model"


class Staying:
    """A command `warm` that stays."""

    def __init__(self, *words: object, **options: Any) -> None:
        beside = Path(str(words[-1])).parent
        self.file = Path(tempfile.mkdtemp(dir=beside)) / "warm.prom"
        if "--metrics-file" not in words:
            words = ("--metrics-file", self.file, *words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "shardahead", "warm", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"env": clean_environment(), **options},
        )

    def until(self, holds: Any, otherwise: str) -> None:
        eventually(lambda: self.process.poll() is not None or holds(), otherwise)
        assert self.process.poll() is None, self.process.communicate()

    def until_it_stays(self) -> None:
        """Its first prefetch is over, and it has said so."""
        files = self.file.parent
        self.until(
            lambda: any(metrics(f)["shardahead_warm_staying"] for f in files.glob("*.prom")),
            "it does not stay",
        )

    def end(self, number: int = signal.SIGTERM) -> subprocess.CompletedProcess[str]:
        self.process.send_signal(number)
        return finish(self.process)

    def document(self, status: int = 0) -> Any:
        done = self.end()
        assert done.returncode == status, done.stderr
        assert done.stdout.count("\n") == 1
        return json.loads(done.stdout)

    def opens(self, path: Path) -> bool:
        return str(path) in self.opened()

    def opened(self) -> list[str]:
        folder = f"/proc/{self.process.pid}/fd"
        found = []
        for name in os.listdir(folder):
            try:
                found.append(os.readlink(f"{folder}/{name}"))
            except FileNotFoundError:
                continue
        return found

    def locked_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmLck:\s*([0-9]+) kB", status)
        assert found
        return int(found[1]) * 1024


@contextmanager
def staying(*words: object, **options: Any) -> Iterator[Staying]:
    made = Staying(*words, **options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
        made.process.communicate()


def is_warm(*paths: Path) -> bool:
    return all(resident_bytes(path) >= path.stat().st_size for path in paths)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def metrics(path: Path) -> dict[str, float]:
    found = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            found[name.split("{")[0]] = float(value)
    return found


def require_lockable() -> None:
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if os.geteuid() != 0 and 0 <= limit < 4 * SIZE_BYTES:
        pytest.skip("this user may not lock so much")
